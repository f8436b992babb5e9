/* SPDX-License-Identifier: Apache-2.0 */
/* add_s8 for cores with DSP instructions: a pair of elements in the lanes of one multiplication. */
#include "edgec_compiler.h"
#include "edgec_dsp.h"
#include "edgec_kernels.h"

#if EDGEC_HAS_DSP
#define EDGEC_TEXT(value) EDGEC_TEXT_OF(value)
#define EDGEC_TEXT_OF(value) #value

/* Whole words of a up to `end`, at least one. SSAT takes no shift but a constant one. */
static inline int8_t *add_words(const int8_t *a, const int8_t *b, int8_t *y, const int8_t *end, uint32_t mults,
                                int32_t offset)
{
    uint32_t left, right, low, high;
#define SSAT(register) "ssat    " register ", #8, " register ", asr #" EDGEC_TEXT(EDGEC_ADD_SHIFT) "\n\t"
#define WORD                                                                                             \
    "ldr     %[left], [%[a]], #4\n\t"                                                                    \
    "ldr     %[right], [%[b]], #4\n\t"                                                                   \
    "pkhbt   %[low], %[left], %[right], lsl #16\n\t"    /* elements 0 and 1 of both */                   \
    "pkhtb   %[right], %[right], %[left], asr #16\n\t" /* 2 and 3 */                                     \
    "sxtb16  %[left], %[low]\n\t"                                                                        \
    "sxtb16  %[low], %[low], ror #8\n\t"                                                                 \
    "sxtb16  %[high], %[right]\n\t"                                                                      \
    "smlad   %[left], %[left], %[mults], %[offset]\n\t"                                                  \
    "sxtb16  %[right], %[right], ror #8\n\t"                                                             \
    "smlad   %[low], %[low], %[mults], %[offset]\n\t"                                                    \
    "smlad   %[high], %[high], %[mults], %[offset]\n\t" SSAT("%[left]")                                  \
    "smlad   %[right], %[right], %[mults], %[offset]\n\t"                                                \
    "strb    %[left], [%[y]], #4\n\t" SSAT("%[low]") SSAT("%[high]")                                      \
    "strb    %[low], [%[y], #-3]\n\t" SSAT("%[right]")                                                   \
    "strb    %[high], [%[y], #-2]\n\t"                                                                   \
    "strb    %[right], [%[y], #-1]\n\t"
    /* Two words a turn; an odd number of words begins with the second. */
    __asm__ volatile("sub     %[left], %[end], %[a]\n\t"
                     "tst     %[left], #4\n\t"
                     "bne     2f\n"
                     "1:\n\t" WORD "2:\n\t" WORD "cmp     %[a], %[end]\n\t"
                     "bne     1b"
                     : [a] "+&r"(a), [b] "+&r"(b), [y] "+&r"(y), [left] "=&r"(left), [right] "=&r"(right),
                       [low] "=&r"(low), [high] "=&r"(high)
                     : [end] "r"(end), [mults] "r"(mults), [offset] "r"(offset)
                     : "cc", "memory");
#undef WORD
#undef SSAT
    return y;
}
#endif

EDGEC_MINSIZE /* the work is in add_words */
void edgec_add_s8_dsp(const int8_t *a, const int8_t *b, const int32_t *constants, int8_t *y, int32_t rows,
                      int32_t width, int32_t b_row_step, int32_t b_step)
{
    const uint32_t mults = (uint32_t)constants[0];
    const int32_t offset = constants[1];
    const int32_t shift = constants[2];
    for (; rows > 0; rows--) {
        const int8_t *const end = a + width;
        const int8_t *addend = b;
#if EDGEC_HAS_DSP
        const int32_t words = width & ~3;
        if (shift == EDGEC_ADD_SHIFT && b_step != 0 && words != 0) {
            y = add_words(a, addend, y, a + words, mults, offset);
            a += words;
            addend += words;
        }
#endif
        EDGEC_KEEP_LOOP
        while (a != end) {
            const int32_t right = edgec_smlabb((uint32_t)*addend, mults >> 16, offset);
            const int32_t sum = edgec_smlabb((uint32_t)*a++, mults, right);
            addend += b_step;
            *y++ = edgec_ssat8(sum >> shift);
        }
        b += b_row_step;
    }
}
