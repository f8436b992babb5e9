/* SPDX-License-Identifier: Apache-2.0 */
/* layer_norm_s8 and rms_norm_s8 for cores with DSP instructions: eight elements a turn, one exact root a row. */
#include "edgec_compiler.h"
#include "edgec_dsp.h"
#include "edgec_kernels.h"
#include "reciprocal_root.h"

enum { EPSILON, SHIFT, STEP, LOWER, LATER, LIMIT, ABOUT_MEAN, ZERO_POINT };

/* What elements of a row share: y = sat8((round((x * step + base) * ratio / 2^32) * gain + offset) >> shift). */
typedef struct {
    int32_t step, base, ratio, shift;
} row_scale;

typedef struct {
    const int8_t *x;
    const int32_t *affine;
    int8_t *y;
} position;

static inline int8_t normalized(int32_t x, const row_scale *row, const int32_t *affine)
{
    return edgec_ssat8((edgec_smmulr(x * row->step + row->base, row->ratio) * affine[0] + affine[1]) >> row->shift);
}

#if EDGEC_HAS_DSP
/* Turns take two words of x; an odd number of words begins with the second. `spare` is any register. */
#define TWO_WORDS(spare, word)                       \
    "sub     " spare ", %[end], %[x]\n\t"            \
    "tst     " spare ", #4\n\t"                      \
    "bne     2f\n"                                   \
    "1:\n\t" word "2:\n\t" word "cmp %[x], %[end]\n\t" \
    "bne     1b"

/* Sum and sum of squares of the elements up to `end`, whole words and at least one. */
static inline const int8_t *add_words(const int8_t *x, const int8_t *end, int32_t *total, int32_t *squares)
{
    uint32_t even, odd;
    __asm__ volatile(TWO_WORDS("%[odd]", "ldr     %[odd], [%[x]], #4\n\t"
                                         "sxtb16  %[even], %[odd]\n\t"
                                         "sxtb16  %[odd], %[odd], ror #8\n\t"
                                         "smlad   %[squares], %[even], %[even], %[squares]\n\t"
                                         "smlad   %[total], %[even], %[ones], %[total]\n\t"
                                         "smlad   %[squares], %[odd], %[odd], %[squares]\n\t"
                                         "smlad   %[total], %[odd], %[ones], %[total]\n\t")
                     : [x] "+&r"(x), [total] "+&r"(*total), [squares] "+&r"(*squares), [even] "=&r"(even),
                       [odd] "=&r"(odd)
                     : [end] "r"(end), [ones] "r"(0x00010001u)
                     : "cc", "memory");
    return x;
}

/* Elements up to `end`, whole words and at least one; row->step has 16 bits. Elements 0 and 2, then 1 and 3 side by
 * side, so that neither waits for the other. */
static inline void normalize_words(position *at, const int8_t *end, const row_scale *row)
{
    uint32_t even, odd, first, gain, offset;
#define TWO_LANES(lanes, affine_0, affine_1, y_0, y_1)     \
    "smlabb  %[first], " lanes ", %[step], %[base]\n\t"    \
    "smlatb  " lanes ", " lanes ", %[step], %[base]\n\t"   \
    "ldrd    %[gain], %[offset], " affine_0 "\n\t"         \
    "smmulr  %[first], %[first], %[ratio]\n\t"             \
    "smmulr  " lanes ", " lanes ", %[ratio]\n\t"           \
    "mla     %[first], %[first], %[gain], %[offset]\n\t"   \
    "ldrd    %[gain], %[offset], " affine_1 "\n\t"         \
    "asr     %[first], %[first], %[shift]\n\t"             \
    "mla     " lanes ", " lanes ", %[gain], %[offset]\n\t" \
    "ssat    %[first], #8, %[first]\n\t"                   \
    "asr     " lanes ", " lanes ", %[shift]\n\t"           \
    "strb    %[first], " y_0 "\n\t"                        \
    "ssat    " lanes ", #8, " lanes "\n\t"                 \
    "strb    " lanes ", " y_1 "\n\t"
    __asm__ volatile(
        TWO_WORDS("%[odd]", "ldr     %[odd], [%[x]], #4\n\t"
                            "sxtb16  %[even], %[odd]\n\t"
                            "sxtb16  %[odd], %[odd], ror #8\n\t"
                            TWO_LANES("%[even]", "[%[affine]], #32", "[%[affine], #-16]", "[%[y]], #4", "[%[y], #-2]")
                            TWO_LANES("%[odd]", "[%[affine], #-24]", "[%[affine], #-8]", "[%[y], #-3]", "[%[y], #-1]"))
        : [x] "+&r"(at->x), [y] "+&r"(at->y), [affine] "+&r"(at->affine), [even] "=&r"(even), [odd] "=&r"(odd),
          [first] "=&r"(first), [gain] "=&r"(gain), [offset] "=&r"(offset)
        : [end] "r"(end), [step] "r"(row->step), [base] "r"(row->base), [ratio] "r"(row->ratio),
          [shift] "r"(row->shift)
        : "cc", "memory");
#undef TWO_LANES
}
#endif

void edgec_norm_s8_dsp(const int8_t *x, const int32_t *affine, const int32_t *constants, int8_t *y, int32_t rows,
                       int32_t width)
{
    position at = {x, affine, y};
    for (; rows > 0; rows--) {
        const int8_t *const end = at.x + width;
        int32_t total = 0;
        int32_t squares = 0;
        const int8_t *p = at.x;
#if EDGEC_HAS_DSP
        const int8_t *const words_end = p + (width & ~3);
        p = add_words(p, words_end, &total, &squares);
#endif
        EDGEC_KEEP_LOOP
        for (; p != end; p++) {
            total += *p;
            squares += *p * *p;
        }
        uint64_t variance;
        if (constants[ABOUT_MEAN] != 0) {
            variance = (uint64_t)((int64_t)width * squares - (int64_t)total * total);
        } else {
            const int32_t zero_point = constants[ZERO_POINT];
            squares += zero_point * (width * zero_point - 2 * total);
            variance = (uint64_t)width * (uint32_t)squares;
            total = width * zero_point;
        }
        variance += (uint32_t)constants[EPSILON];
        uint32_t ratio = 0; /* without a variance every centred value is 0 */
        if (variance != 0) {
            ratio = edgec_reciprocal_root(variance);
        }
        /* The centred value is doubled before, as far as step has 16 bits, and `later` times with the ratio. */
        const int32_t later = constants[LATER];
        row_scale row = {constants[STEP], total * constants[LOWER], (int32_t)(ratio << later), constants[SHIFT]};
        at.affine = affine;
        if (ratio >= (uint32_t)constants[LIMIT]) { /* a deviation of about one step or less: all before */
            row.step <<= later;
            row.base *= 1 << later;
            row.ratio = (int32_t)ratio;
        }
#if EDGEC_HAS_DSP
        else {
            normalize_words(&at, words_end, &row);
        }
#endif
        EDGEC_KEEP_LOOP
        for (; at.x != end; at.affine += 2) {
            *at.y++ = normalized(*at.x++, &row, at.affine);
        }
    }
}
