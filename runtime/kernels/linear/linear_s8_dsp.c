/* SPDX-License-Identifier: Apache-2.0 */
/* linear_s8 for cores with DSP instructions: pack a block of rows, then multiply it by all columns, two at a time. */
#include "linear_s8_dsp.h"

#include "edgec_dsp.h"
#include "edgec_kernels.h"

/* Once a block: inlined into one another, these would only cost flash and stack. */
#define EDGEC_NOINLINE __attribute__((noinline))

/* Widens one row of x to 16-bit lanes, `stride` words between its words. The last group is filled up with zeros. */
EDGEC_NOINLINE
static void pack_row(const int8_t *x, int32_t k, uint32_t *panel, int32_t stride)
{
    const int8_t *const whole = x + (k & ~3);
    while (x != whole) {
        const uint32_t word = edgec_load_word(x);
        panel[0] = edgec_sxtb16(word);
        panel[stride] = edgec_sxtb16_ror8(word);
        panel += 2 * stride;
        x += 4;
    }
    if ((k & 3) != 0) {
        uint32_t word = 0;
        for (int32_t i = 0; i < (k & 3); i++) { /* byte by byte: x may end where the memory ends */
            word |= (uint32_t)(uint8_t)x[i] << (8 * i);
        }
        panel[0] = edgec_sxtb16(word);
        panel[stride] = edgec_sxtb16_ror8(word);
    }
}

#if !EDGEC_HAS_DSP
/* acc is sum(x*w) + bias; double_mult is 2*M, so that the high word of the product is (acc*M + 2^30) >> 31. */
static int8_t requantize_narrow(uint32_t acc, uint32_t shift, int32_t double_mult, int32_t zero_point)
{
    int32_t value = (int32_t)acc;
    for (uint32_t i = 0; i < shift; i++) {
        value = edgec_qadd(value, value); /* doubling with saturation, shift times: clip(acc << shift) */
    }
    return edgec_ssat8(edgec_smmlar(value, double_mult, zero_point));
}

/* Two outputs of one row: `words` panel words of that row, `stride` apart, times one column pair. */
static void pair_product(const uint32_t *panel, int32_t stride, const uint32_t *w, int32_t words,
                         const int32_t *requantize, int32_t zero_point, int8_t *y)
{
    uint32_t both = (uint32_t)requantize[0]; /* becomes 256*P1 + P0 + bias */
    uint32_t even = both;                    /* becomes P0 + bias */
    for (int32_t i = 0; i < words; i++) {
        const uint32_t a = panel[i * stride];
        both = edgec_smlad(a, w[i], both);
        even = edgec_smlad(a, edgec_sxtb16(w[i]), even);
    }
    const uint32_t scaled = both - even; /* 256*P1, exact since |P1| < 2^23 is proven when the weights are packed */
    const uint32_t odd = (scaled >> 8) | ((scaled & 0x80000000u) != 0 ? 0xFF000000u : 0u);
    const uint32_t shifts = (uint32_t)requantize[4];
    y[0] = requantize_narrow(even, shifts & 0xFFu, requantize[2], zero_point);
    y[1] = requantize_narrow(odd + (uint32_t)requantize[1], shifts >> 8, requantize[3], zero_point);
}

static void block_product(int32_t rows, const uint32_t *panel, const uint32_t *w, const int32_t *requantize, int8_t *y,
                          int32_t y_stride, int32_t pairs, int32_t groups, int32_t zero_point)
{
    for (int32_t pair = 0; pair < pairs; pair++) {
        for (int32_t row = 0; row < rows; row++) {
            pair_product(panel + row, rows, w + pair * 2 * groups, 2 * groups,
                         requantize + pair * EDGEC_REQUANTIZE_WORDS, zero_point, y + row * y_stride + 2 * pair);
        }
    }
}

void edgec_linear_s8_dsp_rows4(const uint32_t *panel, const uint32_t *w, const int32_t *requantize, int8_t *y,
                               int32_t y_stride, int32_t pairs, int32_t groups, int32_t y_zero_point)
{
    block_product(4, panel, w, requantize, y, y_stride, pairs, groups, y_zero_point);
}

void edgec_linear_s8_dsp_rows2(const uint32_t *panel, const uint32_t *w, const int32_t *requantize, int8_t *y,
                               int32_t y_stride, int32_t pairs, int32_t groups, int32_t y_zero_point)
{
    block_product(2, panel, w, requantize, y, y_stride, pairs, groups, y_zero_point);
}

void edgec_linear_s8_dsp_row1(const uint32_t *panel, const uint32_t *w, const int32_t *requantize, int8_t *y,
                              int32_t second_pair, int32_t quads, int32_t groups, int32_t y_zero_point)
{
    for (int32_t quad = 0; quad < quads; quad++) {
        pair_product(panel, 1, w, 2 * groups, requantize, y_zero_point, y);
        pair_product(panel, 1, w + second_pair, 2 * groups, requantize + EDGEC_REQUANTIZE_WORDS, y_zero_point, y + 2);
        w += 2 * second_pair;
        requantize += 2 * EDGEC_REQUANTIZE_WORDS;
        y += 4;
    }
}
#endif

/* `rows` packed rows (4 or 2) times whole pairs of columns. */
static inline void multiply_pairs(int32_t rows, const uint32_t *panel, const uint32_t *w, const int32_t *requantize,
                                  int8_t *y, int32_t y_stride, int32_t pairs, int32_t groups, int32_t y_zero_point)
{
    if (rows == 4) {
        edgec_linear_s8_dsp_rows4(panel, w, requantize, y, y_stride, pairs, groups, y_zero_point);
    } else {
        edgec_linear_s8_dsp_rows2(panel, w, requantize, y, y_stride, pairs, groups, y_zero_point);
    }
}

/* The same times all n columns. A block kernel stores whole pairs, so the last column of an odd n goes through a
 * small buffer: panel, weights and record of that pair are complete, only y is not. */
EDGEC_NOINLINE
static void multiply_block(int32_t rows, const uint32_t *panel, const uint32_t *w, const int32_t *requantize,
                           int8_t *y, int32_t n, int32_t groups, int32_t y_zero_point)
{
    const int32_t pairs = n / 2;
    if (pairs > 0) {
        multiply_pairs(rows, panel, w, requantize, y, n, pairs, groups, y_zero_point);
    }
    if ((n & 1) != 0) {
        int8_t last[4 * 2];
        multiply_pairs(rows, panel, w + pairs * 2 * groups, requantize + pairs * EDGEC_REQUANTIZE_WORDS, last, 2, 1,
                       groups, y_zero_point);
        for (int32_t row = 0; row < rows; row++) {
            y[row * n + n - 1] = last[2 * row];
        }
    }
}

/* One packed row times all n columns, four at a time. Where only one pair is left it is taken twice (second_pair 0):
 * its record is followed by another one in any case. */
EDGEC_NOINLINE
static void multiply_row(const uint32_t *panel, const uint32_t *w, const int32_t *requantize, int8_t *y, int32_t n,
                         int32_t groups, int32_t y_zero_point)
{
    const int32_t quads = n / 4;
    const int32_t rest = n & 3;
    if (quads > 0) {
        edgec_linear_s8_dsp_row1(panel, w, requantize, y, 2 * groups, quads, groups, y_zero_point);
    }
    if (rest != 0) {
        int8_t last[4];
        edgec_linear_s8_dsp_row1(panel, w + quads * 4 * groups, requantize + quads * 2 * EDGEC_REQUANTIZE_WORDS, last,
                                 rest == 3 ? 2 * groups : 0, 1, groups, y_zero_point);
        y += 4 * quads;
        y[0] = last[0];
        if (rest > 1) {
            y[1] = last[1];
        }
        if (rest > 2) {
            y[2] = last[2];
        }
    }
}

void edgec_linear_s8_dsp(const int8_t *x, const uint32_t *w_packed, const int32_t *requantize, int8_t *y, int32_t m,
                         int32_t k, int32_t n, int32_t y_zero_point, uint32_t *scratch)
{
    const int32_t groups = (k + 3) / 4;
    while (m > 0) {
        const int32_t rows = m >= 4 ? 4 : m >= 2 ? 2 : 1;
        for (int32_t row = 0; row < rows; row++) {
            pack_row(x + row * k, k, scratch + row, rows);
        }
        if (rows == 1) {
            multiply_row(scratch, w_packed, requantize, y, n, groups, y_zero_point);
        } else {
            multiply_block(rows, scratch, w_packed, requantize, y, n, groups, y_zero_point);
        }
        x += rows * k;
        y += rows * n;
        m -= rows;
    }
}
