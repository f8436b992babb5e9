/* SPDX-License-Identifier: Apache-2.0 */
/* fmaxf: the larger of two, or the one that is not NaN. */
#include <math.h>

float fmaxf(float x, float y) { return y > x || x != x ? y : x; }
