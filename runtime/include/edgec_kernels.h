/* SPDX-License-Identifier: Apache-2.0 */
/* Hand-written kernels: each overrides the generated kernel of one operator and yields the same bits. */
#ifndef EDGEC_KERNELS_H
#define EDGEC_KERNELS_H

#include <stddef.h>
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

/* How windows slide over x int8 [height][width][channels] to y int8 [rows][columns][outputs]. */
typedef struct {
    int32_t height, width, channels;
    int32_t rows, columns, outputs;
    int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
    int32_t top, left; /* padding, which reads x_zero_point */
    int32_t x_zero_point, zero_point;
} edgec_conv2d_geometry;

/* conv2d_s8 of one group: y = requantize(sum over the taps and channels of x * w + bias).
 *
 * w_packed, requantize   as for edgec_linear_s8_dsp, with k = kernel_h * kernel_w * channels and n = outputs
 * geometry               the words of an edgec_conv2d_geometry
 * scratch                words: 32*ceil(k/4) bytes for the panel, then four windows of k bytes */
void edgec_conv2d_s8_dsp(const int8_t *x, const uint32_t *w_packed, const int32_t *requantize,
                         const int32_t *geometry, int8_t *y, uint32_t *scratch);

#define EDGEC_DEPTHWISE_TAPS 25 /* taps of a kernel at most */

/* depthwise_conv2d_s8 with one output for each channel, channels a multiple of 4, taps <= EDGEC_DEPTHWISE_TAPS.
 *
 * w_packed     uint32 [channels/4][taps][2]: lanes of channels 0, 2 and of channels 1, 3 of a group
 * requantize   int32 [channels][3]: bias, 2*mult, shift
 * geometry     the words of an edgec_conv2d_geometry
 * scratch      a row of zero points: `channels` bytes */
void edgec_depthwise_conv2d_s8_dsp(const int8_t *x, const uint32_t *w_packed, const int32_t *requantize,
                                   const int32_t *geometry, int8_t *y, int8_t *scratch);

#ifdef __cplusplus
}
#endif

#endif
