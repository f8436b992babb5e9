/* SPDX-License-Identifier: Apache-2.0 */
/* powf, as 2^(y log2(x)) with the logarithm and the product kept in two floats. Coefficients: scripts/fit-math. */
#include <math.h>

#include "exp2_sum.h"

/* x^y for finite x > 0, x != 1, and finite y.
   x = 2^n m, s = (m - 1)/(m + 1), log2(m) = 2 log2(e) (s + s^3/3 + s^5/5 + ...) */
static float positive_power(float x, float y) {
  const float scale_high = 0x1.715476p+1f, scale_low = 0x1.4ae0cp-25f; /* 2 log2(e) */
  int32_t n, subnormal = 0;
  if (x < 0x1p-126f) {
    x *= 0x1p23f;
    subnormal = 23;
  }
  const float m = split_power_of_two(x, &n);
  const float whole = (float)(n - subnormal);
  const float over = m - 1.0f, under = m + 1.0f, under_low = m - (under - 1.0f);
  const float s = over / under;
  const float s_low = __builtin_fmaf(-s, under_low, __builtin_fmaf(-s, under, over)) / under;
  const float z = s * s;
  float q = 0x1.589066p-2f;
  q = __builtin_fmaf(q, z, 0x1.a5d046p-2f);
  q = __builtin_fmaf(q, z, 0x1.2776ep-1f);
  q = __builtin_fmaf(q, z, 0x1.ec709ep-1f);
  const float first = scale_high * s;
  float rest = __builtin_fmaf(scale_high, s, -first);
  /* The slope of log2(m) is 2 log2(e)/(1 - z). */
  rest = __builtin_fmaf(scale_high, __builtin_fmaf(s_low, z, s_low), __builtin_fmaf(scale_low, s, rest));
  rest = __builtin_fmaf(s * z, q, rest);
  const float sum = whole + first; /* whole is 0 or larger than first */
  rest += (whole - sum) + first;
  const float log_high = sum + rest, log_low = (sum - log_high) + rest;
  const float high = y * log_high;
  return exp2_sum(high, __builtin_fmaf(y, log_low, __builtin_fmaf(y, log_high, -high)));
}

/* 2 for an even integer, 1 for an odd one, 0 for any other number. */
static int integer_kind(float y) {
  const uint32_t bits = bits_of(y) & ~SIGN_BIT, exponent = bits >> 23;
  if (exponent > 150u || bits == 0u) return 2;
  if (exponent < 127u) return 0;
  const uint32_t below_one = 150u - exponent; /* bits of the significand */
  const uint32_t m = (bits & 0x7fffffu) | 0x800000u;
  if ((m & ((1u << below_one) - 1u)) != 0u) return 0;
  return ((m >> below_one) & 1u) != 0u ? 1 : 2;
}

float powf(float x, float y) {
  const float size = __builtin_fabsf(x), y_size = __builtin_fabsf(y);
  if (x == 1.0f || y == 0.0f) return 1.0f;
  if (x != x || y != y) return x + y;
  if (y_size == INFINITY) return size == 1.0f ? 1.0f : (size > 1.0f) == (y > 0.0f) ? INFINITY : 0.0f;
  const int kind = integer_kind(y);
  const float sign = (bits_of(x) & SIGN_BIT) != 0u && kind == 1 ? -1.0f : 1.0f;
  if (size == 0.0f || size == INFINITY) return sign * ((size > 1.0f) == (y > 0.0f) ? INFINITY : 0.0f);
  if (x < 0.0f && kind == 0) return NAN;
  return size == 1.0f ? sign : sign * positive_power(size, y);
}
