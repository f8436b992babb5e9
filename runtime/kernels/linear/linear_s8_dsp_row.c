/* SPDX-License-Identifier: Apache-2.0 */
/* One row of a dense layer: two column pairs at a time. */
#include "edgec_dsp.h"
#include "linear_s8_dsp.h"

#define EDGEC_QUAD 4 /* columns that a row alone is multiplied by at a time */

void edgec_linear_s8_dsp_pack1(const int8_t *x, int32_t k, uint32_t *panel)
{
    EDGEC_KEEP_LOOP
    while (k >= 16) {
        const uint32_t a = edgec_load_word(x);
        const uint32_t b = edgec_load_word(x + 4);
        const uint32_t c = edgec_load_word(x + 8);
        const uint32_t d = edgec_load_word(x + 12);
        panel[0] = edgec_sxtb16(a);
        panel[1] = edgec_sxtb16_ror8(a);
        panel[2] = edgec_sxtb16(b);
        panel[3] = edgec_sxtb16_ror8(b);
        panel[4] = edgec_sxtb16(c);
        panel[5] = edgec_sxtb16_ror8(c);
        panel[6] = edgec_sxtb16(d);
        panel[7] = edgec_sxtb16_ror8(d);
        panel += 8;
        x += 16;
        k -= 16;
    }
    EDGEC_KEEP_LOOP
    while (k > 0) {
        const uint32_t word = k >= 4 ? edgec_load_word(x) : edgec_linear_last_word(x, k);
        panel[0] = edgec_sxtb16(word);
        panel[1] = edgec_sxtb16_ror8(word);
        panel += 2;
        x += 4;
        k -= 4;
    }
}

/* Columns that are left go through a small buffer: panel, weights and records of their pairs are complete, only y is
 * not. Where one pair is left, it is taken twice (second_pair 0): its record is followed by another one. */
void edgec_linear_s8_dsp_row(edgec_linear_columns *columns, const uint32_t *panel, int8_t *y)
{
    const int32_t whole = columns->y_stride & -EDGEC_QUAD;
    const int32_t left = columns->y_stride - whole;
    const int32_t record_words = columns->record_bytes >> 2;
    columns->records_end = columns->records + (whole >> 1) * record_words;
    if (whole != 0) {
        edgec_linear_s8_dsp_row1(panel, y, columns, 8 * columns->groups);
    }
    if (left != 0) {
        int8_t last[2 * EDGEC_QUAD]; /* results, then the residual */
        y += whole;
        columns->w += whole * columns->groups;
        columns->records = columns->records_end;
        columns->records_end += 2 * record_words;
        if ((columns->mode & EDGEC_LINEAR_ADD) != 0) {
            EDGEC_KEEP_LOOP
            for (int32_t i = 0; i < left; i++) {
                last[EDGEC_QUAD + i] = *(const int8_t *)((intptr_t)(y + i) + columns->residual);
            }
            columns->residual = EDGEC_QUAD;
        }
        edgec_linear_s8_dsp_row1(panel, last, columns, left > 2 ? 8 * columns->groups : 0);
        EDGEC_KEEP_LOOP
        for (int32_t i = 0; i < left; i++) {
            y[i] = last[i];
        }
    }
}

#if !EDGEC_HAS_DSP
void edgec_linear_s8_dsp_row1(const uint32_t *panel, int8_t *y, const edgec_linear_columns *columns,
                              int32_t second_pair)
{
    const int32_t words = columns->record_bytes / 4;
    const uint32_t *w = columns->w;
    for (const int32_t *record = columns->records; record != columns->records_end; record += 2 * words) {
        edgec_linear_pair_product(columns, panel, 1, w, record, y);
        w += second_pair / 4;
        edgec_linear_pair_product(columns, panel, 1, w, record + words, y + 2);
        w += second_pair / 4;
        y += 4;
    }
}
#endif
