/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of a ring by any number. */
#ifndef EDGEC_RING_ROW_H
#define EDGEC_RING_ROW_H

#include <stdint.h>

/* number mod rows, at least 0. */
static inline int32_t edgec_ring_row(int32_t number, int32_t rows)
{
    const int32_t row = number % rows;
    return row < 0 ? row + rows : row;
}

#endif
