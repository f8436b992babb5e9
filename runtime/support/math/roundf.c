/* SPDX-License-Identifier: Apache-2.0 */
/* roundf: ties away from zero. */
#include <math.h>

#include "float_bits.h"

float roundf(float x) {
  const uint32_t bits = bits_of(x), exponent = (bits >> 23) & 0xffu;
  if (exponent >= 150u) return x; /* an integer, infinity or NaN */
  if (exponent < 127u) return float_of((bits & SIGN_BIT) | (exponent == 126u ? 0x3f800000u : 0u));
  const uint32_t fraction = 0x7fffffu >> (exponent - 127u);
  return float_of((bits + (0x400000u >> (exponent - 127u))) & ~fraction);
}
