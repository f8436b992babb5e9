/* SPDX-License-Identifier: Apache-2.0 */
/* Comes before a model's C on a computer: what libm approximates comes from runtime/support/math, as on boards. */
#ifndef EDGEC_BOARD_MATH_H
#define EDGEC_BOARD_MATH_H

#include <math.h>

float edgec_cosf(float x);
float edgec_erff(float x);
float edgec_exp2f(float x);
float edgec_expf(float x);
float edgec_expm1f(float x);
float edgec_log1pf(float x);
float edgec_logf(float x);
float edgec_powf(float x, float y);
float edgec_sinf(float x);
float edgec_tanhf(float x);

#define cosf edgec_cosf
#define erff edgec_erff
#define exp2f edgec_exp2f
#define expf edgec_expf
#define expm1f edgec_expm1f
#define log1pf edgec_log1pf
#define logf edgec_logf
#define powf edgec_powf
#define sinf edgec_sinf
#define tanhf edgec_tanhf

#endif
