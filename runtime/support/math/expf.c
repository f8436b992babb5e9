/* SPDX-License-Identifier: Apache-2.0 */
/* expf, as 2^(x log2(e)) with the product kept in two floats. */
#include <math.h>

#include "exp2_sum.h"

float expf(float x) {
  const float log2e_high = 0x1.715476p+0f, log2e_low = 0x1.4ae0cp-26f;
  const float high = x * log2e_high;
  const float low = __builtin_fmaf(x, log2e_low, __builtin_fmaf(x, log2e_high, -high));
  return exp2_sum(high, low);
}
