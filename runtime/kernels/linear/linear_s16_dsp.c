/* SPDX-License-Identifier: Apache-2.0 */
/* linear_s16 for cores with DSP instructions: a row is copied to words, then multiplied by pairs of columns. */
#include "edgec_compiler.h"
#include "edgec_dsp.h"
#include "edgec_kernels.h"
#include "linear_s16_dsp.h"

/* x has any alignment and ends where its memory may end. */
static void copy_row(const int8_t *x, int32_t k, uint32_t *panel, const uint32_t *end)
{
    EDGEC_KEEP_LOOP
    for (; k >= 8; k -= 8) {
        panel[0] = edgec_load_word(x);
        panel[1] = edgec_load_word(x + 4);
        panel[2] = edgec_load_word(x + 8);
        panel[3] = edgec_load_word(x + 12);
        panel += 4;
        x += 16;
    }
    EDGEC_KEEP_LOOP
    for (; k >= 2; k -= 2) {
        *panel++ = edgec_load_word(x);
        x += 4;
    }
    if (k != 0) {
        *panel++ = (uint32_t)(uint8_t)x[0] | (uint32_t)(uint8_t)x[1] << 8;
    }
    EDGEC_KEEP_LOOP
    while (panel != end) {
        *panel++ = 0;
    }
}

void edgec_linear_s16_dsp(const void *input, const uint32_t *w_packed, const int32_t *records, void *output, int32_t m,
                          int32_t k, int32_t n, int32_t y_bytes, uint32_t *scratch)
{
    const int8_t *x = input;
    int8_t *y = output;
    const int32_t groups = (k + 7) >> 3;
    const int32_t pairs = n >> 1;
    edgec_linear16_columns columns;
    columns.groups = groups;
    columns.y_bytes = y_bytes;
    EDGEC_KEEP_LOOP
    for (; m > 0; m--) {
        copy_row(x, k, scratch, scratch + 4 * groups);
        columns.w = w_packed;
        columns.records = records;
        columns.records_end = records + EDGEC_LINEAR16_RECORD * pairs;
        if (pairs != 0) {
            edgec_linear_s16_dsp_pairs(scratch, y, &columns);
            y += 2 * y_bytes * pairs;
        }
        if ((n & 1) != 0) { /* its pair is complete, only y is not */
            int8_t last[4];
            columns.w += 8 * groups * pairs;
            columns.records = columns.records_end;
            columns.records_end += EDGEC_LINEAR16_RECORD;
            edgec_linear_s16_dsp_pairs(scratch, last, &columns);
            EDGEC_KEEP_LOOP
            for (int32_t i = 0; i < y_bytes; i++) {
                *y++ = last[i];
            }
        }
        x += 2 * k;
    }
}
