/* SPDX-License-Identifier: Apache-2.0 */
/* causal_depthwise_s8 for cores with DSP instructions: four channels at a time, as a pixel of a depthwise convolution. */
#include "../conv/depthwise_pixel_s8_dsp.h"
#include "edgec_compiler.h"
#include "edgec_kernels.h"
#include "ring_row.h"

EDGEC_MINSIZE /* the work is in the pixel */
void edgec_causal_depthwise_s8_dsp(const int8_t *ring, const int32_t *cursor, const uint32_t *w_packed,
                                   const int32_t *requantize, const int32_t *geometry, int8_t *y)
{
    const int8_t *taps[EDGEC_DEPTHWISE_TAPS];
    edgec_ring_geometry g;
    __builtin_memcpy(&g, geometry, sizeof g); /* the library may have no string.h */
    int32_t row = edgec_ring_row(edgec_ring_row(*cursor, g.rows) - (g.taps - 1) * g.dilation, g.rows);
    for (int32_t tap = 0; tap < g.taps; tap++) {
        taps[tap] = ring + row * g.channels;
        row += g.dilation;
        row = row >= g.rows ? row - g.rows : row;
    }
    for (int32_t s = 0; s < g.streams; s++) {
        edgec_depthwise_pixel_s8_dsp(taps, g.taps, g.channels, w_packed, requantize, g.zero_point, y);
        for (int32_t tap = 0; tap < g.taps; tap++) {
            taps[tap] += g.rows * g.channels;
        }
        y += g.channels;
    }
}
