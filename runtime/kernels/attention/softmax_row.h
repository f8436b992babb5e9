/* SPDX-License-Identifier: Apache-2.0 */
/* One row of softmax_s8: its largest element, the exponentials, their sum and its reciprocal. */
#ifndef EDGEC_SOFTMAX_ROW_H
#define EDGEC_SOFTMAX_ROW_H

#include "edgec_compiler.h"
#include "edgec_dsp.h"

/* Largest of n >= 1 elements. */
static inline int32_t edgec_largest(const int8_t *x, int32_t n)
{
    uint32_t four = 0x80808080u;
    const int8_t *const whole = x + (n & ~3);
    EDGEC_KEEP_LOOP
    while (x != whole) {
        four = edgec_larger_bytes(edgec_load_word(x), four);
        x += 4;
    }
    EDGEC_KEEP_LOOP
    for (int32_t i = 0; i < (n & 3); i++) {
        four = edgec_larger_bytes((uint32_t)(uint8_t)x[i] | 0x80808000u, four);
    }
    four = edgec_larger_bytes(four, four >> 16 | four << 16);
    four = edgec_larger_bytes(four, four >> 8 | four << 24);
    return (int32_t)((four & 0xFFu) ^ 0x80u) - 0x80;
}

/* `from` is where the exponential of an element x lies: table + 255 - largest, [x]; table[255 - d] belongs to d. */
static inline uint32_t edgec_sum_exponentials(const int8_t *x, int32_t n, const uint16_t *from)
{
    const int8_t *const whole = x + (n & ~3);
    uint32_t sum = 0;
    EDGEC_KEEP_LOOP
    while (x != whole) {
        sum += from[x[0]];
        sum += from[x[1]];
        sum += from[x[2]];
        sum += from[x[3]];
        x += 4;
    }
    EDGEC_KEEP_LOOP
    for (int32_t i = 0; i < (n & 3); i++) {
        sum += from[x[i]];
    }
    return sum;
}

/* floor(2^40 / sum) for sum in [65535, 2^31), but at most so much that 65535 times it rounds to 255 * 2^32.
 *
 * Above that limit sum <= 65663, so the row has one exponential of 65535 and the others are at most 128 in all: they
 * round to 0 with either factor. */
static inline int32_t edgec_softmax_factor(uint32_t sum)
{
    uint32_t quotient = 0xFFFFFFFFu / sum;
    uint32_t rest = 0u - quotient * sum; /* 2^32 - quotient * sum, in [1, sum] */
    if (sum < 1u << 24) {
        quotient = (quotient << 8) + (rest << 8) / sum;
    } else {
        EDGEC_KEEP_LOOP
        for (int32_t bit = 0; bit < 8; bit++) {
            quotient <<= 1;
            if (rest >= sum) { /* only before the first doubling can it be equal */
                quotient += 2;
                rest -= sum;
            }
            rest <<= 1;
            if (rest >= sum) {
                quotient += 1;
                rest -= sum;
            }
        }
    }
    return quotient > 16744703u ? 16744703 : (int32_t)quotient;
}

#endif
