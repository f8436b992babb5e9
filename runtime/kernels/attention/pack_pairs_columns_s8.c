/* SPDX-License-Identifier: Apache-2.0 */
/* Packs b [k][heads][columns] for edgec_pairs_far_rows4: four rows of b become a group. */
#include "copy_bytes.h"
#include "edgec_compiler.h"
#include "edgec_kernels.h"

/* Two columns of a row; one at the end of an odd number of them. */
static inline uint32_t load_pair(const int8_t *p, int32_t columns)
{
    if (columns == 1) {
        return (uint8_t)p[0];
    }
    uint16_t pair;
    __builtin_memcpy(&pair, p, sizeof pair);
    return pair;
}

/* One head of four rows: the even column + 128 below the odd one. */
static uint32_t *pack_head(const int8_t *const rows[4], int32_t at, int32_t columns, uint32_t *packed)
{
    const int8_t *first = rows[0] + at;
    const int8_t *second = rows[1] + at;
    const int8_t *third = rows[2] + at;
    const int8_t *fourth = rows[3] + at;
    const int8_t *const whole = first + (columns & ~3);
    EDGEC_KEEP_LOOP
    while (first != whole) {
        const uint32_t a = edgec_load_word(first), b = edgec_load_word(second);
        const uint32_t c = edgec_load_word(third), d = edgec_load_word(fourth);
        packed[0] = ((a & 0xFFFFu) | c << 16) ^ 0x00800080u;
        packed[1] = ((b & 0xFFFFu) | d << 16) ^ 0x00800080u;
        packed[2] = (a >> 16 | (c & 0xFFFF0000u)) ^ 0x00800080u;
        packed[3] = (b >> 16 | (d & 0xFFFF0000u)) ^ 0x00800080u;
        packed += 4;
        first += 4;
        second += 4;
        third += 4;
        fourth += 4;
    }
    EDGEC_KEEP_LOOP
    for (int32_t i = 0; i < (columns & 3); i += 2) {
        const int32_t left = (columns & 3) - i;
        packed[0] = (load_pair(first + i, left) | load_pair(third + i, left) << 16) ^ 0x00800080u;
        packed[1] = (load_pair(second + i, left) | load_pair(fourth + i, left) << 16) ^ 0x00800080u;
        packed += 2;
    }
    return packed;
}

void edgec_pack_pairs_columns_s8(const int8_t *b, int32_t batches, int32_t k, int32_t heads, int32_t columns,
                                 void *packed, void *scratch)
{
    const int32_t width = heads * columns;
    uint32_t *to = packed;
    EDGEC_KEEP_LOOP
    for (int32_t batch = 0; batch < batches; batch++) {
        EDGEC_KEEP_LOOP
        for (int32_t row = 0; row < k; row += 4) {
            const int32_t count = k - row < 4 ? k - row : 4;
            const int8_t *from = b;
            if ((const void *)to == (const void *)b) { /* in place: what is written lies over all four rows */
                edgec_copy_bytes(scratch, b, count * width);
                from = scratch;
            }
            const int8_t *rows[4];
            EDGEC_KEEP_LOOP
            for (int32_t i = 0; i < 4; i++) { /* rows beyond the last are multiplied by zero: any row will do */
                rows[i] = from + (i < count ? i : 0) * width;
            }
            EDGEC_KEEP_LOOP
            for (int32_t head = 0; head < heads; head++) {
                to = pack_head(rows, head * columns, columns, to);
            }
            b += count * width;
        }
    }
}
