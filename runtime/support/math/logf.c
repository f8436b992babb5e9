/* SPDX-License-Identifier: Apache-2.0 */
/* logf: x = 2^n (1 + f). */
#include <math.h>

#include "log_sum.h"

float logf(float x) {
  int32_t n, subnormal = 0;
  if (!(x > 0.0f)) return x == 0.0f ? -INFINITY : x != x ? x + x : NAN;
  if (x == INFINITY) return x;
  if (x < 0x1p-126f) {
    x *= 0x1p23f;
    subnormal = 23;
  }
  const float m = split_power_of_two(x, &n);
  return log_sum(n - subnormal, m - 1.0f);
}
