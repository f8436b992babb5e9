/* SPDX-License-Identifier: Apache-2.0 */
/* fmodf: long division of the significands, eight bits at a time, exact. */
#include <math.h>

#include "float_bits.h"

float fmodf(float x, float y) {
  const uint32_t a = bits_of(x) & ~SIGN_BIT, b = bits_of(y) & ~SIGN_BIT;
  if (a >= INFINITY_BITS || b > INFINITY_BITS || b == 0u) return (x * y) / (x * y); /* NaN */
  if (a < b || b == INFINITY_BITS) return x;
  uint32_t a_exponent = a >> 23, b_exponent = b >> 23;
  uint32_t rest = a, divisor = b;
  if (a_exponent == 0u) a_exponent = 1u; /* subnormal */
  else rest = (a & 0x7fffffu) | 0x800000u;
  if (b_exponent == 0u) b_exponent = 1u;
  else divisor = (b & 0x7fffffu) | 0x800000u;
  rest %= divisor;
  for (uint32_t left = a_exponent - b_exponent; left > 0u;) {
    const uint32_t step = left < 8u ? left : 8u;
    rest = (rest << step) % divisor;
    left -= step;
  }
  return __builtin_copysignf(times_power_of_two((float)rest, (int32_t)b_exponent - 150), x);
}
