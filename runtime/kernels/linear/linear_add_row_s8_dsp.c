/* SPDX-License-Identifier: Apache-2.0 */
/* linear_add_s8 of one row for cores with DSP instructions: less code and stack than any number of rows take. */
#include "linear_s8_dsp.h"

#include "edgec_kernels.h"

void edgec_linear_add_row_s8_dsp(const int8_t *x, const int8_t *residual, const uint32_t *w_packed,
                                 const int32_t *requantize, const int32_t *sum, int8_t *y, int32_t k, int32_t n,
                                 int32_t zero_point, uint32_t *scratch)
{
    edgec_linear_columns columns = edgec_linear_all_columns(w_packed, requantize, k, n, zero_point);
    columns.mode |= EDGEC_LINEAR_ADD;
    columns.residual = (intptr_t)residual - (intptr_t)y;
    columns.result_mult = sum[0];
    columns.residual_mult = sum[1];
    columns.offset = sum[2];
    edgec_linear_s8_dsp_pack1(x, k, scratch);
    edgec_linear_s8_dsp_row(&columns, scratch, y);
}
