/* SPDX-License-Identifier: Apache-2.0 */
/* The Fourier transform, two stages at a time while they are in registers. */
#include "butterfly.h"
#include "edgec_compiler.h"

static inline int32_t halved(int32_t value, int32_t shift) { return (int32_t)((uint32_t)value << shift) >> 1; }

/* Stages 0 and 1 of four elements: products by 1 and by -i, which halve. */
static void first_stages(edgec_complex *z, int32_t points, int32_t shift)
{
    EDGEC_KEEP_LOOP
    for (edgec_complex *const end = z + points; z != end; z += 4) {
        const int32_t re0 = halved(z[0].re, shift), re1 = halved(z[1].re, shift);
        const int32_t re2 = halved(z[2].re, shift), re3 = halved(z[3].re, shift);
        const int32_t im0 = halved(z[0].im, shift), im1 = halved(z[1].im, shift);
        const int32_t im2 = halved(z[2].im, shift), im3 = halved(z[3].im, shift);
        const int32_t a_re = (re0 + re1) >> 1, a_im = (im0 + im1) >> 1;
        const int32_t b_re = (re0 - re1) >> 1, b_im = (im0 - im1) >> 1;
        const int32_t c_re = (re2 + re3) >> 1, c_im = (im2 + im3) >> 1;
        const int32_t d_re = (re2 - re3 + 1) >> 1, d_im = (im2 - im3) >> 1;
        z[0] = (edgec_complex){a_re + c_re, a_im + c_im};
        z[2] = (edgec_complex){a_re - c_re, a_im - c_im};
        z[1] = (edgec_complex){b_re + d_im, b_im - d_re};
        z[3] = (edgec_complex){b_re - d_im, b_im + d_re};
    }
}

#if !EDGEC_HAS_DSP /* else two_stages.S */
void edgec_front_end_two_stages(edgec_complex *z, const int32_t *twiddles, int32_t points, int32_t half)
{
    const int32_t step = points / half; /* numbers of the table from one factor of the second stage to the next */
    edgec_complex *const end = z + points;
    for (; z != end; z += 3 * half) {
        const int32_t *first = twiddles, *second = twiddles;
        EDGEC_KEEP_LOOP
        for (edgec_complex *const last = z + half; z != last; z++) {
            edgec_complex a = z[0], b = z[half], c = z[2 * half], d = z[3 * half];
            const int32_t c1 = first[0], s1 = first[1];
            edgec_butterfly(&a, &b, c1, s1);
            edgec_butterfly(&c, &d, c1, s1);
            const int32_t c2 = second[0], s2 = second[1];
            edgec_butterfly(&a, &c, c2, s2);
            edgec_butterfly_on(&b, &d, c2, s2);
            z[0] = a;
            z[half] = b;
            z[2 * half] = c;
            z[3 * half] = d;
            first += 2 * step;
            second += step;
        }
    }
}
#endif

static void last_stage(edgec_complex *z, const int32_t *twiddles, int32_t half)
{
    EDGEC_KEEP_LOOP
    for (edgec_complex *const end = z + half; z != end; z++) {
        edgec_butterfly(z, z + half, twiddles[0], twiddles[1]);
        twiddles += 4;
    }
}

void edgec_front_end_transform(edgec_complex *z, const int32_t *twiddles, int32_t stages, int32_t shift)
{
    const int32_t points = (int32_t)1 << stages;
    first_stages(z, points, shift);
    int32_t half = 4;
    EDGEC_KEEP_LOOP
    for (; 2 * half < points; half *= 4) {
        edgec_front_end_two_stages(z, twiddles, points, half);
    }
    if (half < points) {
        last_stage(z, twiddles, half);
    }
}
