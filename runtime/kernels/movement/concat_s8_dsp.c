/* SPDX-License-Identifier: Apache-2.0 */
/* concat_s8: two runs of bytes a row. */
#include "copy_run.h"
#include "edgec_kernels.h"

void edgec_concat_s8_dsp(const void *a, const void *b, int8_t *y, int32_t rows, int32_t a_bytes, int32_t b_bytes)
{
    const int8_t *from_a = a, *from_b = b;

    for (; rows > 0; rows--) {
        y = edgec_copy_run(y, from_a, a_bytes);
        y = edgec_copy_run(y, from_b, b_bytes);
        from_a += a_bytes;
        from_b += b_bytes;
    }
}
