/* SPDX-License-Identifier: Apache-2.0 */
/* linear_s8 with one output for cores with DSP instructions: a dot product, x straight from where it lies. */
#include "edgec_compiler.h"
#include "edgec_dsp.h"
#include "edgec_kernels.h"

#define EDGEC_NOINLINE __attribute__((noinline))

/* Four products: bytes 0 and 2, then 1 and 3. */
static inline uint32_t add_group(uint32_t word, const uint32_t *w, uint32_t acc)
{
    acc = edgec_smlad(edgec_sxtb16(word), w[0], acc);
    return edgec_smlad(edgec_sxtb16_ror8(word), w[1], acc);
}

/* sum + x . w over k products. Once a row: inlined, it would only cost registers. */
EDGEC_NOINLINE
static uint32_t dot(const int8_t *x, const uint32_t *w, int32_t k, uint32_t sum)
{
    const int8_t *const sixteens = x + (k & ~15);
    const int8_t *const fours = x + (k & ~3);
    EDGEC_KEEP_LOOP
    while (x != sixteens) {
        sum = add_group(edgec_load_word(x), w, sum);
        sum = add_group(edgec_load_word(x + 4), w + 2, sum);
        sum = add_group(edgec_load_word(x + 8), w + 4, sum);
        sum = add_group(edgec_load_word(x + 12), w + 6, sum);
        x += 16;
        w += 8;
    }
    EDGEC_KEEP_LOOP
    while (x != fours) {
        sum = add_group(edgec_load_word(x), w, sum);
        x += 4;
        w += 2;
    }
    if ((k & 3) != 0) {
        uint32_t word = (uint8_t)x[0]; /* byte by byte: x may end where the memory ends */
        if ((k & 2) != 0) {
            word |= (uint32_t)(uint8_t)x[1] << 8;
        }
        if ((k & 3) == 3) {
            word |= (uint32_t)(uint8_t)x[2] << 16;
        }
        sum = add_group(word, w, sum);
    }
    return sum;
}

void edgec_linear_s8_dot_dsp(const int8_t *x, const uint32_t *w_packed, const int32_t *requantize, int8_t *y,
                             int32_t m, int32_t k, int32_t y_zero_point)
{
    for (int32_t row = 0; row < m; row++) {
        int32_t acc = (int32_t)dot(x + row * k, w_packed, k, (uint32_t)requantize[0]);
        EDGEC_KEEP_LOOP
        for (int32_t left = requantize[2]; left != 0; left--) {
            acc = edgec_qadd(acc, acc);
        }
        y[row] = edgec_ssat8(edgec_smmlar(acc, requantize[1], y_zero_point));
    }
}
