/* SPDX-License-Identifier: Apache-2.0 */
/* Floats as sign, exponent and significand: IEEE 754 binary32, halves to even, subnormals included. */
#ifndef EDGEC_FLOAT_PARTS_H
#define EDGEC_FLOAT_PARTS_H

#include <stdint.h>

#define FLOAT_SIGN 0x80000000u
#define FLOAT_INFINITY 0x7F800000u
#define FLOAT_NAN 0x7FC00000u

static inline uint32_t float_magnitude(uint32_t bits) { return bits & ~FLOAT_SIGN; }
static inline int float_is_nan(uint32_t bits) { return float_magnitude(bits) > FLOAT_INFINITY; }

/* Leading zeros of a significand that is not 0. */
static inline int32_t float_leading_zeros(uint32_t value) { return __builtin_clz(value); }

typedef struct {
  int32_t exponent;
  uint32_t significand; /* the leading one is bit 23: the value is significand * 2^(exponent - 150) */
} float_parts;

/* Of a number that is neither 0 nor infinite nor NaN. */
static inline float_parts float_unpack(uint32_t bits) {
  float_parts p = {(int32_t)(bits >> 23 & 255u), bits & 0x7FFFFFu};
  if (p.exponent != 0) {
    p.significand |= 0x800000u;
  } else {
    const int32_t shift = float_leading_zeros(p.significand) - 8;
    p.significand <<= shift;
    p.exponent = 1 - shift;
  }
  return p;
}

/* value >> by, with bit 0 set if a one was lost. */
static inline uint32_t float_shift_sticky(uint32_t value, int32_t by) {
  if (by == 0) return value;
  if (by > 31) return value != 0u;
  return value >> by | ((value << (32 - by)) != 0u);
}

/* The float nearest to significand * 2^(exponent - 157), whose leading one is bit 30; bit 0 stands for all below. */
static inline uint32_t float_round(uint32_t sign, int32_t exponent, uint32_t significand) {
  if (exponent >= 255) return sign | FLOAT_INFINITY;
  if (exponent <= 0) {
    significand = float_shift_sticky(significand, 1 - exponent);
    exponent = 1;
  }
  const uint32_t rest = significand & 127u;
  uint32_t rounded = significand >> 7;
  rounded += (rest > 64u) | ((rest == 64u) & (rounded & 1u));
  return sign | (((uint32_t)(exponent - 1) << 23) + rounded); /* the leading one is one more in the exponent */
}

#endif
