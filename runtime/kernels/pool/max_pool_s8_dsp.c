/* SPDX-License-Identifier: Apache-2.0 */
/* max_pool_s8 for cores with DSP instructions: SSUB8 and SEL choose the larger of four bytes, five taps at a time. */
#include "edgec_dsp.h"
#include "edgec_kernels.h"

#include "pool_taps.h"

#define EDGEC_TAPS 5 /* pointers that stay in registers; where fewer are left, one is taken again */

/* Inlined into one another, these would only cost flash and registers. */
#define EDGEC_NOINLINE __attribute__((noinline))

/* The largest of five, for any number of channels. y may be one of them. */
EDGEC_SMALL
static void largest_bytes(const int8_t *const taps[EDGEC_TAPS], int8_t *y, int32_t channels)
{
    for (int32_t at = 0; at < channels; at++) {
        int8_t largest = taps[0][at];
        for (int32_t i = 1; i < EDGEC_TAPS; i++) {
            largest = taps[i][at] > largest ? taps[i][at] : largest;
        }
        y[at] = largest;
    }
}

/* The same for four channels or more. */
EDGEC_NOINLINE
static void largest_of_five(const int8_t *const taps[EDGEC_TAPS], int8_t *y, int32_t channels)
{
    const int8_t *const tap0 = taps[0];
    const int8_t *const tap1 = taps[1];
    const int8_t *const tap2 = taps[2];
    const int8_t *const tap3 = taps[3];
    const int8_t *const tap4 = taps[4];
    const int32_t whole = channels & ~3;
    int32_t at = 0;
    do {
        uint32_t word = edgec_larger_bytes(edgec_load_word(tap0 + at), edgec_load_word(tap1 + at));
        word = edgec_larger_bytes(word, edgec_load_word(tap2 + at));
        word = edgec_larger_bytes(word, edgec_load_word(tap3 + at));
        word = edgec_larger_bytes(word, edgec_load_word(tap4 + at));
        __builtin_memcpy(y + at, &word, sizeof word); /* one store: the library may have no string.h */
        at += 4;
    } while (at != whole);
    if (whole != channels) { /* a word that overlaps the one before: the larger of the larger is the same */
        at = channels - 4;
        uint32_t word = edgec_larger_bytes(edgec_load_word(tap0 + at), edgec_load_word(tap1 + at));
        word = edgec_larger_bytes(word, edgec_load_word(tap2 + at));
        word = edgec_larger_bytes(word, edgec_load_word(tap3 + at));
        word = edgec_larger_bytes(word, edgec_load_word(tap4 + at));
        __builtin_memcpy(y + at, &word, sizeof word);
    }
}

static inline void largest(const int8_t *const taps[EDGEC_TAPS], int8_t *y, int32_t channels)
{
    if (channels < 4) {
        largest_bytes(taps, y, channels);
    } else {
        largest_of_five(taps, y, channels);
    }
}

EDGEC_SMALL
static void no_pixel(int8_t *y, int32_t channels)
{
    for (int32_t i = 0; i < channels; i++) {
        y[i] = INT8_MIN;
    }
}

void edgec_max_pool_s8_dsp(const int8_t *x, const int32_t *geometry, int8_t *y, int32_t first_row, int32_t rows)
{
    edgec_conv2d_geometry g;
    __builtin_memcpy(&g, geometry, sizeof g);
    for (int32_t row = first_row; row < first_row + rows; row++) {
        const edgec_pool_taps down = edgec_pool_inside(row * g.stride_h - g.top, g.dilation_h, g.kernel_h, 0, g.height);
        for (int32_t column = 0; column < g.columns; column++) {
            const edgec_pool_taps along =
                edgec_pool_inside(column * g.stride_w - g.left, g.dilation_w, g.kernel_w, 0, g.width);
            const int8_t *taps[EDGEC_TAPS];
            int32_t found = 0;
            for (int32_t i = 0; i < down.count; i++) {
                const int8_t *tap = x + ((down.first + i * g.dilation_h) * g.width + along.first) * g.channels;
                for (int32_t j = 0; j < along.count; j++) {
                    if (found == EDGEC_TAPS) {
                        largest(taps, y, g.channels);
                        taps[0] = y;
                        found = 1;
                    }
                    taps[found++] = tap;
                    tap += g.dilation_w * g.channels;
                }
            }
            if (found == 0) { /* padding alone */
                no_pixel(y, g.channels);
            } else {
                while (found < EDGEC_TAPS) {
                    taps[found] = taps[found - 1];
                    found++;
                }
                largest(taps, y, g.channels);
            }
            y += g.channels;
        }
    }
}
