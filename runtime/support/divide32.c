/* SPDX-License-Identifier: Apache-2.0 */
/* 32-bit division of the ARM run-time ABI, for cores without a divider (Armv6-M). Division by zero gives quotient 0. */
#include <stdint.h>

typedef struct {
  uint32_t quotient, rest;
} divided;

/* Shift and subtract, from the dividend's highest bit. */
static inline divided divide(uint32_t a, uint32_t b) {
  divided d = {0u, a};
  uint32_t bit = 1u;
  if (b == 0u) return d;
  while (b < d.rest && (b >> 31) == 0u) {
    b <<= 1;
    bit <<= 1;
  }
  for (; bit != 0u; bit >>= 1, b >>= 1) {
    if (d.rest >= b) {
      d.rest -= b;
      d.quotient |= bit;
    }
  }
  return d;
}

/* The ABI returns quotient and remainder in r0 and r1, which is where a 64-bit value is. */
static inline uint64_t both(uint32_t quotient, uint32_t rest) { return (uint64_t)rest << 32 | quotient; }

static inline uint64_t divide_signed(int32_t a, int32_t b) {
  const divided d = divide(a < 0 ? 0u - (uint32_t)a : (uint32_t)a, b < 0 ? 0u - (uint32_t)b : (uint32_t)b);
  return both((a < 0) != (b < 0) ? 0u - d.quotient : d.quotient, a < 0 ? 0u - d.rest : d.rest);
}

uint64_t __aeabi_uidivmod(uint32_t a, uint32_t b);
uint64_t __aeabi_uidivmod(uint32_t a, uint32_t b) {
  const divided d = divide(a, b);
  return both(d.quotient, d.rest);
}

uint32_t __aeabi_uidiv(uint32_t a, uint32_t b);
uint32_t __aeabi_uidiv(uint32_t a, uint32_t b) { return divide(a, b).quotient; }

uint64_t __aeabi_idivmod(int32_t a, int32_t b);
uint64_t __aeabi_idivmod(int32_t a, int32_t b) { return divide_signed(a, b); }

int32_t __aeabi_idiv(int32_t a, int32_t b);
int32_t __aeabi_idiv(int32_t a, int32_t b) { return (int32_t)(uint32_t)divide_signed(a, b); }
