/* SPDX-License-Identifier: Apache-2.0 */
/* requantize_s16 for cores with DSP instructions: one multiplication to the upper word and one shift an element. */
#include "edgec_compiler.h"
#include "edgec_dsp.h"
#include "edgec_kernels.h"

typedef struct {
    int32_t step, base, mult, addend, down, low, high;
} requantization;

static inline int32_t load16(const int8_t *p)
{
    int16_t value;
    __builtin_memcpy(&value, p, sizeof value);
    return value;
}

static inline int32_t requantized(int32_t x, const requantization *r)
{
    const int32_t high = (int32_t)(((int64_t)(x * r->step + r->base) * r->mult) >> 32);
    int32_t y = (high + r->addend) >> r->down;
    y = y < r->low ? r->low : y;
    return y > r->high ? r->high : y;
}

void edgec_requantize_s16_dsp(const void *input, const int32_t *constants, void *output, int32_t n, int32_t x_bytes,
                              int32_t y_bytes)
{
    const int8_t *x = input;
    int8_t *y = output;
    requantization r;
    __builtin_memcpy(&r, constants, sizeof r); /* the library may have no string.h */
    const int8_t *const end = x + n * x_bytes;
    if (x_bytes == 1) {
        EDGEC_KEEP_LOOP
        for (; x != end; y += 2) {
            const int16_t value = (int16_t)requantized(*x++, &r);
            __builtin_memcpy(y, &value, sizeof value);
        }
    } else if (y_bytes == 1) {
        EDGEC_KEEP_LOOP
        for (; x != end; x += 2) {
            *y++ = (int8_t)requantized(load16(x), &r);
        }
    } else {
        EDGEC_KEEP_LOOP
        for (; x != end; x += 2) {
            const int16_t value = (int16_t)requantized(load16(x), &r);
            __builtin_memcpy(y, &value, sizeof value);
            y += 2;
        }
    }
}
