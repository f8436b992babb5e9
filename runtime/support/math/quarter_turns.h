/* SPDX-License-Identifier: Apache-2.0 */
/* The sine that sinf and cosf share. */
#ifndef EDGEC_QUARTER_TURNS_H
#define EDGEC_QUARTER_TURNS_H

#include <stdint.h>

/* sin(x + turns pi/2) for x >= 0; NaN for infinity and NaN. */
float edgec_sin_quarter_turns(float x, uint32_t turns);

#endif
