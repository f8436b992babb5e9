/* SPDX-License-Identifier: Apache-2.0 */
/* dequantize_f32: four elements a turn where there is an FPU. */
#include "edgec_compiler.h"
#include "edgec_dsp.h"
#include "edgec_kernels.h"

void edgec_dequantize_f32_dsp(const void *x, const int32_t *params, float *y, int32_t n, int32_t x_bytes)
{
    const int32_t less_zero = -params[1];
    const int8_t *from = x;
    float scale;

    __builtin_memcpy(&scale, params, sizeof scale);
#if EDGEC_HAS_DSP && defined(__ARM_FP)
    uint32_t a, b, c, d, word;
#define SCALED                                      \
    "vmov    s0, s1, %[a], %[b]\n\t"                \
    "vmov    s2, s3, %[c], %[d]\n\t"                \
    "vcvt.f32.s32 s0, s0\n\t"                       \
    "vcvt.f32.s32 s1, s1\n\t"                       \
    "vcvt.f32.s32 s2, s2\n\t"                       \
    "vcvt.f32.s32 s3, s3\n\t"                       \
    "vmul.f32 s0, s0, %[scale]\n\t"                 \
    "vmul.f32 s1, s1, %[scale]\n\t"                 \
    "vmul.f32 s2, s2, %[scale]\n\t"                 \
    "vmul.f32 s3, s3, %[scale]\n\t"                 \
    "vstmia  %[y]!, {s0-s3}\n\t"                    \
    "subs    %[n], #4\n\t"                          \
    "bpl     1b"
#define OPERANDS                                                                                                \
    : [x] "+&r"(from), [y] "+&r"(y), [n] "+&r"(n), [a] "=&r"(a), [b] "=&r"(b), [c] "=&r"(c), [d] "=&r"(d),      \
      [word] "=&r"(word)                                                                                        \
    : [less_zero] "r"(less_zero), [scale] "t"(scale)                                                            \
    : "s0", "s1", "s2", "s3", "cc", "memory"
    if (n >= 4) {
        n -= 4;
        if (x_bytes == 1) {
            __asm__ volatile("1:\n\t"
                             "ldr     %[word], [%[x]], #4\n\t"
                             "sxtab   %[a], %[less_zero], %[word]\n\t"
                             "sxtab   %[b], %[less_zero], %[word], ror #8\n\t"
                             "sxtab   %[c], %[less_zero], %[word], ror #16\n\t"
                             "sxtab   %[d], %[less_zero], %[word], ror #24\n\t" SCALED OPERANDS);
        } else { /* without a zero point */
            __asm__ volatile("1:\n\t"
                             "ldr     %[b], [%[x]], #4\n\t"
                             "ldr     %[d], [%[x]], #4\n\t"
                             "sxth    %[a], %[b]\n\t"
                             "sxth    %[c], %[d]\n\t"
                             "asr     %[b], #16\n\t"
                             "asr     %[d], #16\n\t" SCALED OPERANDS);
        }
        n += 4;
    }
#undef SCALED
#undef OPERANDS
#endif
    EDGEC_KEEP_LOOP
    for (; n > 0; n--) {
        int32_t value = *from;
        if (x_bytes == 2) {
            int16_t wide;
            __builtin_memcpy(&wide, from, sizeof wide);
            value = wide;
        }
        *y++ = (float)(value + less_zero) * scale;
        from += x_bytes;
    }
}
