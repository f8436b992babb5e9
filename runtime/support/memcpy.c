/* SPDX-License-Identifier: Apache-2.0 */
/* memcpy and its __aeabi_ names: words where both sides are aligned, else bytes. */
#include <stdint.h>
#include <string.h>

typedef uint32_t __attribute__((may_alias)) word;

void *memcpy(void *restrict to, const void *restrict from, size_t bytes) {
  uint8_t *d = to;
  const uint8_t *s = from;
  if ((((uintptr_t)d | (uintptr_t)s) & 3u) == 0u) {
    word *dw = (word *)(void *)d;
    const word *sw = (const word *)(const void *)s;
    for (; bytes >= 16u; bytes -= 16u) {
      const word a = sw[0], b = sw[1], c = sw[2], e = sw[3];
      dw[0] = a;
      dw[1] = b;
      dw[2] = c;
      dw[3] = e;
      dw += 4;
      sw += 4;
    }
    for (; bytes >= 4u; bytes -= 4u) *dw++ = *sw++;
    d = (uint8_t *)dw;
    s = (const uint8_t *)sw;
  }
  while (bytes-- > 0u) *d++ = *s++;
  return to;
}

void __aeabi_memcpy(void *restrict, const void *restrict, size_t) __attribute__((alias("memcpy")));
void __aeabi_memcpy4(void *restrict, const void *restrict, size_t) __attribute__((alias("memcpy")));
void __aeabi_memcpy8(void *restrict, const void *restrict, size_t) __attribute__((alias("memcpy")));
