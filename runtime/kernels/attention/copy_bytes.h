/* SPDX-License-Identifier: Apache-2.0 */
/* A copy of bytes that does not need string.h, which the library may not have. */
#ifndef EDGEC_COPY_BYTES_H
#define EDGEC_COPY_BYTES_H

#include "edgec_compiler.h"
#include "edgec_dsp.h"

static inline void edgec_copy_bytes(int8_t *to, const int8_t *from, int32_t count)
{
    const int8_t *const whole = from + (count & ~3);
    EDGEC_KEEP_LOOP
    while (from != whole) {
        const uint32_t word = edgec_load_word(from);
        __builtin_memcpy(to, &word, sizeof word);
        from += 4;
        to += 4;
    }
    EDGEC_KEEP_LOOP
    for (int32_t i = 0; i < (count & 3); i++) {
        to[i] = from[i];
    }
}

#endif
