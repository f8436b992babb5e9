/* SPDX-License-Identifier: Apache-2.0 */
/* Square root, correctly rounded, bit by bit: for cores without an FPU, where it is no instruction. */
#include "float_parts.h"

uint32_t edgec_float_root(uint32_t bits);
uint32_t edgec_float_root(uint32_t bits) {
  if (float_magnitude(bits) == 0u || bits == FLOAT_INFINITY) return bits;
  if (float_is_nan(bits) || (bits & FLOAT_SIGN) != 0u) return FLOAT_NAN;
  const float_parts p = float_unpack(bits);
  const int32_t power = p.exponent - 127, odd = power & 1;
  uint64_t rest = (uint64_t)p.significand << (37 + odd); /* 2^60 to 2^62: the root has its leading one at bit 30 */
  uint64_t root = 0u;
  for (uint64_t bit = (uint64_t)1 << 60; bit != 0u; bit >>= 2) {
    if (rest >= root + bit) {
      rest -= root + bit;
      root = (root >> 1) + bit;
    } else {
      root >>= 1;
    }
  }
  return float_round(0u, (power - odd) / 2 + 127, (uint32_t)root | (rest != 0u));
}

#if defined(__arm__) && !defined(__ARM_FP)
#include <math.h>

float sqrtf(float x) {
  union {
    float number;
    uint32_t bits;
  } value = {x};
  value.bits = edgec_float_root(value.bits);
  return value.number;
}
#endif
