/* SPDX-License-Identifier: Apache-2.0 */
/* Packs b [rows][heads][k] for edgec_pairs_near_rows4: two rows of b become a pair of columns. */
#include "copy_bytes.h"
#include "edgec_compiler.h"
#include "edgec_kernels.h"

/* Four k of an even and an odd row. */
static inline void pack_group(uint32_t even, uint32_t odd, uint32_t *packed)
{
    even ^= 0x80808080u; /* + 128 */
    packed[0] = edgec_uxtb16(even) | edgec_uxtb16(odd) << 8;
    packed[1] = edgec_uxtb16_ror8(even) | (odd & 0xFF00FF00u);
}

/* One head of a pair of rows. */
static uint32_t *pack_head(const int8_t *even, const int8_t *odd, int32_t k, uint32_t *packed)
{
    const int8_t *const whole = even + (k & ~3);
    EDGEC_KEEP_LOOP
    while (even != whole) {
        pack_group(edgec_load_word(even), edgec_load_word(odd), packed);
        packed += 2;
        even += 4;
        odd += 4;
    }
    if ((k & 3) != 0) {
        uint32_t last_even = 0, last_odd = 0;
        EDGEC_KEEP_LOOP
        for (int32_t i = 0; i < (k & 3); i++) { /* byte by byte: b may end where the memory ends */
            last_even |= (uint32_t)(uint8_t)even[i] << (8 * i);
            last_odd |= (uint32_t)(uint8_t)odd[i] << (8 * i);
        }
        pack_group(last_even, last_odd, packed);
        packed += 2;
    }
    return packed;
}

void edgec_pack_pairs_rows_s8(const int8_t *b, int32_t batches, int32_t rows, int32_t heads, int32_t k, void *packed,
                              void *scratch)
{
    const int32_t width = heads * k;
    uint32_t *to = packed;
    EDGEC_KEEP_LOOP
    for (int32_t batch = 0; batch < batches; batch++) {
        EDGEC_KEEP_LOOP
        for (int32_t row = 0; row < rows; row += 2) {
            const int32_t count = rows - row < 2 ? 1 : 2;
            const int8_t *even = b;
            if ((const void *)to == (const void *)b) { /* in place: what is written lies over both rows */
                edgec_copy_bytes(scratch, b, count * width);
                even = scratch;
            }
            const int8_t *const odd = count > 1 ? even + width : even; /* of one row: a column that nobody reads */
            EDGEC_KEEP_LOOP
            for (int32_t head = 0; head < heads; head++) {
                to = pack_head(even + head * k, odd + head * k, k, to);
            }
            b += count * width;
        }
    }
}
