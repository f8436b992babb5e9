/* SPDX-License-Identifier: Apache-2.0 */
/* memcmp, byte by byte. */
#include <stdint.h>
#include <string.h>

int memcmp(const void *a, const void *b, size_t bytes) {
  const uint8_t *x = a, *y = b;
  for (size_t i = 0; i < bytes; i++)
    if (x[i] != y[i]) return (int)x[i] - (int)y[i];
  return 0;
}
