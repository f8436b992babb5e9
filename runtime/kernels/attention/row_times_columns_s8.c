/* SPDX-License-Identifier: Apache-2.0 */
/* One row times columns, four of them at a time: of two rows of b, bytes of a column become the lanes of a word. */
#include "edgec_compiler.h"
#include "edgec_dsp.h"
#include "row_products.h"

static inline uint32_t low_lanes(uint32_t a, uint32_t b) { return (a & 0xFFFFu) | b << 16; }          /* PKHBT */
static inline uint32_t high_lanes(uint32_t a, uint32_t b) { return a >> 16 | (b & 0xFFFF0000u); } /* PKHTB */

static inline int8_t result(uint32_t sum, const edgec_row_product *p)
{
    return edgec_ssat8(edgec_smmlar((int32_t)sum, p->double_mult, p->zero_point));
}

void edgec_row_times_columns_s8(const int16_t *lanes, const int8_t *b, const edgec_row_product *p, int8_t *y)
{
    const edgec_row_product g = *p; /* y may hold anything: what it points to is read once */
    const int8_t *const whole = y + (g.count & ~3);
    const int16_t *const pairs = lanes + (g.terms & ~1);
    EDGEC_KEEP_LOOP
    while (y != whole) {
        uint32_t sum0 = (uint32_t)g.start, sum1 = sum0, sum2 = sum0, sum3 = sum0;
        const int8_t *from = b;
        EDGEC_KEEP_LOOP
        for (const int16_t *lane = lanes; lane != pairs; lane += 2) {
            uint32_t both;
            __builtin_memcpy(&both, lane, sizeof both); /* the library may have no string.h */
            const uint32_t first = edgec_load_word(from), second = edgec_load_word(from + g.stride);
            const uint32_t even0 = edgec_sxtb16(first), odd0 = edgec_sxtb16_ror8(first);
            const uint32_t even1 = edgec_sxtb16(second), odd1 = edgec_sxtb16_ror8(second);
            sum0 = edgec_smlad(both, low_lanes(even0, even1), sum0);
            sum1 = edgec_smlad(both, low_lanes(odd0, odd1), sum1);
            sum2 = edgec_smlad(both, high_lanes(even0, even1), sum2);
            sum3 = edgec_smlad(both, high_lanes(odd0, odd1), sum3);
            from += 2 * g.stride;
        }
        if ((g.terms & 1) != 0) {
            sum0 += (uint32_t)(pairs[0] * from[0]);
            sum1 += (uint32_t)(pairs[0] * from[1]);
            sum2 += (uint32_t)(pairs[0] * from[2]);
            sum3 += (uint32_t)(pairs[0] * from[3]);
        }
        *y++ = result(sum0, &g);
        *y++ = result(sum1, &g);
        *y++ = result(sum2, &g);
        *y++ = result(sum3, &g);
        b += 4;
    }
    EDGEC_KEEP_LOOP
    for (int32_t left = g.count & 3; left > 0; left--) {
        uint32_t sum = (uint32_t)g.start;
        const int8_t *from = b++;
        EDGEC_KEEP_LOOP
        for (int32_t i = 0; i < g.terms; i++) {
            sum += (uint32_t)(lanes[i] * *from);
            from += g.stride;
        }
        *y++ = result(sum, &g);
    }
}
