/* SPDX-License-Identifier: Apache-2.0 */
/* Hand-written kernels: each overrides the generated kernel of one operator and yields the same bits. */
#ifndef EDGEC_KERNELS_H
#define EDGEC_KERNELS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* linear_s8: y[m][n] = requantize(sum over k of x[m][k] * w[n][k] + bias[n]), any m, k, n >= 1.
 *
 * x            int8 [m][k], any alignment
 * w_packed     uint32 [ceil(n/2)][4*ceil(k/4) / 2]: column pairs, see edgec/kernels/linear.py, pack_pairs
 * requantize   int32 [2*ceil(n/4)][5]: a pair's {bias of the even column, bias of the odd one, 2*mult even,
 *              2*mult odd, shift even | shift odd << 8}
 * y            int8 [m][n], any alignment
 * scratch      words for the activation panel: 8*ceil(k/4) bytes for each row of a block, blocks of 4, 2 or 1 rows
 *
 * Rows are taken in blocks (4 at a time, then 2, then 1): a block is read from x whole before a byte of it is written. */
void edgec_linear_s8_dsp(const int8_t *x, const uint32_t *w_packed, const int32_t *requantize, int8_t *y, int32_t m,
                         int32_t k, int32_t n, int32_t y_zero_point, uint32_t *scratch);

#ifdef __cplusplus
}
#endif

#endif
