/* SPDX-License-Identifier: Apache-2.0 */
/* ldexpf, which compilers make of powf(2, an integer). */
#include <math.h>

#include "float_bits.h"

/* Steps down by 2^-102 leave every x that does not end as zero a normal number, so only the last product rounds. */
float ldexpf(float x, int n) {
  for (int step = 0; step < 2; step++) {
    if (n > 127) {
      x *= 0x1p127f;
      n -= 127;
    } else if (n < -126) {
      x *= 0x1p-102f;
      n += 102;
    }
  }
  return x * power_of_two(n > 127 ? 127 : n < -126 ? -126 : n);
}
