/* SPDX-License-Identifier: Apache-2.0 */
/* nearbyintf: rintf, there being no exceptions to raise. */
#include <math.h>

float nearbyintf(float x) { return rintf(x); }
