/* SPDX-License-Identifier: Apache-2.0 */
/* One row times rows: a word of b holds four terms, two of them in each product. */
#include "edgec_compiler.h"
#include "edgec_dsp.h"
#include "row_products.h"

/* Up to three bytes as a word. */
static uint32_t load_some(const int8_t *b, int32_t bytes)
{
    uint32_t word = 0;
    EDGEC_KEEP_LOOP
    for (int32_t i = 0; i < bytes; i++) {
        word |= (uint32_t)(uint8_t)b[i] << (8 * i);
    }
    return word;
}

int32_t edgec_row_lanes(const int8_t *a, int32_t terms, int32_t za, uint32_t *lanes)
{
    int32_t sum = 0;
    EDGEC_KEEP_LOOP
    for (int32_t i = 0; i < (terms + 3) / 4; i++) {
        int32_t lane[4] = {0, 0, 0, 0};
        EDGEC_KEEP_LOOP
        for (int32_t j = 0; j < 4 && 4 * i + j < terms; j++) {
            lane[j] = a[4 * i + j] - za;
            sum += lane[j];
        }
        lanes[2 * i] = ((uint32_t)lane[0] & 0xFFFFu) | (uint32_t)lane[2] << 16;
        lanes[2 * i + 1] = ((uint32_t)lane[1] & 0xFFFFu) | (uint32_t)lane[3] << 16;
    }
    return sum;
}

void edgec_row_times_rows_s8(const uint32_t *lanes, const int8_t *b, const edgec_row_product *p, int8_t *y)
{
    const edgec_row_product g = *p; /* y may hold anything: what it points to is read once */
    const uint32_t *const end = lanes + 2 * (g.terms >> 2);
    const int32_t rest = g.terms & 3;
    EDGEC_KEEP_LOOP
    for (int32_t left = g.count; left > 0; left -= 2) { /* two rows share the lanes; the last may be there twice */
        const int8_t *first = b;
        const int8_t *second = left > 1 ? b + g.stride : b;
        const uint32_t *lane = lanes;
        uint32_t sum = (uint32_t)g.start, other = (uint32_t)g.start;
        EDGEC_KEEP_LOOP
        while (lane != end) {
            const uint32_t even = lane[0], odd = lane[1], word = edgec_load_word(first);
            const uint32_t next = edgec_load_word(second);
            sum = edgec_smlad(even, edgec_sxtb16(word), sum);
            sum = edgec_smlad(odd, edgec_sxtb16_ror8(word), sum);
            other = edgec_smlad(even, edgec_sxtb16(next), other);
            other = edgec_smlad(odd, edgec_sxtb16_ror8(next), other);
            first += 4;
            second += 4;
            lane += 2;
        }
        if (rest != 0) {
            const uint32_t word = load_some(first, rest), next = load_some(second, rest);
            sum = edgec_smlad(lane[0], edgec_sxtb16(word), sum);
            sum = edgec_smlad(lane[1], edgec_sxtb16_ror8(word), sum);
            other = edgec_smlad(lane[0], edgec_sxtb16(next), other);
            other = edgec_smlad(lane[1], edgec_sxtb16_ror8(next), other);
        }
        *y++ = edgec_ssat8(edgec_smmlar((int32_t)sum, g.double_mult, g.zero_point));
        if (left > 1) {
            *y++ = edgec_ssat8(edgec_smmlar((int32_t)other, g.double_mult, g.zero_point));
        }
        b += 2 * g.stride;
    }
}
