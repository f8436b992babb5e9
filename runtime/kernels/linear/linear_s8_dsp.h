/* SPDX-License-Identifier: Apache-2.0 */
/* The three block kernels behind edgec_linear_s8_dsp: assembly on cores with DSP instructions, C elsewhere. */
#ifndef EDGEC_LINEAR_S8_DSP_H
#define EDGEC_LINEAR_S8_DSP_H

#include <stdint.h>

#define EDGEC_REQUANTIZE_WORDS 5 /* int32 words for one column pair */

/* panel       uint32 [groups][2][rows]: group g holds x[4g], x[4g+2] (first word of a row) and x[4g+1], x[4g+3] (second)
 * w           the column pairs, uint32 [pairs][groups][2]
 * y           first output of the block; rows are y_stride bytes apart
 * groups      ceil(k/4) >= 1 */
void edgec_linear_s8_dsp_rows4(const uint32_t *panel, const uint32_t *w, const int32_t *requantize, int8_t *y,
                               int32_t y_stride, int32_t pairs, int32_t groups, int32_t y_zero_point);
void edgec_linear_s8_dsp_rows2(const uint32_t *panel, const uint32_t *w, const int32_t *requantize, int8_t *y,
                               int32_t y_stride, int32_t pairs, int32_t groups, int32_t y_zero_point);
/* One row, two pairs (four outputs) at a time; the second pair lies second_pair words after the first. */
void edgec_linear_s8_dsp_row1(const uint32_t *panel, const uint32_t *w, const int32_t *requantize, int8_t *y,
                              int32_t second_pair, int32_t quads, int32_t groups, int32_t y_zero_point);

#endif
