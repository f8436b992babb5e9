/* SPDX-License-Identifier: Apache-2.0 */
/* mul_s8 for cores with DSP instructions, narrow and without a shift: four elements a turn. */
#include "edgec_compiler.h"
#include "edgec_dsp.h"
#include "edgec_kernels.h"

enum { A_ZERO_POINT, B_ZERO_POINT, DOUBLE_MULT, ZERO_POINT };

#if EDGEC_HAS_DSP
/* SXTAB16, and with ROR #8: bytes 0 and 2, or 1 and 3, sign-extended and added to lanes. */
static inline uint32_t add_even(uint32_t lanes, uint32_t bytes)
{
    return (uint32_t)__sxtab16((int16x2_t)lanes, (int8x4_t)bytes);
}
static inline uint32_t add_odd(uint32_t lanes, uint32_t bytes)
{
    return (uint32_t)__sxtab16((int16x2_t)lanes, (int8x4_t)(bytes >> 8 | bytes << 24));
}
#endif

void edgec_mul_s8_dsp(const int8_t *a, const int8_t *b, const int32_t *constants, int8_t *y, int32_t rows,
                      int32_t width, int32_t b_row_step, int32_t b_step)
{
    const int32_t a_zero_point = constants[A_ZERO_POINT];
    const int32_t b_zero_point = constants[B_ZERO_POINT];
    const int32_t mult = constants[DOUBLE_MULT];
    const int32_t zero_point = constants[ZERO_POINT];
    for (; rows > 0; rows--) {
        const int8_t *const end = a + width;
        const int8_t *factor = b;
#if EDGEC_HAS_DSP
        if (b_step != 0) {
            const uint32_t a_lanes = ((uint32_t)-a_zero_point & 0xFFFFu) * 0x10001u;
            const uint32_t b_lanes = ((uint32_t)-b_zero_point & 0xFFFFu) * 0x10001u;
            const int8_t *const words_end = a + (width & ~3);
            EDGEC_KEEP_LOOP
            while (a != words_end) {
                const uint32_t left = edgec_load_word(a);
                const uint32_t right = edgec_load_word(factor);
                const uint32_t left_even = add_even(a_lanes, left), left_odd = add_odd(a_lanes, left);
                const uint32_t right_even = add_even(b_lanes, right), right_odd = add_odd(b_lanes, right);
                a += 4;
                factor += 4;
                y += 4;
                y[-4] = edgec_ssat8(edgec_smmlar(edgec_smlabb(left_even, right_even, 0), mult, zero_point));
                y[-3] = edgec_ssat8(edgec_smmlar(edgec_smlabb(left_odd, right_odd, 0), mult, zero_point));
                y[-2] = edgec_ssat8(edgec_smmlar(edgec_smlatt(left_even, right_even, 0), mult, zero_point));
                y[-1] = edgec_ssat8(edgec_smmlar(edgec_smlatt(left_odd, right_odd, 0), mult, zero_point));
            }
        }
#endif
        EDGEC_KEEP_LOOP
        while (a != end) {
            const int32_t product = (*a++ - a_zero_point) * (*factor - b_zero_point);
            factor += b_step;
            *y++ = edgec_ssat8(edgec_smmlar(product, mult, zero_point));
        }
        b += b_row_step;
    }
}
