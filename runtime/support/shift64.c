/* SPDX-License-Identifier: Apache-2.0 */
/* 64-bit shifts of the ARM run-time ABI by 0 to 63, from shifts of 32 bits (Armv6-M). */
#include <stdint.h>

static inline uint64_t joined(uint32_t high, uint32_t low) { return (uint64_t)high << 32 | low; }

uint64_t __aeabi_llsl(uint64_t value, uint32_t by);
uint64_t __aeabi_llsl(uint64_t value, uint32_t by) {
  const uint32_t high = (uint32_t)(value >> 32), low = (uint32_t)value;
  if (by == 0u) return value;
  if (by >= 32u) return joined(low << (by - 32u), 0u);
  return joined(high << by | low >> (32u - by), low << by);
}

uint64_t __aeabi_llsr(uint64_t value, uint32_t by);
uint64_t __aeabi_llsr(uint64_t value, uint32_t by) {
  const uint32_t high = (uint32_t)(value >> 32), low = (uint32_t)value;
  if (by == 0u) return value;
  if (by >= 32u) return joined(0u, high >> (by - 32u));
  return joined(high >> by, high << (32u - by) | low >> by);
}

/* Shifts of negative values are arithmetic in every compiler that there is. */
int64_t __aeabi_lasr(int64_t value, uint32_t by);
int64_t __aeabi_lasr(int64_t value, uint32_t by) {
  const int32_t high = (int32_t)(uint32_t)((uint64_t)value >> 32);
  const uint32_t low = (uint32_t)(uint64_t)value;
  if (by == 0u) return value;
  if (by >= 32u) return (int64_t)joined((uint32_t)(high >> 31), (uint32_t)(high >> (by - 32u)));
  return (int64_t)joined((uint32_t)(high >> by), (uint32_t)high << (32u - by) | low >> by);
}
