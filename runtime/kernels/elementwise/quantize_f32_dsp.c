/* SPDX-License-Identifier: Apache-2.0 */
/* quantize_f32: four elements a turn where there is an FPU, but for those with a NaN among them. */
#include "edgec_compiler.h"
#include "edgec_dsp.h"
#include "edgec_kernels.h"

/* 1.5 * 2^23 + n is 0x4B400000 + n as bits, rounded to the nearest n, halves to even. */
static const float NO_FRACTION = 12582912.0F;

#if EDGEC_HAS_DSP && defined(__ARM_FP)
/* VCVTR rounds halves to even and saturates; it makes 0 of NaN, which any sum with a NaN tells. */
#define ROUNDED                      \
    "1:\n\t"                         \
    "vldmia  %[x]!, {s0-s3}\n\t"     \
    "vdiv.f32 s0, s0, %[scale]\n\t"  \
    "vdiv.f32 s1, s1, %[scale]\n\t"  \
    "vdiv.f32 s2, s2, %[scale]\n\t"  \
    "vdiv.f32 s3, s3, %[scale]\n\t"  \
    "vadd.f32 s4, s0, s1\n\t"        \
    "vadd.f32 s5, s2, s3\n\t"        \
    "vadd.f32 s4, s4, s5\n\t"        \
    "vcmp.f32 s4, s4\n\t"            \
    "vmrs    APSR_nzcv, fpscr\n\t"   \
    "bvs     2f\n\t"                 \
    "vcvtr.s32.f32 s0, s0\n\t"       \
    "vcvtr.s32.f32 s1, s1\n\t"       \
    "vcvtr.s32.f32 s2, s2\n\t"       \
    "vcvtr.s32.f32 s3, s3\n\t"       \
    "vmov    %[a], %[b], s0, s1\n\t" \
    "vmov    %[c], %[d], s2, s3\n\t"
#define NEXT                  \
    "subs    %[n], #4\n\t"    \
    "bpl     1b\n\t"          \
    "b       3f\n\t"          \
    "2:\n\t"                  \
    "sub     %[x], #16\n\t"   \
    "3:"
#define OPERANDS                                                                                            \
    : [x] "+&r"(x), [y] "+&r"(y), [n] "+&r"(n), [a] "=&r"(a), [b] "=&r"(b), [c] "=&r"(c), [d] "=&r"(d)      \
    : [scale] "t"(scale), [zero_point] "r"(zero_point)                                                      \
    : "s0", "s1", "s2", "s3", "s4", "s5", "cc", "memory"
#define TO_BYTE(r)                            \
    "qadd    " r ", " r ", %[zero_point]\n\t" \
    "ssat    " r ", #8, " r "\n\t"            \
    "strb    " r ", [%[y]], #1\n\t"
#define TO_HALF(r)                  \
    "ssat    " r ", #16, " r "\n\t" \
    "strh    " r ", [%[y]], #2\n\t"
#endif

void edgec_quantize_f32_dsp(const float *x, const int32_t *params, int8_t *y, int32_t n, int32_t y_bytes)
{
    float scale, low, high;
    const int32_t zero_point = params[3];

    __builtin_memcpy(&scale, params, sizeof scale);
    __builtin_memcpy(&low, params + 1, sizeof low);
    __builtin_memcpy(&high, params + 2, sizeof high);
    while (n > 0) {
#if EDGEC_HAS_DSP && defined(__ARM_FP)
        if (n >= 4) {
            int32_t a, b, c, d;
            n -= 4;
            if (y_bytes == 1) {
                __asm__ volatile(ROUNDED TO_BYTE("%[a]") TO_BYTE("%[b]") TO_BYTE("%[c]") TO_BYTE("%[d]") NEXT OPERANDS);
            } else { /* without a zero point */
                __asm__ volatile(ROUNDED TO_HALF("%[a]") TO_HALF("%[b]") TO_HALF("%[c]") TO_HALF("%[d]") NEXT OPERANDS);
            }
            n += 4;
        }
#endif
        EDGEC_KEEP_LOOP
        for (int32_t end = n > 4 ? n - 4 : 0; n > end; n--) {
            const float steps = *x++ / scale;
            const float above = steps > low ? steps : low; /* NaN is not above anything */
            const float rounded = (above < high ? above : high) + NO_FRACTION;
            uint32_t bits;
            __builtin_memcpy(&bits, &rounded, sizeof bits);
            bits += (uint32_t)zero_point;
            y[0] = (int8_t)bits;
            if (y_bytes == 2) {
                y[1] = (int8_t)(bits >> 8);
            }
            y += y_bytes;
        }
    }
}
