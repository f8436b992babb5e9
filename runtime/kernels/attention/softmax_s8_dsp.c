/* SPDX-License-Identifier: Apache-2.0 */
/* softmax_s8 for cores with DSP instructions. */
#include "edgec_compiler.h"
#include "edgec_kernels.h"
#include "softmax_row.h"

void edgec_softmax_s8_dsp(const int8_t *x, const uint16_t *table, int8_t *y, int32_t rows, int32_t n)
{
    EDGEC_KEEP_LOOP
    while (rows > 0) {
        const uint16_t *const from = table + 255 - edgec_largest(x, n);
        const int32_t factor = edgec_softmax_factor(edgec_sum_exponentials(x, n, from));
        const int8_t *const whole = x + (n & ~3);
        EDGEC_KEEP_LOOP
        while (x != whole) {
            const int32_t first = edgec_smmlar(from[x[0]], factor, -128);
            const int32_t second = edgec_smmlar(from[x[1]], factor, -128);
            const int32_t third = edgec_smmlar(from[x[2]], factor, -128);
            const int32_t fourth = edgec_smmlar(from[x[3]], factor, -128);
            y[0] = (int8_t)first;
            y[1] = (int8_t)second;
            y[2] = (int8_t)third;
            y[3] = (int8_t)fourth;
            x += 4;
            y += 4;
        }
        EDGEC_KEEP_LOOP
        for (int32_t i = 0; i < (n & 3); i++) {
            *y++ = (int8_t)edgec_smmlar(from[*x++], factor, -128);
        }
        rows--;
    }
}
