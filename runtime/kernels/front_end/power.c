/* SPDX-License-Identifier: Apache-2.0 */
/* The power of a real transform from the transform of pairs of samples. */
#include "butterfly.h"
#include "edgec_compiler.h"

static inline edgec_complex power(edgec_complex z)
{
    const uint64_t squared = (uint64_t)((int64_t)z.re * z.re + (int64_t)z.im * z.im) >> 16;
    return (edgec_complex){(int32_t)(uint32_t)squared, (int32_t)(uint32_t)(squared >> 32)};
}

void edgec_front_end_power(edgec_complex *z, const int32_t *twiddles, int32_t points)
{
    edgec_complex *low = z + 1, *high = z + points - 1;
    EDGEC_KEEP_LOOP
    for (; low <= high; low++, high--) {
        const edgec_complex p = *low, q = *high;
        twiddles += 2;
        edgec_complex a = {(p.re + q.re) >> 1, (p.im - q.im) >> 1}, b = {(p.im + q.im) >> 1, (q.re - p.re) >> 1};
        edgec_butterfly(&a, &b, twiddles[0], twiddles[1]);
        *high = power(b);
        *low = power(a);
    }
}
