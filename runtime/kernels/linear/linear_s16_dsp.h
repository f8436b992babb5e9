/* SPDX-License-Identifier: Apache-2.0 */
/* A row of int16 times two columns at a time, sums of 64 bits: assembly, or the same in C. */
#ifndef EDGEC_LINEAR_S16_DSP_H
#define EDGEC_LINEAR_S16_DSP_H

/* Words of the record of a pair of columns: both biases, low words first, then {mult, addend, down} of each. */
#define EDGEC_LINEAR16_RECORD 10

#ifndef __ASSEMBLER__
#include <stdint.h>

/* The columns that a row is multiplied by; the assembly knows its layout. */
typedef struct {
    const uint32_t *w;          /* [pairs][groups][8]: k of both columns, see edgec/kernels/linear16.py */
    const int32_t *records;
    const int32_t *records_end;
    int32_t groups;             /* of eight k */
    int32_t y_bytes;            /* of a result: 1 or 2 */
} edgec_linear16_columns;

/* panel is 4 * groups words of a row, padded with zeros; y gets two results for each record. */
void edgec_linear_s16_dsp_pairs(const uint32_t *panel, int8_t *y, const edgec_linear16_columns *columns);
#endif

#endif
