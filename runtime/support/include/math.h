/* SPDX-License-Identifier: Apache-2.0 */
/* The single-precision functions of <math.h> that firmware may use. No errno, no floating-point exceptions. */
#ifndef EDGEC_MATH_H
#define EDGEC_MATH_H

#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")

/* One instruction each on a core with an FPU: the compiler's, not functions of the support library. */
float fabsf(float x);
float sqrtf(float x);

float ceilf(float x);
float floorf(float x);
float fmaxf(float x, float y);
float fminf(float x, float y);
float fmodf(float x, float y);
float ldexpf(float x, int n);
float nearbyintf(float x);
float rintf(float x);
float roundf(float x);
float truncf(float x);

float cosf(float x);
float erff(float x);
float exp2f(float x);
float expf(float x);
float expm1f(float x);
float log1pf(float x);
float logf(float x);
float powf(float x, float y);
float sinf(float x);
float tanhf(float x);

#endif
