/* SPDX-License-Identifier: Apache-2.0 */
/* Float addition and subtraction of the ARM run-time ABI, for cores without an FPU. */
#include "float_parts.h"

static inline uint32_t add(uint32_t a, uint32_t b) {
  const uint32_t a_size = float_magnitude(a), b_size = float_magnitude(b);
  const uint32_t x = a_size >= b_size ? a : b, y = a_size >= b_size ? b : a; /* x is the larger */
  const uint32_t sign = x & FLOAT_SIGN, differ = (a ^ b) & FLOAT_SIGN;
  if (float_magnitude(x) >= FLOAT_INFINITY) {
    if (float_is_nan(x) || (differ != 0u && float_magnitude(y) == FLOAT_INFINITY)) return FLOAT_NAN;
    return x;
  }
  if (float_magnitude(y) == 0u) return float_magnitude(x) == 0u ? a & b : x;
  const float_parts p = float_unpack(x), q = float_unpack(y);
  const uint32_t small = float_shift_sticky(q.significand << 7, p.exponent - q.exponent);
  int32_t exponent = p.exponent;
  uint32_t sum = p.significand << 7;
  if (differ != 0u) {
    sum -= small;
    if (sum == 0u) return 0u;
    const int32_t shift = float_leading_zeros(sum) - 1;
    sum <<= shift;
    exponent -= shift;
  } else {
    sum += small;
    if ((sum >> 31) != 0u) {
      sum = float_shift_sticky(sum, 1);
      exponent++;
    }
  }
  return float_round(sign, exponent, sum);
}

uint32_t __aeabi_fadd(uint32_t a, uint32_t b);
uint32_t __aeabi_fadd(uint32_t a, uint32_t b) { return add(a, b); }

uint32_t __aeabi_fsub(uint32_t a, uint32_t b);
uint32_t __aeabi_fsub(uint32_t a, uint32_t b) { return __aeabi_fadd(a, b ^ FLOAT_SIGN); }

uint32_t __aeabi_frsub(uint32_t a, uint32_t b);
uint32_t __aeabi_frsub(uint32_t a, uint32_t b) { return __aeabi_fadd(b, a ^ FLOAT_SIGN); }
