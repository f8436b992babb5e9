/* SPDX-License-Identifier: Apache-2.0 */
/* Float comparisons of the ARM run-time ABI, for cores without an FPU: 1 or 0, and 0 for every order of a NaN. */
#include "float_parts.h"

/* Numbers in their order as signed words; both zeros are 0. */
static inline int32_t order(uint32_t bits) {
  const int32_t size = (int32_t)float_magnitude(bits);
  return (bits & FLOAT_SIGN) != 0u ? -size : size;
}

int __aeabi_fcmpun(uint32_t a, uint32_t b);
int __aeabi_fcmpun(uint32_t a, uint32_t b) { return float_is_nan(a) || float_is_nan(b); }

#define COMPARE(name, relation)      \
  int name(uint32_t a, uint32_t b);  \
  int name(uint32_t a, uint32_t b) { \
    return !float_is_nan(a) && !float_is_nan(b) && order(a) relation order(b); \
  }
COMPARE(__aeabi_fcmpeq, ==)
COMPARE(__aeabi_fcmplt, <)
COMPARE(__aeabi_fcmple, <=)
COMPARE(__aeabi_fcmpge, >=)
COMPARE(__aeabi_fcmpgt, >)
