/* SPDX-License-Identifier: Apache-2.0 */
/* mean_s16 for cores with DSP instructions: pairs of columns in a word each. */
#include "edgec_compiler.h"
#include "edgec_dsp.h"
#include "edgec_kernels.h"

enum { BIAS, MULT, SHIFT, ZERO_POINT, WIDE };

static inline int32_t load16(const int8_t *p)
{
    int16_t value;
    __builtin_memcpy(&value, p, sizeof value);
    return value;
}

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

void edgec_mean_s16_dsp(const int16_t *input, const int32_t *constants, int8_t *y, int32_t outer, int32_t terms,
                        int32_t inner)
{
    const int8_t *x = (const int8_t *)input;
    const int32_t step = 2 * inner;
    for (; outer > 0; outer--) {
        int32_t left = inner;
        EDGEC_KEEP_LOOP
        for (; left > 1; left -= 2) {
            int32_t first = constants[BIAS];
            int32_t second = first;
            const int8_t *from = x;
            EDGEC_UNROLL_TWICE
            for (int32_t t = 0; t < terms; t++) {
                const uint32_t word = edgec_load_word(from);
                first += edgec_lane0(word);
                second += edgec_lane1(word);
                from += step;
            }
            *y++ = requantized(first, constants);
            *y++ = requantized(second, constants);
            x += 4;
        }
        if (left != 0) {
            int32_t sum = constants[BIAS];
            const int8_t *from = x;
            EDGEC_UNROLL_TWICE
            for (int32_t t = 0; t < terms; t++) {
                sum += load16(from);
                from += step;
            }
            *y++ = requantized(sum, constants);
            x += 2;
        }
        x += step * (terms - 1);
    }
}
