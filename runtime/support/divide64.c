/* SPDX-License-Identifier: Apache-2.0 */
/* 64-bit division of the ARM run-time ABI: quotient in r0:r1, remainder in r2:r3. Division by zero gives quotient 0. */
#include <stdint.h>

/* Shift and subtract, started at the dividend's highest bit. */
uint64_t edgec_divide_u64(uint64_t a, uint64_t b, uint64_t *remainder);
uint64_t edgec_divide_u64(uint64_t a, uint64_t b, uint64_t *remainder) {
  uint64_t quotient = 0u, rest = a;
  if (b != 0u && a >= b) {
    if ((a >> 32) == 0u) { /* both fit the hardware divider */
      quotient = (uint32_t)a / (uint32_t)b;
      rest = a - quotient * b;
    } else {
      const int a_high = __builtin_clzll(a), b_high = __builtin_clzll(b);
      for (int shift = b_high - a_high; shift >= 0; shift--) {
        const uint64_t part = b << shift;
        if (rest >= part) {
          rest -= part;
          quotient |= (uint64_t)1 << shift;
        }
      }
    }
  }
  *remainder = rest;
  return quotient;
}

int64_t edgec_divide_s64(int64_t a, int64_t b, int64_t *remainder);
int64_t edgec_divide_s64(int64_t a, int64_t b, int64_t *remainder) {
  const uint64_t ua = a < 0 ? 0u - (uint64_t)a : (uint64_t)a, ub = b < 0 ? 0u - (uint64_t)b : (uint64_t)b;
  uint64_t rest;
  const uint64_t quotient = edgec_divide_u64(ua, ub, &rest);
  *remainder = (int64_t)(a < 0 ? 0u - rest : rest);
  return (int64_t)((a < 0) != (b < 0) ? 0u - quotient : quotient);
}

/* The ABI returns two 64-bit values in four registers, which C cannot say. Being naked, each states its own stack size. */
#if defined(__ARM_ARCH) && __ARM_ARCH == 6
#define LOAD_REMAINDER "ldr r2, [sp, #8]\nldr r3, [sp, #12]\n"
#else
#define LOAD_REMAINDER "ldrd r2, r3, [sp, #8]\n"
#endif
#define DIVIDE(name, function)                                \
  __attribute__((naked)) void name(void);                     \
  __attribute__((naked)) void name(void) {                    \
    __asm volatile(                                           \
        "push {r6, lr}\n"                                     \
        "sub sp, #16\n"                                       \
        "add r6, sp, #8\n"                                    \
        "str r6, [sp]\n"                                      \
        "bl " #function "\n"                                  \
        LOAD_REMAINDER                                        \
        "add sp, #16\n"                                       \
        "pop {r6, pc}\n"                                      \
        ".pushsection .stack_sizes,\"o\",%progbits,.text." #name "\n" \
        ".long " #name "\n"                                   \
        ".uleb128 24\n"                                       \
        ".popsection\n");                                     \
  }
DIVIDE(__aeabi_uldivmod, edgec_divide_u64)
DIVIDE(__aeabi_ldivmod, edgec_divide_s64)
