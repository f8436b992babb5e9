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
        uint32_t word = 0;
        for (int32_t i = 0; i < (k & 3); i++) { /* byte by byte: x may end where the memory ends */
            word |= (uint32_t)(uint8_t)x[i] << (8 * i);
        }
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

/* `rows` rows beside one another, group by group. */
EDGEC_SMALL
static void pack_block(const int8_t *x, int32_t k, int32_t rows, uint32_t *panel)
{
    int32_t whole = 0; /* of four rows at once */
    if (rows == 4 && k >= 4) {
        whole = k & ~3;
        edgec_linear_s8_dsp_pack4(x, k, whole >> 2, panel);
    }
    for (int32_t i = 0; whole != k && i < rows; i++) {
        pack_row(x + i * k + whole, k - whole, panel + ((rows * whole) >> 1) + i, rows);
    }
}

void edgec_pack_panel_s8(const int8_t *x, int32_t m, int32_t k, void *packed)
{
    uint32_t *panel = packed;
    while (m > 0) {
        const int32_t rows = m >= 4 ? 4 : m >= 2 ? 2 : 1;
        pack_block(x, k, rows, panel);
        x += rows * k;
        panel += 2 * rows * ((k + 3) >> 2);
        m -= rows;
    }
}
