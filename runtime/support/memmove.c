/* SPDX-License-Identifier: Apache-2.0 */
/* memmove and its __aeabi_ names: memcpy's copy runs upwards, so only an overlap from below needs its own loop. */
#include <stdint.h>
#include <string.h>

void *memmove(void *to, const void *from, size_t bytes) {
  uint8_t *d = to;
  const uint8_t *s = from;
  if ((uintptr_t)d - (uintptr_t)s < bytes) {
    while (bytes-- > 0u) d[bytes] = s[bytes];
  } else {
    for (size_t i = 0; i < bytes; i++) d[i] = s[i];
  }
  return to;
}

void __aeabi_memmove(void *, const void *, size_t) __attribute__((alias("memmove")));
void __aeabi_memmove4(void *, const void *, size_t) __attribute__((alias("memmove")));
void __aeabi_memmove8(void *, const void *, size_t) __attribute__((alias("memmove")));
