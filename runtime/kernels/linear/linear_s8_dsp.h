/* SPDX-License-Identifier: Apache-2.0 */
/* What the dense layers of this folder share: one loop over panels of rows, and its block kernels (assembly on cores
 * with DSP instructions, C elsewhere). */
#ifndef EDGEC_LINEAR_S8_DSP_H
#define EDGEC_LINEAR_S8_DSP_H

#include <stdint.h>

#include "edgec_compiler.h"

#define EDGEC_LINEAR_SHIFTS 1 /* bits of `mode`: a fifth word in every record, */
#define EDGEC_LINEAR_TABLE 2  /* results looked up, */
#define EDGEC_LINEAR_ADD 4    /* or a residual added to them */

/* For what runs once a panel: unrolled or inlined into one another, it would only cost flash and stack. */
#if defined(__clang__)
#define EDGEC_SMALL __attribute__((noinline, minsize))
#else
#define EDGEC_SMALL __attribute__((noinline, cold))
#endif

#define EDGEC_LINEAR_ADD_SHIFT 18 /* binary point of the multipliers of a sum */

/* Columns of a layer and what becomes of their sums. The assembly knows these offsets. */
typedef struct {
    const uint32_t *w;          /*  0: column pairs, uint32 [pairs][groups][2] */
    const int32_t *records;     /*  4: of the first pair */
    const int32_t *records_end; /*  8: behind the last pair's */
    int32_t record_bytes;       /* 12: 16, or 20 with shifts */
    int32_t groups;             /* 16: ceil(k/4) >= 1 */
    int32_t y_stride;           /* 20: bytes from row to row of y and of the residual */
    int32_t mode;               /* 24 */
    int32_t zero_point;         /* 28 */
    const int8_t *table;        /* 32: the entry of 0 */
    intptr_t residual;          /* 36: bytes from an element of y to the one that is added to it */
    int32_t result_mult;        /* 40: y = sat8((result*result_mult + residual*residual_mult + offset) >> 18) */
    int32_t residual_mult;      /* 44 */
    int32_t offset;             /* 48 */
} edgec_linear_columns;

/* The columns of a layer whose results go nowhere else; arguments as in edgec_kernels.h. */
static inline edgec_linear_columns edgec_linear_all_columns(const uint32_t *w, const int32_t *requantize, int32_t k,
                                                            int32_t n, int32_t zero_point)
{
    edgec_linear_columns c;
    c.w = w;
    c.records = requantize + 1;
    c.record_bytes = 4 * requantize[0];
    c.groups = (k + 3) >> 2;
    c.y_stride = n;
    c.mode = requantize[0] > 4 ? EDGEC_LINEAR_SHIFTS : 0;
    c.zero_point = zero_point;
    c.residual = 0;
    return c;
}

/* m rows of x times `columns`, all fields of which but records_end are set; it leaves that one changed. */
void edgec_linear_s8_dsp_layer(edgec_linear_columns *columns, const int8_t *x, int32_t k, int8_t *y, int32_t m,
                               int32_t panel_rows, uint32_t *scratch);

/* A row alone, packed; `columns` as above, and of no use afterwards. */
void edgec_linear_s8_dsp_row(edgec_linear_columns *columns, const uint32_t *panel, int8_t *y);

/* Widens a row of x to uint32 [ceil(k/4)][2]; zeros fill the last group. */
void edgec_linear_s8_dsp_pack1(const int8_t *x, int32_t k, uint32_t *panel);

/* Widens four rows of x, k bytes apart, `groups` words of each, to 16-bit lanes: uint32 [groups][2][4]. */
void edgec_linear_s8_dsp_pack4(const int8_t *x, int32_t k, int32_t groups, uint32_t *panel);

/* panel   uint32 [blocks][groups][2][rows]: group g holds x[4g], x[4g+2] (first word of a row), x[4g+1], x[4g+3]
 * y       first output; the blocks are multiplied by a column pair one after the other, before the next pair */
void edgec_linear_s8_dsp_rows4(const uint32_t *panel, int8_t *y, const edgec_linear_columns *columns, int32_t blocks);
void edgec_linear_s8_dsp_rows2(const uint32_t *panel, int8_t *y, const edgec_linear_columns *columns);
/* One row, two pairs (four outputs) at a time; the second pair lies second_pair bytes after the first. */
void edgec_linear_s8_dsp_row1(const uint32_t *panel, int8_t *y, const edgec_linear_columns *columns,
                              int32_t second_pair);

/* The block kernels in C: two outputs of one row, whose panel words lie `stride` apart, and one column pair. */
void edgec_linear_pair_product(const edgec_linear_columns *c, const uint32_t *panel, int32_t stride, const uint32_t *w,
                               const int32_t *record, int8_t *y);

/* One to three bytes that are left of a row, the others 0; byte by byte, for x may end where the memory ends. */
static inline uint32_t edgec_linear_last_word(const int8_t *x, int32_t count)
{
    uint32_t word = (uint8_t)x[0];
    if (count > 1) {
        word |= (uint32_t)(uint8_t)x[1] << 8;
    }
    if (count > 2) {
        word |= (uint32_t)(uint8_t)x[2] << 16;
    }
    return word;
}

#endif
