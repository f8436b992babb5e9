/* SPDX-License-Identifier: Apache-2.0 */
/* The block kernels of pairs.h in portable C, for every CPU that does not run pairs_blocks.S. */
#include "pairs.h"

#include "edgec_dsp.h"

#if !EDGEC_HAS_DSP
/* UXTB16: bytes 0 and 2. */
static uint32_t even_lanes(uint32_t word) { return word & 0x00FF00FFu; }

/* Two outputs of one row: word i of the pair lies in group i / 2, `stride` words from one group to the next. */
static void pair_product(const uint32_t *panel, const uint32_t *b, int32_t stride, const edgec_pairs_block *block,
                         int32_t row, int8_t *y)
{
    uint32_t both = (uint32_t)block->start[row]; /* becomes 256*P1 + P0 */
    uint32_t even = both;                        /* becomes P0 */
    for (int32_t i = 0; i < 2 * block->groups; i++) {
        const uint32_t a = panel[EDGEC_PANEL_ROWS * i + row];
        const uint32_t word = b[(i / 2) * stride + i % 2];
        both = edgec_smlad(a, word, both);
        even = edgec_smlad(a, even_lanes(word), even);
    }
    const uint32_t scaled = both - even; /* 256*P1: the kernel's bound on k keeps P1 in 24 bits */
    const uint32_t odd = (scaled >> 8) | ((scaled & 0x80000000u) != 0 ? 0xFF000000u : 0u);
    y[0] = edgec_ssat8(edgec_smmlar((int32_t)even, block->double_mult, block->zero_point));
    y[1] = edgec_ssat8(edgec_smmlar((int32_t)odd, block->double_mult, block->zero_point));
}

static void rows4(const uint32_t *panel, const uint32_t *b, int32_t group_stride, int32_t pair_stride,
                  const edgec_pairs_block *block)
{
    for (int32_t pair = 0; pair < block->pairs; pair++) {
        int8_t *y = block->y + 2 * pair;
        for (int32_t row = 0; row < EDGEC_PANEL_ROWS; row++) {
            pair_product(panel, b + pair * pair_stride, group_stride, block, row, y);
            y += row < 3 ? block->row_step[row] : 0;
        }
    }
}

void edgec_pairs_near_rows4(const uint32_t *panel, const uint32_t *b, const edgec_pairs_block *block)
{
    rows4(panel, b, 2, 2 * block->groups + block->stride / 4, block);
}

void edgec_pairs_far_rows4(const uint32_t *panel, const uint32_t *b, const edgec_pairs_block *block)
{
    rows4(panel, b, block->stride / 4, 2, block);
}
#endif
