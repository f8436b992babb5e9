/* SPDX-License-Identifier: Apache-2.0 */
/* add_s16 for cores with DSP instructions: both products in one 64-bit sum, of which the upper word is kept. */
#include "edgec_compiler.h"
#include "edgec_dsp.h"
#include "edgec_kernels.h"

/* Operands are doubled `up` times, so that at least one bit is left to go from the upper word. */
typedef struct {
    int32_t a_mult, b_mult, a_step, b_step, a_base, b_base, addend, down, low, high;
} addition;

static inline int32_t load16(const int8_t *p)
{
    int16_t value;
    __builtin_memcpy(&value, p, sizeof value);
    return value;
}

static int32_t sum_of(int32_t a, int32_t b, const addition *s)
{
    const int64_t left = (int64_t)(a * s->a_step + s->a_base) * s->a_mult;
    const int64_t sum = left + (int64_t)(b * s->b_step + s->b_base) * s->b_mult;
    return ((int32_t)(sum >> 32) + s->addend) >> s->down;
}

/* a int16 and b of `b_bytes` to int16: a pair of a in a word, whose halves are taken 2^16 times. */
static inline void add_pairs(const int8_t *a, const int8_t *b, int8_t *y, const int8_t *end, int32_t b_bytes,
                             const addition *sum)
{
    const addition s = *sum; /* in registers: a byte of y could be anything */
    EDGEC_KEEP_LOOP
    while (a != end) {
        const uint32_t word = edgec_load_word(a);
        const int32_t b0 = b_bytes == 1 ? b[0] * s.b_step + s.b_base : (int32_t)(edgec_load_word(b) << 16);
        const int32_t b1 = b_bytes == 1 ? b[1] * s.b_step + s.b_base : (int32_t)(edgec_load_word(b) >> 16 << 16);
        const int64_t low = (int64_t)(int32_t)(word << 16) * s.a_mult + (int64_t)b0 * s.b_mult;
        const int64_t high = (int64_t)(int32_t)(word >> 16 << 16) * s.a_mult + (int64_t)b1 * s.b_mult;
        const int16_t first = edgec_ssat16(((int32_t)(low >> 32) + s.addend) >> s.down);
        const int16_t second = edgec_ssat16(((int32_t)(high >> 32) + s.addend) >> s.down);
        __builtin_memcpy(y, &first, sizeof first);
        __builtin_memcpy(y + 2, &second, sizeof second);
        a += 4;
        b += 2 * b_bytes;
        y += 4;
    }
}

/* Functions of their own: the loops need all registers. */
__attribute__((noinline))
static void add_int16(const int8_t *a, const int8_t *b, int8_t *y, const int8_t *end, const addition *sum)
{
    add_pairs(a, b, y, end, 2, sum);
}

__attribute__((noinline))
static void add_int8(const int8_t *a, const int8_t *b, int8_t *y, const int8_t *end, const addition *sum)
{
    add_pairs(a, b, y, end, 1, sum);
}

void edgec_add_s16_dsp(const void *left, const void *right, const int32_t *constants, void *output, int32_t rows,
                       int32_t width, int32_t b_row_step, int32_t b_step, int32_t bytes)
{
    const int8_t *a = left;
    const int8_t *b = right;
    int8_t *y = output;
    const int32_t a_bytes = bytes & 3;
    const int32_t b_bytes = bytes >> 2 & 3;
    const int32_t y_bytes = bytes >> 4;
    addition s;
    __builtin_memcpy(&s, constants, sizeof s); /* the library may have no string.h */
    for (; rows > 0; rows--) {
        const int8_t *const end = a + width * a_bytes;
        const int8_t *addend = b;
        if (a_bytes + y_bytes == 4 && s.a_step == 1 << 16 && b_step != 0) {
            const int32_t pairs = width >> 1;
            if (b_bytes == 1) {
                add_int8(a, addend, y, a + 4 * pairs, &s);
            } else {
                add_int16(a, addend, y, a + 4 * pairs, &s);
            }
            a += 4 * pairs;
            addend += 2 * b_bytes * pairs;
            y += 4 * pairs;
        }
        EDGEC_KEEP_LOOP
        for (; a != end; a += a_bytes) {
            const int32_t first = a_bytes == 1 ? *a : load16(a);
            const int32_t second = b_bytes == 1 ? *addend : load16(addend);
            int32_t sum = sum_of(first, second, &s);
            sum = sum < s.low ? s.low : sum;
            const int16_t result = (int16_t)(sum > s.high ? s.high : sum);
            if (y_bytes == 1) {
                *y = (int8_t)result;
            } else {
                __builtin_memcpy(y, &result, sizeof result);
            }
            addend += b_step;
            y += y_bytes;
        }
        b += b_row_step;
    }
}
