/* SPDX-License-Identifier: Apache-2.0 */
/* erff: an odd polynomial up to 0.9, 1 - e^-P(x) with P = -log(erfc) up to 4. Coefficients: scripts/fit-math. */
#include <math.h>

float erff(float x) {
  const float a = __builtin_fabsf(x), z = a * a;
  float y = 1.0f;
  if (a < 0.9f) {
    float p = 0x1.4d2864p-14f;
    p = __builtin_fmaf(p, z, -0x1.a583bcp-11f);
    p = __builtin_fmaf(p, z, 0x1.543f2ap-8f);
    p = __builtin_fmaf(p, z, -0x1.b80062p-6f);
    p = __builtin_fmaf(p, z, 0x1.ce2d6p-4f);
    p = __builtin_fmaf(p, z, -0x1.81274p-2f);
    p = __builtin_fmaf(p, z, 0x1.06eba8p-3f);
    y = __builtin_fmaf(a, p, a);
  } else if (a < 4.0f) {
    float p = -0x1.9d8544p-13f;
    p = __builtin_fmaf(p, a, 0x1.908136p-9f);
    p = __builtin_fmaf(p, a, -0x1.6cfce4p-6f);
    p = __builtin_fmaf(p, a, 0x1.aa2316p-4f);
    p = __builtin_fmaf(p, a, 0x1.462cb2p-1f);
    p = __builtin_fmaf(p, a, 0x1.20b432p+0f);
    p = __builtin_fmaf(p, a, 0x1.743c2ap-13f);
    y = 1.0f - expf(-p);
  } else if (a != a) {
    y = a + a;
  }
  return __builtin_copysignf(y, x);
}
