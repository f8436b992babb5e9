/* SPDX-License-Identifier: Apache-2.0 */
/* Floats as bit patterns, and powers of two. */
#ifndef EDGEC_FLOAT_BITS_H
#define EDGEC_FLOAT_BITS_H

#include <stdint.h>

#define SIGN_BIT 0x80000000u
#define INFINITY_BITS 0x7f800000u

static inline uint32_t bits_of(float x) {
  const union { float value; uint32_t bits; } both = {.value = x};
  return both.bits;
}

static inline float float_of(uint32_t bits) {
  const union { uint32_t bits; float value; } both = {.bits = bits};
  return both.value;
}

/* 2^n for n in [-126, 127]. */
static inline float power_of_two(int32_t n) { return float_of((uint32_t)(n + 127) << 23); }

/* x 2^n for n in [-252, 254], rounded once if x 2^(n/2) is a normal number. */
static inline float times_power_of_two(float x, int32_t n) {
  const int32_t half = n / 2;
  return x * power_of_two(half) * power_of_two(n - half);
}

/* x to the nearest integer, |x| < 2^22, ties to even: the sum has no bits left for a fraction. */
static inline float nearest_integer(float x) { return (x + 0x1.8p23f) - 0x1.8p23f; }

/* Positive normal x = 2^*n m with m in [sqrt(1/2), sqrt(2)); returns m. */
static inline float split_power_of_two(float x, int32_t *n) {
  const uint32_t from = 0x3f3504f3u; /* sqrt(1/2) */
  *n = (int32_t)(bits_of(x) - from) >> 23;
  return float_of(bits_of(x) - ((uint32_t)*n << 23));
}

#endif
