/* SPDX-License-Identifier: Apache-2.0 */
/* One row of activations as 16-bit lanes in a panel's column, and its sum. */
#include "edgec_compiler.h"
#include "edgec_dsp.h"
#include "pairs.h"

int32_t edgec_pairs_panel_row(const int8_t *x, int32_t k, int32_t zero_point, uint32_t *panel)
{
    const uint32_t zeros = ((uint32_t)zero_point & 0xFFFFu) * 0x00010001u;
    const int8_t *const whole = x + (k & ~3);
    uint32_t sum = 0;
    EDGEC_KEEP_LOOP
    while (x != whole) {
        const uint32_t word = edgec_load_word(x);
        const uint32_t first = edgec_ssub16(edgec_sxtb16(word), zeros);
        const uint32_t second = edgec_ssub16(edgec_sxtb16_ror8(word), zeros);
        panel[0] = first;
        panel[EDGEC_PANEL_ROWS] = second;
        sum = edgec_smlad(first, 0x00010001u, sum);
        sum = edgec_smlad(second, 0x00010001u, sum);
        panel += 2 * EDGEC_PANEL_ROWS;
        x += 4;
    }
    if ((k & 3) != 0) {
        uint32_t lanes[2] = {0, 0};
        EDGEC_KEEP_LOOP
        for (int32_t i = 0; i < (k & 3); i++) { /* byte by byte: x may end where the memory ends */
            const int32_t value = x[i] - zero_point;
            lanes[i & 1] |= ((uint32_t)value & 0xFFFFu) << (8 * (i & 2));
            sum += (uint32_t)value;
        }
        panel[0] = lanes[0];
        panel[EDGEC_PANEL_ROWS] = lanes[1];
    }
    return (int32_t)sum;
}
