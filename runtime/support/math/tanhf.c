/* SPDX-License-Identifier: Apache-2.0 */
/* tanhf: an odd polynomial up to 0.8, 1 - 2/(e^2x + 1) beyond. Coefficients: scripts/fit-math. */
#include <math.h>

float tanhf(float x) {
  const float a = __builtin_fabsf(x), z = a * a;
  float y;
  if (a < 0.8f) {
    float p = 0x1.a0085ep-10f;
    p = __builtin_fmaf(p, z, -0x1.e5e522p-8f);
    p = __builtin_fmaf(p, z, 0x1.5d160cp-6f);
    p = __builtin_fmaf(p, z, -0x1.b92b2ep-5f);
    p = __builtin_fmaf(p, z, 0x1.110b58p-3f);
    p = __builtin_fmaf(p, z, -0x1.55553ep-2f);
    y = __builtin_fmaf(a * z, p, a);
  } else {
    y = 1.0f - 2.0f / (expf(2.0f * a) + 1.0f);
  }
  return __builtin_copysignf(y, x);
}
