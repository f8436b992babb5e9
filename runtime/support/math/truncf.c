/* SPDX-License-Identifier: Apache-2.0 */
/* truncf. */
#include <math.h>

#include "float_bits.h"

float truncf(float x) {
  const uint32_t bits = bits_of(x), exponent = (bits >> 23) & 0xffu;
  if (exponent >= 150u) return x; /* an integer, infinity or NaN */
  if (exponent < 127u) return float_of(bits & SIGN_BIT);
  return float_of(bits & ~(0x7fffffu >> (exponent - 127u)));
}
