/* SPDX-License-Identifier: Apache-2.0 */
/* memset, __aeabi_memset (arguments swapped) and __aeabi_memclr. */
#include <stdint.h>
#include <string.h>

typedef uint32_t __attribute__((may_alias)) word;

void *memset(void *to, int value, size_t bytes) {
  uint8_t *d = to;
  const uint8_t byte = (uint8_t)value;
  if (((uintptr_t)d & 3u) == 0u) {
    word *w = (word *)(void *)d;
    const word four = byte * 0x01010101u;
    for (; bytes >= 4u; bytes -= 4u) *w++ = four;
    d = (uint8_t *)w;
  }
  while (bytes-- > 0u) *d++ = byte;
  return to;
}

void __aeabi_memset(void *to, size_t bytes, int value) { memset(to, value, bytes); }
void __aeabi_memset4(void *, size_t, int) __attribute__((alias("__aeabi_memset")));
void __aeabi_memset8(void *, size_t, int) __attribute__((alias("__aeabi_memset")));
void __aeabi_memclr(void *to, size_t bytes) { memset(to, 0, bytes); }
void __aeabi_memclr4(void *, size_t) __attribute__((alias("__aeabi_memclr")));
void __aeabi_memclr8(void *, size_t) __attribute__((alias("__aeabi_memclr")));
