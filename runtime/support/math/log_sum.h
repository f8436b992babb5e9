/* SPDX-License-Identifier: Apache-2.0 */
/* n log(2) + log(1 + f): what logarithms end in. Coefficients: scripts/fit-math. */
#ifndef EDGEC_LOG_SUM_H
#define EDGEC_LOG_SUM_H

#include "float_bits.h"

/* f in [sqrt(1/2) - 1, sqrt(2) - 1]. The high part of log(2) has few bits, so that n times it is exact. */
static inline float log_sum(int32_t n, float f) {
  const float log2_high = 0x1.62e4p-1f, log2_low = 0x1.7f7d1cp-20f;
  float p = -0x1.39bc3p-4f;
  p = __builtin_fmaf(p, f, 0x1.08cd64p-3f);
  p = __builtin_fmaf(p, f, -0x1.0f27cep-3f);
  p = __builtin_fmaf(p, f, 0x1.225a9ap-3f);
  p = __builtin_fmaf(p, f, -0x1.54265p-3f);
  p = __builtin_fmaf(p, f, 0x1.99a52ap-3f);
  p = __builtin_fmaf(p, f, -0x1.000434p-2f);
  p = __builtin_fmaf(p, f, 0x1.55554ep-2f);
  p = __builtin_fmaf(p, f, -0x1.fffff8p-2f);
  const float small = __builtin_fmaf((float)n, log2_low, f * f * p);
  return (float)n * log2_high + (f + small);
}

#endif
