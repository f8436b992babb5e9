/* SPDX-License-Identifier: Apache-2.0 */
/* linear_s8 for cores with DSP instructions. */
#include "linear_s8_dsp.h"

#include "edgec_kernels.h"

void edgec_linear_s8_dsp(const int8_t *x, const uint32_t *w_packed, const int32_t *requantize, int8_t *y, int32_t m,
                         int32_t k, int32_t n, int32_t y_zero_point, int32_t panel_rows, uint32_t *scratch)
{
    edgec_linear_columns columns = edgec_linear_all_columns(w_packed, requantize, k, n, y_zero_point);
    edgec_linear_s8_dsp_layer(&columns, x, k, y, m, panel_rows, scratch);
}
