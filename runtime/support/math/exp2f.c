/* SPDX-License-Identifier: Apache-2.0 */
/* exp2f, which compilers make of powf(2, x). */
#include <math.h>

#include "exp2_sum.h"

float exp2f(float x) { return exp2_sum(x, 0.0f); }
