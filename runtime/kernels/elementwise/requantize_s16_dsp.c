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

static inline int32_t scaled(int32_t x, const requantization *r)
{
    const int32_t doubled = edgec_smlabb((uint32_t)x, (uint32_t)r->step, r->base);
    return ((int32_t)(((int64_t)doubled * r->mult) >> 32) + r->addend) >> r->down;
}

static inline void store16(int8_t *y, int16_t value) { __builtin_memcpy(y, &value, sizeof value); }

/* Limits of the type of y are SSAT's. */
static void any_limits(const int8_t *x, int8_t *y, const int8_t *end, int32_t x_bytes, int32_t y_bytes,
                       const requantization *from)
{
    const requantization r = *from; /* in registers: a byte of y could be anything */
    EDGEC_KEEP_LOOP
    for (; x != end; x += x_bytes) {
        int32_t value = scaled(x_bytes == 1 ? *x : load16(x), &r);
        value = value < r.low ? r.low : value;
        value = value > r.high ? r.high : value;
        if (y_bytes == 1) {
            *y = (int8_t)value;
        } else {
            store16(y, (int16_t)value);
        }
        y += y_bytes;
    }
}

void edgec_requantize_s16_dsp(const void *input, const int32_t *constants, void *output, int32_t n, int32_t x_bytes,
                              int32_t y_bytes)
{
    const int8_t *x = input;
    int8_t *y = output;
    requantization r;
    __builtin_memcpy(&r, constants, sizeof r); /* the library may have no string.h */
    const int8_t *const end = x + n * x_bytes;
    if (r.high - r.low != (y_bytes == 1 ? UINT8_MAX : UINT16_MAX)) {
        any_limits(x, y, end, x_bytes, y_bytes, &r);
    } else if (x_bytes == 1) {
        EDGEC_UNROLL_TWICE
        for (; x != end; y += 2) {
            store16(y, edgec_ssat16(scaled(*x++, &r)));
        }
    } else if (y_bytes == 1) {
        EDGEC_UNROLL_TWICE
        for (; x != end; x += 2) {
            *y++ = edgec_ssat8(scaled(load16(x), &r));
        }
    } else {
        EDGEC_UNROLL_TWICE
        for (; x != end; x += 2) {
            store16(y, edgec_ssat16(scaled(load16(x), &r)));
            y += 2;
        }
    }
}
