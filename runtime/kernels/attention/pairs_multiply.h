/* SPDX-License-Identifier: Apache-2.0 */
/* One panel times all n columns, stored as 1 to 4 rows of y: what matmul_s8 and attention_s8 share. */
#ifndef EDGEC_PAIRS_MULTIPLY_H
#define EDGEC_PAIRS_MULTIPLY_H

#include "pairs.h"

/* In `block`: groups, stride, double_mult, zero_point, start. `rows` rows of the panel count and go to y, y_stride bytes
 * apart. near: b is packed as for edgec_pairs_near_rows4. */
void edgec_pairs_multiply(const uint32_t *panel, const uint32_t *b, int32_t near, edgec_pairs_block *block, int8_t *y,
                          int32_t y_stride, int32_t rows, int32_t n);

#endif
