/* SPDX-License-Identifier: Apache-2.0 */
/* log1pf: 1 + x = u + rest exactly, u = 2^n m, and the rest goes into f = m - 1. */
#include <math.h>

#include "log_sum.h"

float log1pf(float x) {
  int32_t n;
  if (!(x > -1.0f)) return x == -1.0f ? -INFINITY : x != x ? x + x : NAN;
  if (x == INFINITY || __builtin_fabsf(x) < 0x1p-25f) return x;
  const float u = 1.0f + x;
  const float rest = x < 1.0f ? x - (u - 1.0f) : 1.0f - (u - x);
  const float m = split_power_of_two(u, &n);
  const float f = m - 1.0f;
  return log_sum(n, n < 30 ? __builtin_fmaf(rest, power_of_two(-n), f) : f);
}
