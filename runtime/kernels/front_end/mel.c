/* SPDX-License-Identifier: Apache-2.0 */
/* Mel energies and their logarithms. Neighbouring triangles share the stretch on which one falls, the other rises. */
#include "edgec_compiler.h"
#include "edgec_dsp.h"
#include "front_end.h"

enum { FLOOR_LOW, FLOOR_HIGH, MOST, MULT, ADDEND_LOW, ADDEND_HIGH, SHIFT };

/* log2 of an energy below 2^63 with 20 bits behind the point, less 2 * shift. */
static inline int32_t logarithm(uint64_t energy, const int32_t *logs, int32_t shift)
{
    const int32_t zeros = __builtin_clzll(energy);
    const uint32_t mantissa = (uint32_t)((energy << zeros) >> 32);
    const int32_t *const piece = logs + ((mantissa >> 26) & 31u);
    const int32_t within = (int32_t)((mantissa >> 11) & 0x7FFFu);
    return ((63 - zeros - 2 * shift) << 20) + piece[0] + (((piece[1] - piece[0]) * within) >> 15);
}

void edgec_front_end_mel(const edgec_complex *powers, const uint16_t *weights, const int32_t *edges, int32_t bins,
                         const int32_t *logs, const int32_t *params, int32_t shift, int8_t *y)
{
    const uint64_t unshifted = ((uint64_t)(uint32_t)params[FLOOR_HIGH] << 31) + (uint32_t)params[FLOOR_LOW];
    const uint64_t floor = unshifted << (2 * shift);
    const int32_t down = params[SHIFT] - 32;
    const int64_t addend = (int64_t)params[ADDEND_HIGH] * ((int64_t)1 << 31) + params[ADDEND_LOW];
    const edgec_complex *p = powers + edges[0];
    uint64_t energy = 0; /* of the bin in work: the floor and its rising side */
    int8_t *const end = y + bins;
    EDGEC_KEEP_LOOP
    for (;;) {
        uint64_t total = 0, rising = 0;
        EDGEC_KEEP_LOOP
        for (const edgec_complex *const last = powers + edges[1]; p != last; p++) {
            const uint64_t power = (uint64_t)(uint32_t)p->im << 32 | (uint32_t)p->re;
            total += power;
            rising += power * *weights++;
        }
        edges++;
        if (energy != 0) {
            const int32_t log = logarithm(energy + (total << 15) - rising, logs, shift);
            *y++ = edgec_ssat8((int32_t)(((int64_t)log * params[MULT] + addend) >> 32) >> down);
            if (y == end) {
                return;
            }
        }
        energy = rising + floor;
    }
}
