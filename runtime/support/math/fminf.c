/* SPDX-License-Identifier: Apache-2.0 */
/* fminf: the smaller of two, or the one that is not NaN. */
#include <math.h>

float fminf(float x, float y) { return y < x || x != x ? y : x; }
