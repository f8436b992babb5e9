/* SPDX-License-Identifier: Apache-2.0 */
/* take_s8: a run of bytes for each index, or the fill value. */
#include "copy_run.h"
#include "edgec_compiler.h"
#include "edgec_kernels.h"

EDGEC_MINSIZE /* the work is in edgec_copy_run */
void edgec_take_s8_dsp(const int8_t *x, const int32_t *index, int8_t *y, int32_t outer, int32_t axis, int32_t inner,
                       int32_t count, int32_t fill)
{
    for (; outer > 0; outer--) {
        for (const int32_t *at = index; at != index + count; at++) {
            const int32_t i = *at;
            if (inner == 1) {
                *y++ = i >= 0 ? x[i] : (int8_t)fill;
            } else if (i >= 0) {
                y = edgec_copy_run(y, x + i * inner, inner);
            } else {
                EDGEC_KEEP_LOOP
                for (int8_t *const end = y + inner; y != end; y++) {
                    *y = (int8_t)fill;
                    __asm__ volatile("" ::: "memory"); /* else it becomes a call of memset */
                }
            }
        }
        x += axis * inner;
    }
}
