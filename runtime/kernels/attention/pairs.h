/* SPDX-License-Identifier: Apache-2.0 */
/* Four rows of activations times column pairs that were packed at run time: assembly with DSP instructions, C elsewhere. */
#ifndef EDGEC_PAIRS_H
#define EDGEC_PAIRS_H

#include <stdint.h>

#define EDGEC_PANEL_ROWS 4

/* A packed word holds two k of two columns: lanes 256*b[odd] + (b[even] + 128), k = 4g and 4g+2 in the first word of a
 * group, 4g+1 and 4g+3 in the second. Sums of the low bytes are 128 * (the row's sum) too large: `start` takes it back.
 *
 * panel   uint32 [groups][2][4 rows]: a row's k = 4g, 4g+2 and then 4g+1, 4g+3 as 16-bit lanes in [-255, 255]
 * y       first output; the rows after it lie row_step[0], [1], [2] bytes after one another (0: the same row again) */
typedef struct {
    int8_t *y;
    int32_t row_step[3];
    int32_t pairs;       /* >= 1; both columns of each are stored */
    int32_t groups;      /* >= 1, of four k */
    int32_t stride;      /* near: bytes from the end of a pair to the next; far: from one group to the next */
    int32_t double_mult; /* 2 * mult */
    int32_t zero_point;
    int32_t start[EDGEC_PANEL_ROWS]; /* -128 * sum of the row */
} edgec_pairs_block;

/* near: the groups of a pair lie together. far: the pairs of a group do, 8 bytes each. */
void edgec_pairs_near_rows4(const uint32_t *panel, const uint32_t *b, const edgec_pairs_block *block);
void edgec_pairs_far_rows4(const uint32_t *panel, const uint32_t *b, const edgec_pairs_block *block);

/* Widens x - zero_point of one row into its column of a panel, the last group filled up with zeros; the row's sum. */
int32_t edgec_pairs_panel_row(const int8_t *x, int32_t k, int32_t zero_point, uint32_t *panel);

#endif
