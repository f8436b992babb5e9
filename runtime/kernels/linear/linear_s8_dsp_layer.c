/* SPDX-License-Identifier: Apache-2.0 */
/* A dense layer: panels of rows, packed to 16 bits, times all columns, two at a time. */
#include "edgec_dsp.h"
#include "edgec_kernels.h"
#include "linear_s8_dsp.h"

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

static uint32_t shift_right(uint32_t value, int32_t bits)
{
    return (value >> bits) | ((value & 0x80000000u) != 0 ? ~(0xFFFFFFFFu >> bits) : 0u);
}

/* `y`: where it goes, from which the residual's place follows. */
static int8_t finish(const edgec_linear_columns *c, int8_t result, const int8_t *y)
{
    if ((c->mode & EDGEC_LINEAR_TABLE) != 0) {
        return c->table[result];
    }
    if ((c->mode & EDGEC_LINEAR_ADD) != 0) {
        const int8_t residual = *(const int8_t *)((intptr_t)y + c->residual);
        const uint32_t sum = (uint32_t)result * (uint32_t)c->result_mult +
                             (uint32_t)residual * (uint32_t)c->residual_mult + (uint32_t)c->offset;
        return edgec_ssat8((int32_t)shift_right(sum, EDGEC_LINEAR_ADD_SHIFT));
    }
    return result;
}

/* Two outputs of one row: that row's panel words, `stride` apart, times one column pair. */
static void pair_product(const edgec_linear_columns *c, const uint32_t *panel, int32_t stride, const uint32_t *w,
                         const int32_t *record, int8_t *y)
{
    uint32_t both = (uint32_t)record[3]; /* becomes 256*P1 + P0 + bias */
    uint32_t even = both;                /* becomes P0 + bias */
    for (int32_t i = 0; i < 2 * c->groups; i++) {
        const uint32_t a = panel[i * stride];
        both = edgec_smlad(a, w[i], both);
        even = edgec_smlad(a, edgec_sxtb16(w[i]), even);
    }
    /* 256*P1, exact since |P1| < 2^23 is proven when the weights are packed */
    const uint32_t odd = shift_right(both - even, 8) + (uint32_t)record[0];
    const uint32_t shifts = (c->mode & EDGEC_LINEAR_SHIFTS) != 0 ? (uint32_t)record[4] : 0u;
    y[0] = finish(c, requantize_narrow(even, shifts & 0xFFu, record[1], c->zero_point), y);
    y[1] = finish(c, requantize_narrow(odd, shifts >> 8, record[2], c->zero_point), y + 1);
}

static void block_product(const edgec_linear_columns *c, const uint32_t *panel, int32_t rows, int32_t blocks, int8_t *y)
{
    const uint32_t *w = c->w;
    for (const int32_t *record = c->records; record != c->records_end; record += c->record_bytes / 4) {
        for (int32_t block = 0; block < blocks; block++) {
            for (int32_t row = 0; row < rows; row++) {
                pair_product(c, panel + block * 2 * rows * c->groups + row, rows, w, record,
                             y + (block * rows + row) * c->y_stride);
            }
        }
        w += 2 * c->groups;
        y += 2;
    }
}

void edgec_linear_s8_dsp_rows4(const uint32_t *panel, int8_t *y, const edgec_linear_columns *columns, int32_t blocks)
{
    block_product(columns, panel, 4, blocks, y);
}

void edgec_linear_s8_dsp_rows2(const uint32_t *panel, int8_t *y, const edgec_linear_columns *columns)
{
    block_product(columns, panel, 2, 1, y);
}

void edgec_linear_s8_dsp_row1(const uint32_t *panel, int8_t *y, const edgec_linear_columns *columns,
                              int32_t second_pair)
{
    const int32_t words = columns->record_bytes / 4;
    const uint32_t *w = columns->w;
    for (const int32_t *record = columns->records; record != columns->records_end; record += 2 * words) {
        pair_product(columns, panel, 1, w, record, y);
        w += second_pair / 4;
        pair_product(columns, panel, 1, w, record + words, y + 2);
        w += second_pair / 4;
        y += 4;
    }
}
#endif

/* `rows` packed rows (1, 2 or a multiple of 4) times the columns of `c`; a row alone takes pairs two by two. */
static inline void multiply_columns(const edgec_linear_columns *c, const uint32_t *panel, int32_t rows, int8_t *y,
                                    int32_t second_pair)
{
    if (rows >= 4) {
        edgec_linear_s8_dsp_rows4(panel, y, c, rows >> 2);
    } else if (rows == 2) {
        edgec_linear_s8_dsp_rows2(panel, y, c);
    } else {
        edgec_linear_s8_dsp_row1(panel, y, c, second_pair);
    }
}

/* A kernel stores whole pairs, for a row alone two of them: columns that are left when all those are done. */
static inline int32_t columns_left(int32_t rows, int32_t n)
{
    return n & (rows == 1 ? 3 : 1);
}

EDGEC_SMALL
static void multiply_pairs(edgec_linear_columns *c, const uint32_t *panel, int32_t rows, int8_t *y)
{
    const int32_t pairs = (c->y_stride - columns_left(rows, c->y_stride)) >> 1;
    c->records_end = c->records + pairs * (c->record_bytes >> 2);
    if (pairs > 0) {
        multiply_columns(c, panel, rows, y, 8 * c->groups);
    }
}

EDGEC_SMALL
static void copy_columns(int8_t *to, int32_t to_stride, const int8_t *from, int32_t from_stride, int32_t rows,
                         int32_t columns)
{
    for (; rows > 0; rows--) {
        for (int32_t i = 0; i < columns; i++) {
            to[i] = from[i];
        }
        to += to_stride;
        from += from_stride;
    }
}

/* The columns that are left go through a small buffer, and the residual's with them: panel, weights and records of
 * those pairs are complete, only y is not. Where a row has one pair left, it is taken twice (second_pair 0): its record
 * is followed by another one. */
EDGEC_SMALL
static void multiply_last(edgec_linear_columns *c, const uint32_t *panel, int32_t rows, int8_t *y)
{
    int8_t last[2 * 4 * 2]; /* results, then the residual */
    const uint32_t *const w = c->w;
    const int32_t *const records = c->records;
    const intptr_t residual = c->residual;
    const int32_t n = c->y_stride;
    const int32_t count = columns_left(rows, n);
    const int32_t block = rows > 4 ? 4 : rows;
    const int32_t width = rows == 1 ? 4 : 2;
    c->w = w + (n - count) * c->groups;
    c->records = c->records_end;
    c->records_end += (width * c->record_bytes) >> 3;
    c->y_stride = width;
    c->residual = 8;
    y += n - count;
    for (; rows > 0; rows -= block) {
        if ((c->mode & EDGEC_LINEAR_ADD) != 0) {
            copy_columns(last + 8, width, (const int8_t *)((intptr_t)y + residual), n, block, count);
        }
        multiply_columns(c, panel, block, last, count > 2 ? 8 * c->groups : 0);
        copy_columns(y, n, last, width, block, count);
        panel += 2 * block * c->groups;
        y += block * n;
    }
    c->w = w;
    c->records = records;
    c->y_stride = n;
    c->residual = residual;
}

/* The packed rows times all columns; inlined, so that its two calls do not lie on the stack one below the other. */
__attribute__((always_inline))
static inline void multiply(edgec_linear_columns *c, const uint32_t *panel, int32_t rows, int8_t *y)
{
    multiply_pairs(c, panel, rows, y);
    if (columns_left(rows, c->y_stride) != 0) {
        multiply_last(c, panel, rows, y);
    }
}

EDGEC_SMALL
void edgec_linear_s8_dsp_layer(edgec_linear_columns *columns, const int8_t *x, int32_t k, int8_t *y, int32_t m,
                               int32_t panel_rows, uint32_t *scratch)
{
    const int packed = panel_rows == 0;
    const uint32_t *panel = packed ? (const uint32_t *)(const void *)x : scratch;
    while (m > 0) {
        const int32_t most = packed || m < panel_rows ? m : panel_rows;
        const int32_t rows = most >= 4 ? most & ~3 : most >= 2 ? 2 : 1;
        if (!packed) {
            edgec_pack_panel_s8(x, rows, k, scratch);
            x += rows * k;
        }
        multiply(columns, panel, rows, y);
        if (packed) {
            panel += 2 * rows * columns->groups;
        }
        y += rows * columns->y_stride;
        m -= rows;
    }
}

void edgec_linear_s8_dsp_panel(const uint32_t *panel, const uint32_t *w_packed, const int32_t *requantize, int8_t *y,
                               int32_t rows, int32_t k, int32_t n, int32_t y_zero_point)
{
    edgec_linear_columns columns = edgec_linear_all_columns(w_packed, requantize, k, n, y_zero_point);
    multiply(&columns, panel, rows, y);
}
