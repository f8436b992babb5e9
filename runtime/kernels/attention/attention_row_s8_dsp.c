/* SPDX-License-Identifier: Apache-2.0 */
/* attention_s8 of one query for cores with DSP instructions: keys and values as they lie, as in a ring of them. */
#include "edgec_compiler.h"
#include "edgec_kernels.h"
#include "row_products.h"
#include "softmax_row.h"

/* Softmax of a row of scores as int16 in [0, 255] (the int8 result + 128); their sum. */
static int32_t softmax_lanes(const int8_t *x, int32_t n, const uint16_t *table, int16_t *lanes)
{
    const uint16_t *const from = table + 255 - edgec_largest(x, n);
    const int32_t factor = edgec_softmax_factor(edgec_sum_exponentials(x, n, from));
    int32_t sum = 0;
    EDGEC_KEEP_LOOP
    for (int32_t i = 0; i < n; i++) {
        const int32_t value = edgec_smmlar(from[x[i]], factor, 0);
        lanes[i] = (int16_t)value;
        sum += value;
    }
    return sum;
}

EDGEC_MINSIZE /* the work is in the products */
void edgec_attention_row_s8_dsp(const int8_t *q, const int8_t *k, const int8_t *v, const int32_t *geometry,
                                const uint16_t *table, int8_t *y, uint32_t *scratch)
{
    edgec_attention_geometry g;
    __builtin_memcpy(&g, geometry, sizeof g); /* the library may have no string.h */
    const int32_t k_zero_point = geometry[9], v_zero_point = geometry[10];
    edgec_row_product score = {g.depth, g.keys, g.heads * g.depth, 0, g.score_mult, g.score_zero_point};
    edgec_row_product mix = {g.keys, g.width, g.heads * g.width, 0, g.mix_mult, g.mix_zero_point};
    int16_t *const lanes = (int16_t *)(scratch + 2 * ((g.depth + 3) / 4));
    int8_t *const scores = (int8_t *)(lanes + ((g.keys + 1) & ~1));
    for (; g.heads > 0; g.heads--) {
        score.start = -k_zero_point * edgec_row_lanes(q, g.depth, g.q_zero_point, scratch);
        edgec_row_times_rows_s8(scratch, k, &score, scores);
        mix.start = -v_zero_point * softmax_lanes(scores, g.keys, table, lanes);
        edgec_row_times_columns_s8(lanes, v, &mix, y);
        q += g.depth;
        k += g.depth;
        v += g.width;
        y += g.width;
    }
}
