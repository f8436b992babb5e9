/* SPDX-License-Identifier: Apache-2.0 */
/* causal_conv1d_s8 for cores with DSP instructions: the taps, oldest first, are a row of a dense layer. */
#include "edgec_compiler.h"
#include "edgec_dsp.h"
#include "edgec_kernels.h"
#include "ring_row.h"

/* `words` words of bytes to 16-bit lanes. */
static uint32_t *widen(const int8_t *from, int32_t words, uint32_t *panel)
{
    EDGEC_KEEP_LOOP
    for (; words > 0; words--) {
        const uint32_t word = edgec_load_word(from);
        panel[0] = edgec_sxtb16(word);
        panel[1] = edgec_sxtb16_ror8(word);
        from += 4;
        panel += 2;
    }
    return panel;
}

EDGEC_MINSIZE /* the work is in the dense layer */
void edgec_causal_conv1d_s8_dsp(const int8_t *ring, const int32_t *cursor, const uint32_t *w_packed,
                                const int32_t *requantize, const int32_t *geometry, int8_t *y, uint32_t *scratch)
{
    edgec_ring_geometry g;
    __builtin_memcpy(&g, geometry, sizeof g); /* the library may have no string.h */
    const int32_t size = g.taps * g.channels;
    const int32_t groups = (size + 3) >> 2;
    const int direct = (g.channels & 3) == 0;
    int8_t *const bytes = (int8_t *)scratch; /* where words would hold channels of two taps */
    uint32_t *const panel = direct ? scratch : scratch + groups;
    const int32_t oldest = edgec_ring_row(edgec_ring_row(*cursor, g.rows) - (g.taps - 1) * g.dilation, g.rows);
    for (int32_t s = 0; s < g.streams; s++) {
        uint32_t *to = panel;
        int8_t *byte = bytes;
        int32_t row = oldest;
        for (int32_t tap = 0; tap < g.taps; tap++) {
            const int8_t *const from = ring + row * g.channels;
            if (direct) {
                to = widen(from, g.channels >> 2, to);
            } else {
                EDGEC_KEEP_LOOP
                for (int32_t c = 0; c < g.channels; c++) {
                    *byte++ = from[c];
                }
            }
            row += g.dilation;
            row = row >= g.rows ? row - g.rows : row;
        }
        if (!direct) {
            widen(bytes, groups, panel); /* bytes beyond the taps meet weights of 0 */
        }
        edgec_linear_s8_dsp_panel(panel, w_packed, requantize, y, 1, size, g.outputs, g.zero_point);
        ring += g.rows * g.channels;
        y += g.outputs;
    }
}
