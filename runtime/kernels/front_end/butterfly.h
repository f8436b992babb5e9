/* SPDX-License-Identifier: Apache-2.0 */
/* The one butterfly of log_mel_s8: h = a >> 1, t = -b * w / 2 with each product rounded; h - t and h + t. */
#ifndef EDGEC_BUTTERFLY_H
#define EDGEC_BUTTERFLY_H

#include "edgec_dsp.h"
#include "front_end.h"

/* a >> 1, of which a compiler must not know that its double is a without a bit: that takes an instruction more. */
static inline int32_t edgec_half(int32_t a)
{
    int32_t half = a >> 1;
#if EDGEC_HAS_DSP
    __asm__("" : "+r"(half));
#endif
    return half;
}

/* w = -(c + i s). */
static inline void edgec_butterfly(edgec_complex *a, edgec_complex *b, int32_t c, int32_t s)
{
    const int32_t re = edgec_half(a->re), im = edgec_half(a->im);
    const int32_t b_re = edgec_smmlar(b->im, s, edgec_smmlar(b->re, c, re));
    const int32_t b_im = edgec_smmlsr(b->re, s, edgec_smmlar(b->im, c, im));
    *a = (edgec_complex){2 * re - b_re, 2 * im - b_im};
    *b = (edgec_complex){b_re, b_im};
}

/* The same a quarter of a turn on: w = -(c + i s) * -i. */
static inline void edgec_butterfly_on(edgec_complex *a, edgec_complex *b, int32_t c, int32_t s)
{
    const int32_t re = edgec_half(a->re), im = edgec_half(a->im);
    const int32_t b_re = edgec_smmlar(b->im, c, edgec_smmlsr(b->re, s, re));
    const int32_t b_im = edgec_smmlsr(b->re, c, edgec_smmlsr(b->im, s, im));
    *a = (edgec_complex){2 * re - b_re, 2 * im - b_im};
    *b = (edgec_complex){b_re, b_im};
}

#endif
