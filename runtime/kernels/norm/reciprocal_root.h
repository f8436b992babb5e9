/* SPDX-License-Identifier: Apache-2.0 */
/* The exact reciprocal square root behind the normalizations, without a division and without an FPU. */
#ifndef EDGEC_RECIPROCAL_ROOT_H
#define EDGEC_RECIPROCAL_ROOT_H

#include <stdint.h>

#include "edgec_compiler.h"

static inline uint32_t edgec_high_word(uint32_t a, uint32_t b) { return (uint32_t)(((uint64_t)a * b) >> 32); }

/* Half of y = 1 / sqrt(m), 30 bits behind its point, for m in [1/4, 1) as a fraction of 32 bits; within 1e-7.
 *
 * Three Newton steps y = y * (3 - m * y^2) / 2 from the line 2.1406 - 1.2188 * m (off by at most 9.2 %). */
static inline uint32_t edgec_half_root(uint32_t m)
{
    uint32_t y = 0x89000000u - edgec_high_word(0x4E000000u, m);
    uint32_t half = 0;
    for (int32_t i = 0; i < 3; i++) {
        const uint32_t square = edgec_high_word(y, y); /* 28 bits behind the point */
        half = edgec_high_word(y, (3u << 30) - 4 * edgec_high_word(square, m));
        y = 2 * half;
    }
    return half;
}

/* floor(2^30 / sqrt(v)), exactly, for 1 <= v < 2^42.
 *
 * The root of m = v * 4^k, cut to an integer not above the result, is counted up to it: by 1 or 2 from v = 2^16 on, by
 * about 100 for v = 1. */
static inline uint32_t edgec_reciprocal_root(uint64_t v)
{
    const uint32_t high = (uint32_t)(v >> 32);
    uint32_t m = (uint32_t)v;
    uint32_t down = 15; /* 31 - k */
    if (high != 0) {
        const uint32_t up = (uint32_t)__builtin_clz(high) & ~1u; /* 22 to 30 */
        m = high << up | m >> (32 - up);
        down = 31 - up / 2;
    } else {
        const uint32_t up = (uint32_t)__builtin_clz(m) & ~1u;
        m <<= up;
        down -= up / 2;
    }
    const uint32_t half = edgec_half_root(m);
    uint32_t root = (half - 8) >> down;
    uint64_t rest = (1ull << 60) - (uint64_t)root * root * v; /* not negative */
    uint64_t step = (uint64_t)(2 * root + 1) * v;                   /* (root + 1)^2 - root^2, times v */
    EDGEC_KEEP_LOOP
    while (rest >= step) {
        rest -= step;
        step += 2 * v;
        root++;
    }
    return root;
}

#endif
