/* SPDX-License-Identifier: Apache-2.0 */
/* A dense layer: panels of rows, packed to 16 bits, times all columns, two at a time. */
#include "edgec_kernels.h"
#include "linear_s8_dsp.h"

/* `rows` packed rows, 2 or a multiple of 4, times the columns of `c`. */
static inline void multiply_columns(const edgec_linear_columns *c, const uint32_t *panel, int32_t rows, int8_t *y)
{
    if (rows >= 4) {
        edgec_linear_s8_dsp_rows4(panel, y, c, rows >> 2);
    } else {
        edgec_linear_s8_dsp_rows2(panel, y, c);
    }
}

EDGEC_SMALL
static void multiply_pairs(edgec_linear_columns *c, const uint32_t *panel, int32_t rows, int8_t *y)
{
    c->records_end = c->records + (c->y_stride >> 1) * (c->record_bytes >> 2);
    if (c->y_stride > 1) {
        multiply_columns(c, panel, rows, y);
    }
}

EDGEC_SMALL
static void copy_column(int8_t *to, int32_t to_stride, const int8_t *from, int32_t from_stride, int32_t rows)
{
    for (; rows > 0; rows--) {
        *to = *from;
        to += to_stride;
        from += from_stride;
    }
}

/* A column that is left goes through a small buffer, and the residual's with it: panel, weights and record of its pair
 * are complete, only y is not. */
EDGEC_SMALL
static void multiply_last(edgec_linear_columns *c, const uint32_t *panel, int32_t rows, int8_t *y)
{
    int8_t last[2 * 4 * 2]; /* results, then the residual */
    const uint32_t *const w = c->w;
    const int32_t *const records = c->records;
    const intptr_t residual = c->residual;
    const int32_t n = c->y_stride;
    const int32_t block = rows > 4 ? 4 : rows;
    c->w = w + (n - 1) * c->groups;
    c->records = c->records_end;
    c->records_end += c->record_bytes >> 2;
    c->y_stride = 2;
    c->residual = 8;
    y += n - 1;
    for (; rows > 0; rows -= block) {
        if ((c->mode & EDGEC_LINEAR_ADD) != 0) {
            copy_column(last + 8, 2, (const int8_t *)((intptr_t)y + residual), n, block);
        }
        multiply_columns(c, panel, block, last);
        copy_column(y, n, last, 2, block);
        panel += 2 * block * c->groups;
        y += block * n;
    }
    c->w = w;
    c->records = records;
    c->y_stride = n;
    c->residual = residual;
}

/* The packed rows times all columns; a row alone is the last. Inlined, so that its calls do not lie on the stack one
 * below the other. */
__attribute__((always_inline))
static inline void multiply(edgec_linear_columns *c, const uint32_t *panel, int32_t rows, int8_t *y)
{
    if (rows == 1) {
        edgec_linear_s8_dsp_row(c, panel, y);
        return;
    }
    multiply_pairs(c, panel, rows, y);
    if ((c->y_stride & 1) != 0) {
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
