/* SPDX-License-Identifier: Apache-2.0 */
/* sinf. */
#include <math.h>

#include "float_bits.h"
#include "quarter_turns.h"

float sinf(float x) {
  const float y = edgec_sin_quarter_turns(__builtin_fabsf(x), 0u);
  return (bits_of(x) & SIGN_BIT) != 0u ? -y : y;
}
