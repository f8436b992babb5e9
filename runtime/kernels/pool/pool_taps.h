/* SPDX-License-Identifier: Apache-2.0 */
/* Which taps of a window lie in a range of one axis. */
#ifndef EDGEC_POOL_TAPS_H
#define EDGEC_POOL_TAPS_H

#include <stdint.h>

/* Unrolled or inlined, this would cost flash and little else. */
#if defined(__clang__)
#define EDGEC_SMALL __attribute__((noinline, minsize))
#else
#define EDGEC_SMALL __attribute__((noinline))
#endif

typedef struct {
    int32_t first, count; /* place of the first one; how many */
} edgec_pool_taps;

/* Of the taps at start, start + dilation, ...: those in [low, high). */
EDGEC_SMALL
static edgec_pool_taps edgec_pool_inside(int32_t start, int32_t dilation, int32_t taps, int32_t low, int32_t high)
{
    int32_t last = start + (taps - 1) * dilation;
    while (taps > 0 && start < low) {
        start += dilation;
        taps--;
    }
    while (taps > 0 && last >= high) {
        last -= dilation;
        taps--;
    }
    return (edgec_pool_taps){start, taps};
}

#endif
