/* SPDX-License-Identifier: Apache-2.0 */
/* floorf. */
#include <math.h>

#include "float_bits.h"

float floorf(float x) {
  const uint32_t bits = bits_of(x), exponent = (bits >> 23) & 0xffu, negative = bits & SIGN_BIT;
  if (exponent >= 150u) return x; /* an integer, infinity or NaN */
  if (exponent < 127u) return negative != 0u && x != 0.0f ? -1.0f : float_of(negative);
  const uint32_t fraction = 0x7fffffu >> (exponent - 127u);
  return float_of((bits + (negative != 0u ? fraction : 0u)) & ~fraction);
}
