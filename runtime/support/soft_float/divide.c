/* SPDX-License-Identifier: Apache-2.0 */
/* Float division of the ARM run-time ABI, for cores without an FPU. */
#include "float_parts.h"

uint32_t __aeabi_fdiv(uint32_t a, uint32_t b);
uint32_t __aeabi_fdiv(uint32_t a, uint32_t b) {
  const uint32_t sign = (a ^ b) & FLOAT_SIGN, a_size = float_magnitude(a), b_size = float_magnitude(b);
  if (float_is_nan(a) || float_is_nan(b)) return FLOAT_NAN;
  if (a_size == FLOAT_INFINITY) return b_size == FLOAT_INFINITY ? FLOAT_NAN : sign | FLOAT_INFINITY;
  if (b_size == 0u) return a_size == 0u ? FLOAT_NAN : sign | FLOAT_INFINITY;
  if (a_size == 0u || b_size == FLOAT_INFINITY) return sign;
  const float_parts p = float_unpack(a), q = float_unpack(b);
  int32_t exponent = p.exponent - q.exponent + 127;
  uint32_t rest = p.significand, quotient = 0u;
  if (rest < q.significand) {
    rest <<= 1;
    exponent--;
  }
  for (int bit = 0; bit < 31; bit++) { /* the first one is 1 */
    quotient <<= 1;
    if (rest >= q.significand) {
      rest -= q.significand;
      quotient |= 1u;
    }
    rest <<= 1;
  }
  return float_round(sign, exponent, quotient | (rest != 0u));
}
