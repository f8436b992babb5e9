/* SPDX-License-Identifier: Apache-2.0 */
/* embedding_s8: a row of the table for each index; one outside the table reads its nearest row. */
#include "copy_run.h"
#include "edgec_kernels.h"

void edgec_embedding_s8_dsp(const int32_t *index, const uint32_t *table, int8_t *y, int32_t count, int32_t rows,
                            int32_t width)
{
    for (; count > 0; count--) {
        int32_t row = *index++;
        if (row < 0) {
            row += rows;
        }
        row = row >= rows ? rows - 1 : row < 0 ? 0 : row;
        y = edgec_copy_run(y, (const int8_t *)table + row * width, width);
    }
}
