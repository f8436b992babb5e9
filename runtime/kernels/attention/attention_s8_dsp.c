/* SPDX-License-Identifier: Apache-2.0 */
/* attention_s8 for cores with DSP instructions: four queries at a time, scores and probabilities never leave scratch. */
#include "edgec_compiler.h"
#include "edgec_kernels.h"
#include "pairs_multiply.h"
#include "softmax_row.h"

/* Softmax of one row of scores, as 16-bit lanes in [0, 255] (the int8 result + 128) in a panel's column; their sum. */
static int32_t softmax_into_panel(const int8_t *x, int32_t n, const uint16_t *table, uint32_t *panel)
{
    const uint16_t *const from = table + 255 - edgec_largest(x, n);
    const int32_t factor = edgec_softmax_factor(edgec_sum_exponentials(x, n, from));
    const int8_t *const whole = x + (n & ~3);
    int32_t sum = 0;
    EDGEC_KEEP_LOOP
    while (x != whole) {
        const int32_t first = edgec_smmlar(from[x[0]], factor, 0);
        const int32_t second = edgec_smmlar(from[x[1]], factor, 0);
        const int32_t third = edgec_smmlar(from[x[2]], factor, 0);
        const int32_t fourth = edgec_smmlar(from[x[3]], factor, 0);
        panel[0] = (uint32_t)first | (uint32_t)third << 16;
        panel[EDGEC_PANEL_ROWS] = (uint32_t)second | (uint32_t)fourth << 16;
        sum += first + second + third + fourth;
        panel += 2 * EDGEC_PANEL_ROWS;
        x += 4;
    }
    if ((n & 3) != 0) {
        uint32_t lanes[2] = {0, 0};
        EDGEC_KEEP_LOOP
        for (int32_t i = 0; i < (n & 3); i++) {
            const int32_t value = edgec_smmlar(from[x[i]], factor, 0);
            lanes[i & 1] |= (uint32_t)value << (8 * (i & 2));
            sum += value;
        }
        panel[0] = lanes[0];
        panel[EDGEC_PANEL_ROWS] = lanes[1];
    }
    return sum;
}

void edgec_attention_s8_dsp(const int8_t *q, const void *k_packed, const void *v_packed, const int32_t *geometry,
                            const uint16_t *table, int8_t *y, int32_t m, uint32_t *scratch)
{
    const uint32_t *const keys = k_packed;
    const uint32_t *const values = v_packed;
    edgec_attention_geometry g;
    __builtin_memcpy(&g, geometry, sizeof g);
    const int32_t q_groups = (g.depth + 3) / 4;
    const int32_t key_groups = (g.keys + 3) / 4;
    const int32_t q_words = 2 * EDGEC_PANEL_ROWS * q_groups;
    uint32_t *const probabilities = scratch + g.heads * (q_words + EDGEC_PANEL_ROWS);
    int8_t *const scores = (int8_t *)(probabilities + 2 * EDGEC_PANEL_ROWS * key_groups);
    EDGEC_KEEP_LOOP
    for (int32_t left = m; left > 0; left -= EDGEC_PANEL_ROWS) {
        const int32_t rows = left < EDGEC_PANEL_ROWS ? left : EDGEC_PANEL_ROWS;
        /* All heads of the block before any output, which may take the place of q. */
        uint32_t *panel = scratch;
        EDGEC_KEEP_LOOP
        for (int32_t head = 0; head < g.heads; head++) {
            int32_t *const sums = (int32_t *)(panel + q_words);
            EDGEC_KEEP_LOOP
            for (int32_t row = 0; row < EDGEC_PANEL_ROWS; row++) {
                const int32_t from = row < rows ? row : rows - 1;
                const int8_t *const x = q + (from * g.heads + head) * g.depth;
                sums[row] = -128 * edgec_pairs_panel_row(x, g.depth, g.q_zero_point, panel + row);
            }
            panel += q_words + EDGEC_PANEL_ROWS;
        }
        panel = scratch;
        EDGEC_KEEP_LOOP
        for (int32_t head = 0; head < g.heads; head++) {
            edgec_pairs_block block;
            const int32_t *const sums = (const int32_t *)(panel + q_words);
            EDGEC_KEEP_LOOP
            for (int32_t row = 0; row < EDGEC_PANEL_ROWS; row++) {
                block.start[row] = sums[row];
            }
            block.groups = q_groups;
            block.stride = 8 * q_groups * (g.heads - 1);
            block.double_mult = g.score_mult;
            block.zero_point = g.score_zero_point;
            edgec_pairs_multiply(panel, keys + 2 * q_groups * head, 1, &block, scores, g.keys, EDGEC_PANEL_ROWS,
                                 g.keys);
            EDGEC_KEEP_LOOP
            for (int32_t row = 0; row < EDGEC_PANEL_ROWS; row++) {
                block.start[row] =
                    -128 * softmax_into_panel(scores + row * g.keys, g.keys, table, probabilities + row);
            }
            const int32_t pairs = (g.width + 1) / 2;
            block.groups = key_groups;
            block.stride = 8 * pairs * g.heads;
            block.double_mult = g.mix_mult;
            block.zero_point = g.mix_zero_point;
            edgec_pairs_multiply(probabilities, values + 2 * pairs * head, 0, &block, y + head * g.width,
                                 g.heads * g.width, rows, g.width);
            panel += q_words + EDGEC_PANEL_ROWS;
        }
        q += rows * g.heads * g.depth;
        y += rows * g.heads * g.width;
    }
}
