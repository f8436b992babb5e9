/* SPDX-License-Identifier: Apache-2.0 */
/* expm1f: x = n log(2) + r, e^x - 1 = 2^n ((1 - 2^-n) + (e^r - 1)). Coefficients: scripts/fit-math. */
#include <math.h>

#include "float_bits.h"

float expm1f(float x) {
  const float log2_high = 0x1.62e4p-1f, log2_low = 0x1.7f7d1cp-20f; /* n log2_high is exact */
  if (__builtin_fabsf(x) < 0x1p-25f) return x;
  if (!(x < 89.0f)) return x + INFINITY; /* or NaN */
  if (x < -18.0f) return -1.0f;
  const float n = nearest_integer(x * 0x1.715476p+0f);
  const float high = x - n * log2_high, low = n * log2_low;
  const float r = high - low, r_low = (high - r) - low;
  float p = 0x1.9e864ap-13f;
  p = __builtin_fmaf(p, r, 0x1.6d404ap-10f);
  p = __builtin_fmaf(p, r, 0x1.1112d2p-7f);
  p = __builtin_fmaf(p, r, 0x1.5554f4p-5f);
  p = __builtin_fmaf(p, r, 0x1.555554p-3f);
  p = __builtin_fmaf(p, r, 0x1p-1f);
  const int32_t k = (int32_t)n;
  const float offset = k > 30 ? 1.0f : 1.0f - power_of_two(-k); /* 0 or larger than r */
  const float sum = offset + r, sum_low = (offset - sum) + r;
  return times_power_of_two(sum + (sum_low + __builtin_fmaf(r * r, p, r_low)), k);
}
