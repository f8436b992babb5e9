/* SPDX-License-Identifier: Apache-2.0 */
/* 2^(high + low): what exponentials and powers end in. Coefficients: scripts/fit-math. */
#ifndef EDGEC_EXP2_SUM_H
#define EDGEC_EXP2_SUM_H

#include <math.h>

#include "float_bits.h"

/* Any high; low is far below one ulp of 1 unless the result overflows or underflows, when it is not read. */
static inline float exp2_sum(float high, float low) {
  if (!(high < 129.0f)) return high + INFINITY; /* or NaN */
  if (high < -151.0f) return 0.0f;
  const float n = nearest_integer(high);
  const float r = (high - n) + low;
  float q = 0x1.416b52p-13f;
  q = __builtin_fmaf(q, r, 0x1.5f082ep-10f);
  q = __builtin_fmaf(q, r, 0x1.3b2dep-7f);
  q = __builtin_fmaf(q, r, 0x1.c6af7cp-5f);
  q = __builtin_fmaf(q, r, 0x1.ebfbdcp-3f);
  q = __builtin_fmaf(q, r, 0x1.62e43p-1f);
  return times_power_of_two(__builtin_fmaf(q, r, 1.0f), (int32_t)n);
}

#endif
