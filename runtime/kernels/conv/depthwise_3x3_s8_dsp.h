/* SPDX-License-Identifier: Apache-2.0 */
/* The block kernels behind edgec_depthwise_3x3_s8_dsp: assembly on cores with DSP instructions, C elsewhere. */
#ifndef EDGEC_DEPTHWISE_3X3_S8_DSP_H
#define EDGEC_DEPTHWISE_3X3_S8_DSP_H

#include <stdint.h>

#define EDGEC_DEPTHWISE_CHANNELS 4     /* of a panel */
#define EDGEC_DEPTHWISE_RECORD_WORDS 7 /* of one channel; see edgec_kernels.h */

/* Pixels >= 1 of four lines of x, `step` bytes apart, to a panel: uint32 [pixels][4 channels][2], lanes of lines 1 and
 * 2 and lanes of lines 0 and 3. */
void edgec_depthwise_3x3_s8_dsp_pack(const int8_t *const lines[4], int32_t pixels, int32_t step, uint32_t *panel);

/* The same of the first three alone; lanes of line 3 hold anything. */
void edgec_depthwise_3x3_s8_dsp_pack3(const int8_t *const lines[4], int32_t pixels, int32_t step, uint32_t *panel);

/* One or two lines of outputs of four channels, windows side by side (stride and dilation 1).
 *
 * panel    of outputs + 2 pixels
 * records  of the four channels
 * y        first output of the first channel; the next channel is the next byte, the second line y_cross bytes on
 * lines    1: taps in lines 0 to 2; 2: those of the second line of outputs are lines 1 to 3 */
void edgec_depthwise_3x3_s8_dsp_slide(const uint32_t *panel, const uint32_t *records, int8_t *y, int32_t outputs,
                                      int32_t y_cross, int32_t lines, int32_t zero_point);

/* One line, windows two pixels apart: a panel of 2 * outputs + 1 pixels. */
void edgec_depthwise_3x3_s8_dsp_slide2(const uint32_t *panel, const uint32_t *records, int8_t *y, int32_t outputs,
                                       int32_t zero_point);

#endif
