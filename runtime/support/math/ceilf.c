/* SPDX-License-Identifier: Apache-2.0 */
/* ceilf. */
#include <math.h>

float ceilf(float x) { return -floorf(-x); }
