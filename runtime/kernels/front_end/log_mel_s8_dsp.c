/* SPDX-License-Identifier: Apache-2.0 */
/* log_mel_s8: its parts in order. */
#include "edgec_kernels.h"
#include "front_end.h"

enum { MOST = 2, FULL = 28 };

void edgec_log_mel_s8_dsp(const int16_t *ring, const int32_t *cursor, const int16_t *window, const int32_t *twiddles,
                          const uint16_t *weights, const int32_t *edges, const int32_t *logs, const int32_t *params,
                          int8_t *y, const int32_t *geometry, uint32_t *scratch)
{
    edgec_log_mel_geometry g;
    __builtin_memcpy(&g, geometry, sizeof g); /* the library may have no string.h */
    edgec_complex *const z = (edgec_complex *)scratch;
    int32_t newest = *cursor % g.rows; /* of any number */
    newest = newest < 0 ? newest + g.rows : newest;
    for (; g.streams > 0; g.streams--) {
        const uint32_t bits = edgec_front_end_window(ring, newest, g.rows, g.hop, window, g.size, z, g.stages);
        const int32_t room = bits == 0 ? params[MOST] : __builtin_clz(bits) - (31 - FULL);
        const int32_t shift = room < params[MOST] ? room : params[MOST];
        edgec_front_end_transform(z, twiddles, g.stages, shift);
        edgec_front_end_power(z, twiddles, (int32_t)1 << g.stages);
        edgec_front_end_mel(z, weights, edges, g.bins, logs, params, shift, y);
        ring += g.rows * g.hop;
        y += g.bins;
    }
}
