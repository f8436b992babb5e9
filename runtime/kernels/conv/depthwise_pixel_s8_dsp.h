/* SPDX-License-Identifier: Apache-2.0 */
/* One output pixel of depthwise convolutions that find their taps themselves. */
#ifndef EDGEC_DEPTHWISE_PIXEL_S8_DSP_H
#define EDGEC_DEPTHWISE_PIXEL_S8_DSP_H

#include <stdint.h>

/* y[c] = requantize(sum over the taps of taps[i][c] * w + bias) for all channels, a multiple of 4.
 *
 * w, requantize   as for edgec_depthwise_conv2d_s8_dsp
 *
 * Four channels of all taps are read before these four bytes of y are written. */
void edgec_depthwise_pixel_s8_dsp(const int8_t *const *taps, int32_t count, int32_t channels, const uint32_t *w,
                                  const int32_t *requantize, int32_t zero_point, int8_t *y);

#endif
