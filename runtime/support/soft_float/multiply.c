/* SPDX-License-Identifier: Apache-2.0 */
/* Float multiplication of the ARM run-time ABI, for cores without an FPU. */
#include "float_parts.h"

uint32_t __aeabi_fmul(uint32_t a, uint32_t b);
uint32_t __aeabi_fmul(uint32_t a, uint32_t b) {
  const uint32_t sign = (a ^ b) & FLOAT_SIGN, a_size = float_magnitude(a), b_size = float_magnitude(b);
  if (a_size >= FLOAT_INFINITY || b_size >= FLOAT_INFINITY) {
    if (float_is_nan(a) || float_is_nan(b) || a_size == 0u || b_size == 0u) return FLOAT_NAN;
    return sign | FLOAT_INFINITY;
  }
  if (a_size == 0u || b_size == 0u) return sign;
  const float_parts p = float_unpack(a), q = float_unpack(b);
  const uint64_t product = (uint64_t)p.significand * q.significand; /* its leading one is bit 46 or 47 */
  uint32_t significand = (uint32_t)(product >> 16) | ((product & 0xFFFFu) != 0u);
  int32_t exponent = p.exponent + q.exponent - 127;
  if ((significand >> 31) != 0u) {
    significand = float_shift_sticky(significand, 1);
    exponent++;
  }
  return float_round(sign, exponent, significand);
}
