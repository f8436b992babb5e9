/* SPDX-License-Identifier: Apache-2.0 */
/* rintf: ties to even. */
#include <math.h>

float rintf(float x) {
  const float a = __builtin_fabsf(x);
  if (!(a < 0x1p23f)) return x; /* an integer, infinity or NaN */
  return __builtin_copysignf((a + 0x1p23f) - 0x1p23f, x);
}
