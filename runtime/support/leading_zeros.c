/* SPDX-License-Identifier: Apache-2.0 */
/* Leading zeros of a word, by halves, for cores without CLZ (Armv6-M); 32 for 0. */
#include <stdint.h>

int __clzsi2(uint32_t value);
int __clzsi2(uint32_t value) {
  static const uint8_t of_nibble[16] = {4, 3, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0};
  int zeros = 0;
  if ((value >> 16) == 0u) zeros += 16, value <<= 16;
  if ((value >> 24) == 0u) zeros += 8, value <<= 8;
  if ((value >> 28) == 0u) zeros += 4, value <<= 4;
  return zeros + of_nibble[value >> 28];
}

int __clzdi2(uint64_t value);
int __clzdi2(uint64_t value) {
  const uint32_t high = (uint32_t)(value >> 32);
  return high != 0u ? __clzsi2(high) : 32 + __clzsi2((uint32_t)value);
}
