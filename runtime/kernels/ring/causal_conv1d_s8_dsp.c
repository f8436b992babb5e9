/* SPDX-License-Identifier: Apache-2.0 */
/* causal_conv1d_s8 for cores with DSP instructions: the taps, oldest first, are a row of a dense layer. */
#include "../movement/copy_run.h"
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

/* The taps of a stream, oldest first, as they are. */
static void gather(const int8_t *ring, const int32_t *geometry, int32_t row, int8_t *to)
{
    edgec_ring_geometry g;
    __builtin_memcpy(&g, geometry, sizeof g);
    if (g.dilation == 1) { /* taps side by side are one run, and where the ring ends a second one */
        const int32_t ahead = g.rows - row < g.taps ? g.rows - row : g.taps;
        to = edgec_copy_run(to, ring + row * g.channels, ahead * g.channels);
        edgec_copy_run(to, ring, (g.taps - ahead) * g.channels);
        return;
    }
    for (int32_t tap = g.taps; tap > 0; tap--) {
        const int8_t *const from = ring + row * g.channels;
        EDGEC_KEEP_LOOP
        for (int32_t c = 0; c < g.channels; c++) {
            *to++ = from[c];
        }
        row += g.dilation;
        row = row >= g.rows ? row - g.rows : row;
    }
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
    uint32_t *const panel = direct ? scratch : scratch + groups; /* words would hold channels of two taps */
    const int32_t oldest = edgec_ring_row(edgec_ring_row(*cursor, g.rows) - (g.taps - 1) * g.dilation, g.rows);
    for (int32_t s = 0; s < g.streams; s++) {
        if (direct) {
            uint32_t *to = panel;
            int32_t row = oldest;
            for (int32_t tap = 0; tap < g.taps; tap++) {
                to = widen(ring + row * g.channels, g.channels >> 2, to);
                row += g.dilation;
                row = row >= g.rows ? row - g.rows : row;
            }
        } else {
            gather(ring, geometry, oldest, (int8_t *)scratch);
            widen((const int8_t *)scratch, groups, panel); /* bytes beyond the taps meet weights of 0 */
        }
        edgec_linear_s8_dsp_panel(panel, w_packed, requantize, y, 1, size, g.outputs, g.zero_point);
        ring += g.rows * g.channels;
        y += g.outputs;
    }
}
