/* SPDX-License-Identifier: Apache-2.0 */
/* One row times a right operand as it lies: for a single query, packing that operand would cost more than the product. */
#ifndef EDGEC_ROW_PRODUCTS_H
#define EDGEC_ROW_PRODUCTS_H

#include <stdint.h>

/* The row's product with `count` rows or columns of b: y[j] = sat8(smmulr(sum, double_mult) + zero_point), where each
 * sum begins with `start`. */
typedef struct {
    int32_t terms, count;
    int32_t stride; /* of b: from one row in memory to the next */
    int32_t start, double_mult, zero_point;
} edgec_row_product;

/* Lanes a[i] - za in the order in which edgec_row_times_rows_s8 reads them, 8*ceil(terms/4) bytes; their sum. */
int32_t edgec_row_lanes(const int8_t *a, int32_t terms, int32_t za, uint32_t *lanes);

/* b [count][terms]: sums along its rows. */
void edgec_row_times_rows_s8(const uint32_t *lanes, const int8_t *b, const edgec_row_product *p, int8_t *y);

/* b [terms][count]: sums across its rows. The lanes are int16 in order, 2*terms bytes and 2 more where terms is odd. */
void edgec_row_times_columns_s8(const int16_t *lanes, const int8_t *b, const edgec_row_product *p, int8_t *y);

#endif
