/* SPDX-License-Identifier: Apache-2.0 */
/* concat_s8: two runs of bytes a row. */
#include "copy_run.h"
#include "edgec_kernels.h"

void edgec_concat_s8_dsp(const int8_t *a, const int8_t *b, int8_t *y, int32_t rows, int32_t a_bytes, int32_t b_bytes)
{
    for (; rows > 0; rows--) {
        y = edgec_copy_run(y, a, a_bytes);
        y = edgec_copy_run(y, b, b_bytes);
        a += a_bytes;
        b += b_bytes;
    }
}
