/* SPDX-License-Identifier: Apache-2.0 */
/* matmul_s8 for cores with DSP instructions: b comes packed, a is widened four rows at a time. */
#include "edgec_compiler.h"
#include "edgec_kernels.h"
#include "pairs_multiply.h"

void edgec_matmul_s8_dsp(const int8_t *a, const void *b_packed, const int32_t *requantize, int8_t *y, int32_t batches,
                         int32_t m, int32_t k, int32_t n, int32_t transposed, uint32_t *scratch)
{
    const uint32_t *b = b_packed;
    const int32_t pairs = (n + 1) / 2;
    edgec_pairs_block block;
    block.groups = (k + 3) / 4;
    block.stride = transposed ? 0 : 8 * pairs;
    block.double_mult = requantize[1];
    block.zero_point = requantize[2];
    EDGEC_KEEP_LOOP
    for (int32_t batch = 0; batch < batches; batch++) {
        EDGEC_KEEP_LOOP
        for (int32_t left = m; left > 0; left -= EDGEC_PANEL_ROWS) {
            const int32_t rows = left < EDGEC_PANEL_ROWS ? left : EDGEC_PANEL_ROWS;
            EDGEC_KEEP_LOOP
            for (int32_t row = 0; row < EDGEC_PANEL_ROWS; row++) {
                const int32_t from = row < rows ? row : rows - 1;
                block.start[row] = -128 * edgec_pairs_panel_row(a + from * k, k, requantize[0], scratch + row);
            }
            edgec_pairs_multiply(scratch, b, transposed, &block, y, n, rows, n);
            a += rows * k;
            y += rows * n;
        }
        b += 2 * pairs * block.groups;
    }
}
