/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of log_mel_s8, one after the other on the same 8 * points bytes (docs/front_end.md has the arithmetic). */
#ifndef EDGEC_FRONT_END_H
#define EDGEC_FRONT_END_H

#include <stdint.h>

typedef struct {
    int32_t re, im;
} edgec_complex;

/* z = samples * window in bit-reversed order, two samples an element, zeros behind them. Returns the bits that
 * v ^ (v >> 31) of any product has. */
uint32_t edgec_front_end_window(const int16_t *ring, int32_t newest, int32_t rows, int32_t hop, const int16_t *window,
                                int32_t size, edgec_complex *z, int32_t stages);

/* The Fourier transform of 2^stages points in place, from bit-reversed order, of z << shift; each stage halves. */
void edgec_front_end_transform(edgec_complex *z, const int32_t *twiddles, int32_t stages, int32_t shift);

/* Its stages of `half` and 2 * half elements. */
void edgec_front_end_two_stages(edgec_complex *z, const int32_t *twiddles, int32_t points, int32_t half);

/* The transform of pairs -> the power of 2 * points real samples, in place: (re^2 + im^2) >> 16 in two words, lower
 * first, from 1 on. */
void edgec_front_end_power(edgec_complex *z, const int32_t *twiddles, int32_t points);

/* Powers -> mel energies -> their logarithms, requantized. */
void edgec_front_end_mel(const edgec_complex *powers, const uint16_t *weights, const int32_t *edges, int32_t bins,
                         const int32_t *logs, const int32_t *params, int32_t shift, int8_t *y);

#endif
