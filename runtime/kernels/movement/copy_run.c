/* SPDX-License-Identifier: Apache-2.0 */
/* A run of bytes by words: these cores load and store them at any address. */
#include "copy_run.h"

#include "edgec_dsp.h"

static inline void store_word(int8_t *p, uint32_t word) { __builtin_memcpy(p, &word, sizeof word); }

int8_t *edgec_copy_run(int8_t *to, const int8_t *from, int32_t bytes)
{
    bytes -= 16;
#if EDGEC_HAS_DSP
    if (bytes >= 0) {
        uint32_t a, b, c, d;
        __asm__ volatile("1:\n\t"
                         "ldr     %[a], [%[from]], #4\n\t"
                         "ldr     %[b], [%[from]], #4\n\t"
                         "ldr     %[c], [%[from]], #4\n\t"
                         "ldr     %[d], [%[from]], #4\n\t"
                         "str     %[a], [%[to]], #4\n\t"
                         "str     %[b], [%[to]], #4\n\t"
                         "str     %[c], [%[to]], #4\n\t"
                         "str     %[d], [%[to]], #4\n\t"
                         "subs    %[bytes], #16\n\t"
                         "bpl     1b"
                         : [to] "+&r"(to), [from] "+&r"(from), [bytes] "+&l"(bytes), [a] "=&r"(a), [b] "=&r"(b),
                           [c] "=&r"(c), [d] "=&r"(d)
                         :
                         : "cc", "memory");
    }
#else
    for (; bytes >= 0; bytes -= 16) {
        __builtin_memcpy(to, from, 16);
        from += 16;
        to += 16;
    }
#endif
    bytes += 16; /* 0 to 15 are left */
    if ((bytes & 8) != 0) {
        const uint32_t a = edgec_load_word(from), b = edgec_load_word(from + 4);
        store_word(to, a);
        store_word(to + 4, b);
        from += 8;
        to += 8;
    }
    if ((bytes & 4) != 0) {
        store_word(to, edgec_load_word(from));
        from += 4;
        to += 4;
    }
    if ((bytes & 2) != 0) {
        const int8_t a = from[0], b = from[1];
        to[0] = a;
        to[1] = b;
        from += 2;
        to += 2;
    }
    if ((bytes & 1) != 0) {
        *to++ = *from;
    }
    return to;
}
