/* SPDX-License-Identifier: Apache-2.0 */
/* cosf. */
#include <math.h>

#include "quarter_turns.h"

float cosf(float x) { return edgec_sin_quarter_turns(__builtin_fabsf(x), 1u); }
