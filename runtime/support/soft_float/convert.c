/* SPDX-License-Identifier: Apache-2.0 */
/* Floats from integers and back of the ARM run-time ABI, for cores without an FPU; out of range saturates, NaN is 0. */
#include "float_parts.h"

static inline uint32_t from_magnitude(uint32_t sign, uint32_t size) {
  if (size == 0u) return 0u;
  if ((size >> 31) != 0u) return float_round(sign, 158, float_shift_sticky(size, 1));
  const int32_t shift = float_leading_zeros(size) - 1;
  return float_round(sign, 157 - shift, size << shift);
}

uint32_t __aeabi_i2f(int32_t value);
uint32_t __aeabi_i2f(int32_t value) {
  return value < 0 ? from_magnitude(FLOAT_SIGN, 0u - (uint32_t)value) : from_magnitude(0u, (uint32_t)value);
}

uint32_t __aeabi_ui2f(uint32_t value);
uint32_t __aeabi_ui2f(uint32_t value) { return from_magnitude(0u, value); }

/* The whole part of a size below 2^32. */
static inline uint32_t whole(uint32_t size) {
  const int32_t exponent = (int32_t)(size >> 23) - 150;
  const uint32_t significand = (size & 0x7FFFFFu) | 0x800000u;
  if (exponent >= 0) return significand << exponent;
  return exponent < -23 ? 0u : significand >> -exponent;
}

int32_t __aeabi_f2iz(uint32_t bits);
int32_t __aeabi_f2iz(uint32_t bits) {
  const uint32_t size = float_magnitude(bits), negative = bits & FLOAT_SIGN;
  if (float_is_nan(bits)) return 0;
  if (size >= 0x4F000000u) return negative != 0u ? INT32_MIN : INT32_MAX; /* 2^31 */
  return negative != 0u ? -(int32_t)whole(size) : (int32_t)whole(size);
}

uint32_t __aeabi_f2uiz(uint32_t bits);
uint32_t __aeabi_f2uiz(uint32_t bits) {
  const uint32_t size = float_magnitude(bits);
  if (float_is_nan(bits) || (bits & FLOAT_SIGN) != 0u) return 0u;
  return size >= 0x4F800000u ? UINT32_MAX : whole(size); /* 2^32 */
}
