/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of int8 widened to the panel of 16-bit lanes that dense layers multiply. */
#include "edgec_dsp.h"
#include "edgec_kernels.h"
#include "linear_s8_dsp.h"

/* Widens a row, or what is left of it, to 16-bit lanes, `stride` words between its words; zeros fill the last group. */
EDGEC_SMALL
static void pack_row(const int8_t *x, int32_t k, uint32_t *panel, int32_t stride)
{
    const int8_t *const whole = x + (k & ~3);
    while (x != whole) {
        const uint32_t word = edgec_load_word(x);
        panel[0] = edgec_sxtb16(word);
        panel[stride] = edgec_sxtb16_ror8(word);
        panel += 2 * stride;
        x += 4;
    }
    if ((k & 3) != 0) {
        const uint32_t word = edgec_linear_last_word(x, k & 3);
        panel[0] = edgec_sxtb16(word);
        panel[stride] = edgec_sxtb16_ror8(word);
    }
}

#if !EDGEC_HAS_DSP
void edgec_linear_s8_dsp_pack4(const int8_t *x, int32_t k, int32_t groups, uint32_t *panel)
{
    for (int32_t row = 0; row < 4; row++) {
        pack_row(x + row * k, 4 * groups, panel + row, 4);
    }
}
#endif

void edgec_pack_panel_s8(const int8_t *x, int32_t m, int32_t k, void *packed)
{
    const int32_t whole = k & ~3;
    uint32_t *panel = packed;
    EDGEC_KEEP_LOOP
    for (; m >= 4; m -= 4) {
        if (whole != 0) {
            edgec_linear_s8_dsp_pack4(x, k, whole >> 2, panel);
        }
        if (whole != k) {
            EDGEC_KEEP_LOOP
            for (int32_t i = 0; i < 4; i++) {
                pack_row(x + i * k + whole, k - whole, panel + 2 * whole + i, 4);
            }
        }
        x += 4 * k;
        panel += 8 * ((k + 3) >> 2);
    }
    if (m >= 2) {
        pack_row(x, k, panel, 2);
        pack_row(x + k, k, panel + 1, 2);
        x += 2 * k;
        panel += 4 * ((k + 3) >> 2);
    }
    if ((m & 1) != 0) {
        edgec_linear_s8_dsp_pack1(x, k, panel);
    }
}
