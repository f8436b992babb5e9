/* SPDX-License-Identifier: Apache-2.0 */
/* mul_s16 for cores with DSP instructions: a product, one multiplication to the upper word and one shift an element. */
#include "edgec_compiler.h"
#include "edgec_dsp.h"
#include "edgec_kernels.h"

/* A product is doubled `up` times, until at least one bit is left to go from the upper word. */
typedef struct {
    int32_t mult, a_base, b_base, up, addend, down, low, high, by_fours;
} product;

static inline int32_t load16(const int8_t *p)
{
    int16_t value;
    __builtin_memcpy(&value, p, sizeof value);
    return value;
}

static inline int32_t scaled(int32_t value, const product *p)
{
    return ((int32_t)(((int64_t)value * p->mult) >> 32) + p->addend) >> p->down;
}

/* Four elements of an operand, less its zero point: lanes of words, so that products are SMULBB and its like. */
static inline void load4(const int8_t *from, int32_t bytes, int32_t base, int32_t *values)
{
    const uint32_t first = edgec_load_word(from);
    if (bytes == 1) {
        const uint32_t bases = ((uint32_t)base & 0xFFFFu) * 0x10001u;
        const uint32_t even = edgec_sxtab16(bases, first);
        const uint32_t odd = edgec_sxtab16_ror8(bases, first);
        values[0] = (int16_t)even;
        values[1] = (int16_t)odd;
        values[2] = (int32_t)even >> 16;
        values[3] = (int32_t)odd >> 16;
    } else {
        const uint32_t second = edgec_load_word(from + 4);
        values[0] = (int16_t)first;
        values[1] = (int32_t)first >> 16;
        values[2] = (int16_t)second;
        values[3] = (int32_t)second >> 16;
    }
}

/* Operands of so many bytes to int16, four elements a turn; two operands of one byte may be doubled. */
static inline void multiply(const int8_t *a, const int8_t *b, int8_t *y, const int8_t *end, int32_t a_bytes,
                            int32_t b_bytes, const product *given)
{
    const product p = *given; /* in registers: a byte of y could be anything */
    EDGEC_KEEP_LOOP
    while (a != end) {
        int32_t left[4];
        int32_t right[4];
        load4(a, a_bytes, p.a_base, left);
        load4(b, b_bytes, p.b_base, right);
        for (int32_t i = 0; i < 4; i++) {
            const int32_t value = left[i] * right[i];
            const int32_t doubled = (int32_t)((uint32_t)value << p.up);
            const int16_t result = edgec_ssat16(scaled(a_bytes + b_bytes == 2 ? doubled : value, &p));
            __builtin_memcpy(y + 2 * i, &result, sizeof result);
        }
        a += 4 * a_bytes;
        b += 4 * b_bytes;
        y += 8;
    }
}

/* Functions of their own: the loops need all registers. */
__attribute__((noinline))
static void multiply_wide(const int8_t *a, const int8_t *b, int8_t *y, const int8_t *end, const product *p)
{
    multiply(a, b, y, end, 2, 2, p);
}

__attribute__((noinline))
static void multiply_mixed(const int8_t *a, const int8_t *b, int8_t *y, const int8_t *end, const product *p)
{
    multiply(a, b, y, end, 2, 1, p);
}

__attribute__((noinline))
static void multiply_narrow(const int8_t *a, const int8_t *b, int8_t *y, const int8_t *end, const product *p)
{
    multiply(a, b, y, end, 1, 1, p);
}

void edgec_mul_s16_dsp(const void *left, const void *right, const int32_t *constants, void *output, int32_t rows,
                       int32_t width, int32_t b_row_step, int32_t b_step, int32_t bytes)
{
    const int8_t *a = left;
    const int8_t *b = right;
    int8_t *y = output;
    const int32_t a_bytes = bytes & 3;
    const int32_t b_bytes = bytes >> 2 & 3;
    const int32_t y_bytes = bytes >> 4;
    product p;
    __builtin_memcpy(&p, constants, sizeof p); /* the library may have no string.h */
    for (; rows > 0; rows--) {
        const int8_t *const end = a + width * a_bytes;
        const int8_t *factor = b;
        if (p.by_fours != 0 && b_step != 0) {
            const int32_t taken = width & ~3;
            const int8_t *const fours = a + a_bytes * taken;
            if (a_bytes == 1) {
                multiply_narrow(a, factor, y, fours, &p);
            } else if (b_bytes == 1) {
                multiply_mixed(a, factor, y, fours, &p);
            } else {
                multiply_wide(a, factor, y, fours, &p);
            }
            a = fours;
            factor += b_bytes * taken;
            y += 2 * taken;
        }
        EDGEC_KEEP_LOOP
        for (; a != end; a += a_bytes) {
            const int32_t first = (a_bytes == 1 ? *a : load16(a)) + p.a_base;
            const int32_t second = (b_bytes == 1 ? *factor : load16(factor)) + p.b_base;
            int32_t value = scaled((int32_t)((uint32_t)(first * second) << p.up), &p);
            value = value < p.low ? p.low : value;
            const int16_t result = (int16_t)(value > p.high ? p.high : value);
            if (y_bytes == 1) {
                *y = (int8_t)result;
            } else {
                __builtin_memcpy(y, &result, sizeof result);
            }
            factor += b_step;
            y += y_bytes;
        }
        b += b_row_step;
    }
}
