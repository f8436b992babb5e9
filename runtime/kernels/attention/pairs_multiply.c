/* SPDX-License-Identifier: Apache-2.0 */
/* One panel times all n columns: whole pairs go straight to y, the last column of an odd n through a small buffer. */
#include "edgec_compiler.h"
#include "pairs_multiply.h"

static void multiply(const uint32_t *panel, const uint32_t *b, int32_t near, const edgec_pairs_block *block)
{
    if (near) {
        edgec_pairs_near_rows4(panel, b, block);
    } else {
        edgec_pairs_far_rows4(panel, b, block);
    }
}

void edgec_pairs_multiply(const uint32_t *panel, const uint32_t *b, int32_t near, edgec_pairs_block *block, int8_t *y,
                          int32_t y_stride, int32_t rows, int32_t n)
{
    const int32_t pairs = n / 2;
    EDGEC_KEEP_LOOP
    for (int32_t i = 0; i < EDGEC_PANEL_ROWS - 1; i++) {
        block->row_step[i] = i + 1 < rows ? y_stride : 0; /* rows of the panel that do not count repeat the last one */
    }
    if (pairs > 0) {
        block->y = y;
        block->pairs = pairs;
        multiply(panel, b, near, block);
    }
    if ((n & 1) != 0) {
        int8_t last[2 * EDGEC_PANEL_ROWS];
        block->y = last;
        block->pairs = 1;
        EDGEC_KEEP_LOOP
        for (int32_t i = 0; i < EDGEC_PANEL_ROWS - 1; i++) {
            block->row_step[i] = 2;
        }
        multiply(panel, b + pairs * (near ? 2 * block->groups + block->stride / 4 : 2), near, block);
        EDGEC_KEEP_LOOP
        for (int32_t row = 0; row < rows; row++) {
            y[row * y_stride + n - 1] = last[2 * row];
        }
    }
}
