/* SPDX-License-Identifier: Apache-2.0 */
/* table_s8: eight elements a turn, two side by side. */
#include "edgec_compiler.h"
#include "edgec_dsp.h"
#include "edgec_kernels.h"

void edgec_table_s8_dsp(const int8_t *x, const uint32_t *table, int8_t *y, int32_t n)
{
    const int8_t *const end = x + n;
    const uint8_t *const entries = (const uint8_t *)table;
#if EDGEC_HAS_DSP
    if (n >= 8) {
        uint32_t first, second;
#define TWO                                    \
    "ldrb    %[first], [%[x]], #1\n\t"         \
    "ldrb    %[second], [%[x]], #1\n\t"        \
    "ldrb    %[first], [%[table], %[first]]\n\t" \
    "ldrb    %[second], [%[table], %[second]]\n\t" \
    "strb    %[first], [%[y]], #1\n\t"         \
    "strb    %[second], [%[y]], #1\n\t"
        __asm__ volatile("1:\n\t" TWO TWO TWO TWO "cmp     %[x], %[end]\n\t"
                         "bne     1b"
                         : [x] "+&r"(x), [y] "+&r"(y), [first] "=&l"(first), [second] "=&l"(second)
                         : [table] "l"(entries), [end] "r"(x + (n & ~7))
                         : "cc", "memory");
#undef TWO
    }
#endif
    EDGEC_KEEP_LOOP
    while (x != end) {
        *y++ = (int8_t)entries[(uint8_t)*x++];
    }
}
