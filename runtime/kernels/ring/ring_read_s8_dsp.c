/* SPDX-License-Identifier: Apache-2.0 */
/* ring_read_s8 and ring_rotate_s8: of each stream two runs of rows, the second from the beginning of the ring. */
#include "../movement/copy_run.h"
#include "edgec_kernels.h"
#include "ring_row.h"

void edgec_ring_read_s8_dsp(const int8_t *ring, const int32_t *cursor, int8_t *y, int32_t streams, int32_t length,
                            int32_t channels, int32_t rows)
{
    const int32_t first = edgec_ring_row(edgec_ring_row(*cursor, length) + 1 - rows, length);
    const int32_t ahead = length - first < rows ? length - first : rows;
    for (; streams > 0; streams--) {
        y = edgec_copy_run(y, ring + first * channels, ahead * channels);
        y = edgec_copy_run(y, ring, (rows - ahead) * channels);
        ring += length * channels;
    }
}

void edgec_ring_rotate_s8_dsp(const int8_t *x, const int32_t *cursor, int8_t *y, int32_t streams, int32_t length,
                              int32_t channels)
{
    const int32_t last = length - 2 - edgec_ring_row(*cursor, length); /* of x: what the ring ends with */
    edgec_ring_read_s8_dsp(x, &last, y, streams, length, channels, length);
}
