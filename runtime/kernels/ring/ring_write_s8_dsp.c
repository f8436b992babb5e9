/* SPDX-License-Identifier: Apache-2.0 */
/* ring_write_s8: one row of each stream is written, in place of the ring nothing else. */
#include "../movement/copy_run.h"
#include "edgec_kernels.h"
#include "ring_row.h"

void edgec_ring_write_s8_dsp(const int8_t *ring, const int8_t *x, const int32_t *cursor, int8_t *y, int32_t streams,
                             int32_t rows, int32_t channels)
{
    const int32_t row = edgec_ring_row(*cursor, rows);
    const int32_t before = row * channels;
    const int32_t after = (rows - 1 - row) * channels;
    const int in_place = y == ring;
    for (; streams > 0; streams--) {
        int8_t *const to = y + before;
        if (!in_place) {
            edgec_copy_run(y, ring, before);
        }
        edgec_copy_run(to, x, channels);
        if (!in_place) {
            edgec_copy_run(to + channels, ring + before + channels, after);
        }
        x += channels;
        ring += rows * channels;
        y += rows * channels;
    }
}
