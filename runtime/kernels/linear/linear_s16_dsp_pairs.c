/* SPDX-License-Identifier: Apache-2.0 */
/* linear_s16_dsp_pairs.S in portable C. */
#include "edgec_dsp.h"
#include "linear_s16_dsp.h"

#if !EDGEC_HAS_DSP
/* The upper word of acc * mult + addend * 2^32, and its shift; what is below it changes no bit (linear16.py). */
static int32_t scaled(int64_t acc, const int32_t *constants)
{
    const uint32_t mult = (uint32_t)constants[0];
    const uint64_t low = (uint64_t)(uint32_t)acc * mult;
    const uint32_t high = (uint32_t)((uint64_t)acc >> 32) * mult + (uint32_t)(low >> 32);
    return (int32_t)(high + (uint32_t)constants[1]) >> constants[2];
}

static int8_t *store(int8_t *y, int32_t value, int32_t bytes)
{
    const int16_t wide = edgec_ssat16(value);
    if (bytes == 1) {
        *y = edgec_ssat8(value);
    } else {
        __builtin_memcpy(y, &wide, sizeof wide);
    }
    return y + bytes;
}

void edgec_linear_s16_dsp_pairs(const uint32_t *panel, int8_t *y, const edgec_linear16_columns *columns)
{
    const uint32_t *w = columns->w;
    for (const int32_t *r = columns->records; r != columns->records_end; r += EDGEC_LINEAR16_RECORD) {
        int64_t even, odd;
        __builtin_memcpy(&even, r, sizeof even);
        __builtin_memcpy(&odd, r + 2, sizeof odd);
        for (int32_t i = 0; i < 4 * columns->groups; i += 2) {
            even = edgec_smlald(panel[i], w[0], even);
            odd = edgec_smlald(panel[i], w[2], odd);
            even = edgec_smlald(panel[i + 1], w[1], even);
            odd = edgec_smlald(panel[i + 1], w[3], odd);
            w += 4;
        }
        y = store(y, scaled(even, r + 4), columns->y_bytes);
        y = store(y, scaled(odd, r + 7), columns->y_bytes);
    }
}
#endif
