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
    const uint32_t y = edgec_root_estimate((uint32_t)(w >> 30));
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

/* Where gain and offset of a row's elements are, and what is shared. y may be x. */
static int8_t *normalize(const int8_t *x, int32_t pairs, int32_t odd, const row_scale *scale, const int32_t *affine,
                         int8_t *y)
{
    const row_scale row = *scale; /* in registers: a byte of y could be anything */
    EDGEC_KEEP_LOOP
    for (; pairs > 0; pairs--) {
        const uint32_t word = edgec_load_word(x);
        const int8_t first = normalized(edgec_lane0(word), &row, affine[0], affine[1]);
        const int8_t second = normalized(edgec_lane1(word), &row, affine[2], affine[3]);
        y[0] = first;
        y[1] = second;
        x += 4;
        affine += 4;
        y += 2;
    }
    if (odd != 0) {
        int16_t last;
        __builtin_memcpy(&last, x, sizeof last);
        *y++ = normalized(last, &row, affine[0], affine[1]);
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
        y = normalize(x, width >> 1, width & 1, &scale, affine, y);
        x += 2 * width;
    }
}
