/* SPDX-License-Identifier: Apache-2.0 */
/* sin(x + turns pi/2) for every float x >= 0, with 2/pi as an integer. Coefficients: scripts/fit-math. */
#include "quarter_turns.h"

#include "float_bits.h"

/* Bits of 2/pi from weight 2^25 down. */
static const uint32_t two_over_pi[8] = {
    0x00000028u, 0xbe60db93u, 0x91054a7fu, 0x09d5f47du, 0x4d377036u, 0xd8a5664fu, 0x10e4107fu, 0x9458eaf7u};

/* x >= 1/2 as whole quarter turns (modulo 4), and the rest in radians, at most pi/4.
   x = m 2^e; bits of 2/pi that make whole turns of m 2^e are skipped and 96 further ones are kept. */
static float reduce(float x, uint32_t *turns) {
  const float quarter_high = 0x1.921fb6p+0f, quarter_low = -0x1.777a5cp-25f; /* pi/2 */
  const uint32_t m = (bits_of(x) & 0x7fffffu) | 0x800000u;
  const uint32_t skip = (bits_of(x) >> 23) - 126u; /* e + 24 */
  const uint32_t *from = &two_over_pi[skip / 32u], shift = skip % 32u;
  uint32_t window[3];
  for (uint32_t i = 0; i < 3u; i++)
    window[i] = (uint32_t)(((((uint64_t)from[i] << 32) | from[i + 1u]) << shift) >> 32);
  /* The product in units of 2^-62 quarter turns, modulo 4 of them. */
  const uint64_t product =
      ((uint64_t)(m * window[0]) << 32) + (uint64_t)m * window[1] + (((uint64_t)m * window[2]) >> 32);
  const uint64_t rounded = product + ((uint64_t)1 << 61);
  *turns = (uint32_t)(rounded >> 62);
  const uint64_t rest = product - ((rounded >> 62) << 62);
  const int negative = (rest >> 63) != 0u;
  const uint64_t size = negative ? 0u - rest : rest;
  const int zeros = __builtin_clzll(size); /* no float is a multiple of pi/2 */
  const uint32_t top = (uint32_t)((size << zeros) >> 32);
  const float scale = power_of_two(-30 - zeros);
  const float high = (float)(top & 0xffffff00u) * scale, low = (float)(top & 0xffu) * scale;
  const float r = high * quarter_high;
  const float r_low = __builtin_fmaf(high, quarter_high, -r) + __builtin_fmaf(high, quarter_low, low * quarter_high);
  return negative ? -(r + r_low) : r + r_low;
}

float edgec_sin_quarter_turns(float x, uint32_t turns) {
  if (!(x <= 0x1.fffffep127f)) return x - x;
  if (x >= 0x1.921fb6p-1f) {
    uint32_t whole;
    x = reduce(x, &whole);
    turns += whole;
  }
  const float z = x * x;
  float y;
  if ((turns & 1u) != 0u) {
    float p = 0x1.99e80cp-16f;
    p = __builtin_fmaf(p, z, -0x1.6c0c28p-10f);
    p = __builtin_fmaf(p, z, 0x1.55554ap-5f);
    y = __builtin_fmaf(z * z, p, __builtin_fmaf(-0.5f, z, 1.0f));
  } else {
    float p = -0x1.995408p-13f;
    p = __builtin_fmaf(p, z, 0x1.110778p-7f);
    p = __builtin_fmaf(p, z, -0x1.555546p-3f);
    y = __builtin_fmaf(x * z, p, x);
  }
  return (turns & 2u) != 0u ? -y : y;
}
