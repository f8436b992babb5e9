/* SPDX-License-Identifier: Apache-2.0 */
/* The block kernels of linear_s8_dsp.h in C, for cores without DSP instructions. */
#include "edgec_dsp.h"
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
void edgec_linear_pair_product(const edgec_linear_columns *c, const uint32_t *panel, int32_t stride, const uint32_t *w,
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
                edgec_linear_pair_product(c, panel + block * 2 * rows * c->groups + row, rows, w, record,
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
#endif
