/* SPDX-License-Identifier: Apache-2.0 */
/* x * y + z, rounded once: for cores without an FPU, where it is no instruction. */
#include "float_parts.h"

/* The value is significand * 2^(exponent - 189); the leading one is bit 62. */
typedef struct {
  int32_t exponent;
  uint64_t significand;
} long_parts;

static inline int32_t long_leading_zeros(uint64_t value) {
  const uint32_t high = (uint32_t)(value >> 32);
  return high != 0u ? float_leading_zeros(high) : 32 + float_leading_zeros((uint32_t)value);
}

static inline uint64_t long_shift_sticky(uint64_t value, int32_t by) {
  if (by == 0) return value;
  if (by > 63) return value != 0u;
  return value >> by | ((value << (64 - by)) != 0u);
}

static inline uint32_t sum(uint32_t p_sign, long_parts p, uint32_t z_sign, long_parts z) {
  const int first = p.exponent > z.exponent || (p.exponent == z.exponent && p.significand >= z.significand);
  const uint32_t sign = first ? p_sign : z_sign;
  const long_parts x = first ? p : z, y = first ? z : p; /* x is the larger */
  const uint64_t small = long_shift_sticky(y.significand, x.exponent - y.exponent);
  int32_t exponent = x.exponent;
  uint64_t significand = x.significand;
  if (p_sign != z_sign) {
    significand -= small;
    if (significand == 0u) return 0u;
    const int32_t shift = long_leading_zeros(significand) - 1;
    significand <<= shift;
    exponent -= shift;
  } else {
    significand += small;
    if ((significand >> 63) != 0u) {
      significand = long_shift_sticky(significand, 1);
      exponent++;
    }
  }
  return float_round(sign, exponent, (uint32_t)(significand >> 32) | ((uint32_t)significand != 0u));
}

uint32_t edgec_float_multiply_add(uint32_t x, uint32_t y, uint32_t z);
uint32_t edgec_float_multiply_add(uint32_t x, uint32_t y, uint32_t z) {
  const uint32_t x_size = float_magnitude(x), y_size = float_magnitude(y), z_size = float_magnitude(z);
  const uint32_t p_sign = (x ^ y) & FLOAT_SIGN, z_sign = z & FLOAT_SIGN;
  if (float_is_nan(x) || float_is_nan(y) || float_is_nan(z)) return FLOAT_NAN;
  if (x_size == FLOAT_INFINITY || y_size == FLOAT_INFINITY) {
    if (x_size == 0u || y_size == 0u || (z_size == FLOAT_INFINITY && z_sign != p_sign)) return FLOAT_NAN;
    return p_sign | FLOAT_INFINITY;
  }
  if (z_size == FLOAT_INFINITY) return z;
  if (x_size == 0u || y_size == 0u) return z_size == 0u ? p_sign & z_sign : z;
  const float_parts a = float_unpack(x), b = float_unpack(y);
  long_parts p = {a.exponent + b.exponent - 111, (uint64_t)a.significand * b.significand};
  const int32_t shift = long_leading_zeros(p.significand) - 1;
  p.significand <<= shift;
  p.exponent -= shift;
  if (z_size == 0u) {
    return float_round(p_sign, p.exponent, (uint32_t)(p.significand >> 32) | ((uint32_t)p.significand != 0u));
  }
  const float_parts c = float_unpack(z);
  const long_parts addend = {c.exponent, (uint64_t)c.significand << 39};
  return sum(p_sign, p, z_sign, addend);
}

#if defined(__arm__) && !defined(__ARM_FP)
typedef union {
  float number;
  uint32_t bits;
} value;

float fmaf(float x, float y, float z);
float fmaf(float x, float y, float z) {
  const value a = {x}, b = {y}, c = {z};
  value result;
  result.bits = edgec_float_multiply_add(a.bits, b.bits, c.bits);
  return result.number;
}
#endif
