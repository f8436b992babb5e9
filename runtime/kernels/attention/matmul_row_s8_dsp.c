/* SPDX-License-Identifier: Apache-2.0 */
/* matmul_s8 of one row in each batch for cores with DSP instructions: b as it lies. */
#include "edgec_compiler.h"
#include "edgec_kernels.h"
#include "row_products.h"

EDGEC_MINSIZE /* the work is in the products */
void edgec_matmul_row_s8_dsp(const int8_t *a, const int8_t *b, const int32_t *requantize, int8_t *y, int32_t batches,
                             int32_t k, int32_t n, int32_t transposed, uint32_t *scratch)
{
    edgec_row_product p = {k, n, transposed ? k : n, 0, requantize[2], requantize[3]};
    for (; batches > 0; batches--) {
        int32_t sum = 0;
        if (transposed) {
            sum = edgec_row_lanes(a, k, requantize[0], scratch);
        } else {
            int16_t *const lanes = (int16_t *)scratch;
            EDGEC_KEEP_LOOP
            for (int32_t i = 0; i < k; i++) {
                const int32_t lane = a[i] - requantize[0];
                lanes[i] = (int16_t)lane;
                sum += lane;
            }
        }
        p.start = -requantize[1] * sum;
        if (transposed) {
            edgec_row_times_rows_s8(scratch, b, &p, y);
        } else {
            edgec_row_times_columns_s8((const int16_t *)scratch, b, &p, y);
        }
        a += k;
        b += k * n;
        y += n;
    }
}
