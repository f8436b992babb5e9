/* SPDX-License-Identifier: Apache-2.0 */
/* mean_s8 for cores with DSP instructions: four sums in 16-bit lanes, widened before they could overflow. */
#include "edgec_compiler.h"
#include "edgec_dsp.h"
#include "edgec_kernels.h"

enum { BIAS, MULT, SHIFT, ZERO_POINT, WIDE };

#define EDGEC_LONGEST 252 /* terms of at most 128 that a 16-bit lane holds */

/* sums[k] += x[k], x[k + step], ...: four neighbours of `terms` rows. */
#if EDGEC_HAS_DSP
__attribute__((noinline))
static void add_columns(const int8_t *x, int32_t step, int32_t terms, int32_t *sums)
{
    while (terms > 0) {
        const int32_t some = terms < EDGEC_LONGEST ? terms : EDGEC_LONGEST;
        int16x2_t even = 0, odd = 0;
        EDGEC_UNROLL_TWICE
        for (int32_t i = 0; i < some; i++) {
            const uint32_t word = edgec_load_word(x);
            even = __sxtab16(even, (int8x4_t)word);
            odd = __sxtab16(odd, (int8x4_t)(word >> 8 | word << 24));
            x += step;
        }
        sums[0] += edgec_lane0((uint32_t)even);
        sums[1] += edgec_lane0((uint32_t)odd);
        sums[2] += edgec_lane1((uint32_t)even);
        sums[3] += edgec_lane1((uint32_t)odd);
        terms -= some;
    }
}
#else
static void add_columns(const int8_t *x, int32_t step, int32_t terms, int32_t *sums)
{
    for (int32_t i = 0; i < terms; i++) {
        for (int32_t k = 0; k < 4; k++) {
            sums[k] += x[i * step + k];
        }
    }
}
#endif

__attribute__((noinline))
static int8_t requantized(int32_t sum, const int32_t *constants)
{
    const int32_t shift = constants[SHIFT];
    if (constants[WIDE] != 0) {
        const int64_t product = (int64_t)sum * constants[MULT] + ((int64_t)1 << (30 + shift));
        return edgec_ssat8((int32_t)(product >> (31 + shift)) + constants[ZERO_POINT]);
    }
    EDGEC_KEEP_LOOP
    for (int32_t i = 0; i < shift; i++) {
        sum = edgec_qadd(sum, sum);
    }
    return edgec_ssat8(edgec_smmlar(sum, 2 * constants[MULT], constants[ZERO_POINT]));
}

EDGEC_MINSIZE /* the work is in add_columns */
void edgec_mean_s8_dsp(const int8_t *x, const int32_t *constants, int8_t *y, int32_t outer, int32_t terms,
                       int32_t inner)
{
    for (; outer > 0; outer--) {
        int32_t i = 0;
        if (inner == 1) { /* the terms of one sum are neighbours */
            int32_t sums[4] = {constants[BIAS], 0, 0, 0};
            add_columns(x, 4, terms / 4, sums);
            for (int32_t t = terms & ~3; t < terms; t++) {
                sums[0] += x[t];
            }
            *y++ = requantized(sums[0] + sums[1] + sums[2] + sums[3], constants);
            i = 1;
        }
        EDGEC_KEEP_LOOP
        for (; i + 4 <= inner; i += 4) {
            int32_t sums[4] = {constants[BIAS], constants[BIAS], constants[BIAS], constants[BIAS]};
            add_columns(x + i, inner, terms, sums);
            EDGEC_KEEP_LOOP
            for (int32_t k = 0; k < 4; k++) {
                *y++ = requantized(sums[k], constants);
            }
        }
        for (; i < inner; i++) {
            int32_t sum = constants[BIAS];
            const int8_t *from = x + i;
            EDGEC_KEEP_LOOP
            for (int32_t t = 0; t < terms; t++) {
                sum += *from;
                from += inner;
            }
            *y++ = requantized(sum, constants);
        }
        x += terms * inner;
    }
}
