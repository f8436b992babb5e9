/* SPDX-License-Identifier: Apache-2.0 */
/* layer_norm_s16 for cores with DSP instructions: sums by pairs, one exact root and one exact quotient a row. */
#include "edgec_compiler.h"
#include "edgec_dsp.h"
#include "edgec_kernels.h"
#include "reciprocal_root.h"

enum { EPSILON_LOW, EPSILON_HIGH, POINT, SHIFT };

/* floor(2^61 / floor(sqrt(w))), for 2^60 <= w < 2^62: both from the same reciprocal root, which is within 1e-7; a step
 * of Newton for each leaves them a few units off, and these are counted. No division. */
static inline uint32_t row_ratio(uint64_t w)
{
    const uint32_t y = 2 * edgec_half_root((uint32_t)(w >> 30));
    uint32_t root = (uint32_t)(((w >> 30) * y) >> 31);
    int64_t rest = (int64_t)(w - (uint64_t)root * root);
    root += (uint32_t)(((rest >> 16) * (int64_t)y) >> 46);
    rest = (int64_t)(w - (uint64_t)root * root);
    EDGEC_KEEP_LOOP
    while (rest < 0) {
        root--;
        rest += 2 * (int64_t)root + 1;
    }
    EDGEC_KEEP_LOOP
    while (rest > 2 * (int64_t)root) {
        rest -= 2 * (int64_t)root + 1;
        root++;
    }
    uint32_t ratio = y;
    rest = ((int64_t)1 << 61) - (int64_t)((uint64_t)ratio * root);
    ratio += (uint32_t)(((rest >> 16) * (int64_t)y) >> 45);
    rest = ((int64_t)1 << 61) - (int64_t)((uint64_t)ratio * root);
    EDGEC_KEEP_LOOP
    while (rest < 0) {
        ratio--;
        rest += root;
    }
    EDGEC_KEEP_LOOP
    while (rest >= (int64_t)root) {
        ratio++;
        rest -= root;
    }
    return ratio;
}

/* y = sat8(((((x * step + base) * ratio / 2^32 + half) >> down) * gain + offset) >> shift). */
typedef struct {
    uint32_t step, base;
    int32_t ratio, half, down, shift;
} row_scale;

static inline int8_t normalized(int32_t x, const row_scale *row, int32_t gain, int32_t offset)
{
    const int32_t centred = (int32_t)((uint32_t)x * row->step + row->base); /* modulo 2^32 on the way */
    const int32_t high = (int32_t)(((int64_t)centred * row->ratio) >> 32);
    return edgec_ssat8((((high + row->half) >> row->down) * gain + offset) >> row->shift);
}

#if EDGEC_HAS_DSP
/* Elements up to `end`, whole pairs and at least one; row->step has 16 bits. Returns the end of what was written. */
__attribute__((noinline))
static int8_t *normalize_pairs(const int8_t *x, const int8_t *end, const row_scale *row, const int32_t *affine,
                               int8_t *y)
{
    uint32_t word, first, gain, offset;
    __asm__ volatile("1:\n\t"
                     "ldr     %[word], [%[x]], #4\n\t"
                     "smlabb  %[first], %[word], %[step], %[base]\n\t"
                     "smlatb  %[word], %[word], %[step], %[base]\n\t"
                     "ldrd    %[gain], %[offset], [%[affine]], #16\n\t"
                     "smmla   %[first], %[first], %[ratio], %[half]\n\t"
                     "smmla   %[word], %[word], %[ratio], %[half]\n\t"
                     "asr     %[first], %[first], %[down]\n\t"
                     "mla     %[first], %[first], %[gain], %[offset]\n\t"
                     "ldrd    %[gain], %[offset], [%[affine], #-8]\n\t"
                     "asr     %[word], %[word], %[down]\n\t"
                     "asr     %[first], %[first], %[shift]\n\t"
                     "mla     %[word], %[word], %[gain], %[offset]\n\t"
                     "ssat    %[first], #8, %[first]\n\t"
                     "asr     %[word], %[word], %[shift]\n\t"
                     "strb    %[first], [%[y]], #2\n\t"
                     "ssat    %[word], #8, %[word]\n\t"
                     "strb    %[word], [%[y], #-1]\n\t"
                     "cmp     %[x], %[end]\n\t"
                     "bne     1b"
                     : [x] "+&r"(x), [y] "+&r"(y), [affine] "+&r"(affine), [word] "=&r"(word), [first] "=&r"(first),
                       [gain] "=&r"(gain), [offset] "=&r"(offset)
                     : [end] "r"(end), [step] "r"(row->step), [base] "r"(row->base), [ratio] "r"(row->ratio),
                       [half] "r"(row->half), [down] "r"(row->down), [shift] "r"(row->shift)
                     : "cc", "memory");
    return y;
}
#endif

/* The elements up to `end` one by one. */
__attribute__((noinline))
static int8_t *normalize(const int8_t *x, const int8_t *end, const row_scale *scale, const int32_t *affine, int8_t *y)
{
    const row_scale row = *scale; /* in registers: a byte of y could be anything */
    EDGEC_KEEP_LOOP
    for (; x != end; x += 2) {
        int16_t value;
        __builtin_memcpy(&value, x, sizeof value);
        *y++ = normalized(value, &row, affine[0], affine[1]);
        affine += 2;
    }
    return y;
}

void edgec_layer_norm_s16_dsp(const int16_t *input, const int32_t *affine, const int32_t *constants, int8_t *y,
                              int32_t rows, int32_t width)
{
    const int8_t *x = (const int8_t *)input;
    const uint64_t epsilon = ((uint64_t)(uint32_t)constants[EPSILON_HIGH] << 31) + (uint32_t)constants[EPSILON_LOW];
    for (; rows > 0; rows--) {
        int64_t squares = 0;
        int32_t total = 0;
        const int8_t *p = x;
        EDGEC_UNROLL_TWICE
        for (int32_t pairs = width >> 1; pairs > 0; pairs--) {
            const uint32_t word = edgec_load_word(p);
            total = (int32_t)edgec_smlad(word, 0x00010001u, (uint32_t)total);
            squares = edgec_smlald(word, word, squares);
            p += 4;
        }
        if ((width & 1) != 0) {
            int16_t last;
            __builtin_memcpy(&last, p, sizeof last);
            total += last;
            squares += (int32_t)last * last;
        }
        const uint64_t variance = (uint64_t)(width * squares - (int64_t)total * total) + epsilon;
        const int32_t bits = 64 - __builtin_clzll(variance);
        const int32_t doublings = (62 - bits) >> 1; /* of the root, to [2^30, 2^31) */
        uint32_t ratio = row_ratio(variance << (2 * doublings));
        /* The upper word of a product has lost 32 of the bits that go, but for one that rounds. */
        const int32_t gone = 61 - doublings - constants[POINT];
        const int32_t down = gone > 33 ? gone - 32 : 1;
        int32_t up = 32 + down - gone;
        if (ratio >> 31 != 0) { /* 2^31: a root of 2^30 */
            ratio >>= 1;
            up++;
        }
        const row_scale scale = {(uint32_t)width << up, 0u - ((uint32_t)total << up), (int32_t)ratio, 1 << (down - 1), down,
                                 constants[SHIFT]};
        const int8_t *const end = x + 2 * width;
        const int32_t *factors = affine;
#if EDGEC_HAS_DSP
        const int32_t pairs = width >> 1;
        if (scale.step < 1u << 15 && pairs != 0) { /* unless the deviation is a few steps at most */
            y = normalize_pairs(x, x + 4 * pairs, &scale, factors, y);
            x += 4 * pairs;
            factors += 4 * pairs;
        }
#endif
        y = normalize(x, end, &scale, factors, y);
        x = end;
    }
}
