/* SPDX-License-Identifier: Apache-2.0 */
/* Four rows of int8 widened to the lanes of a panel. */
#include "linear_s8_dsp_blocks.h"

#if EDGEC_DSP_ASSEMBLY

/* pack4(r0 x, r1 k, r2 groups, r3 panel) */
        begin_function edgec_linear_s8_dsp_pack4
        push    {r4-r11, lr}
        mov     r12, r3
        add     lr, r3, r2, lsl #5
        mov     r3, r1
        add     r1, r0, r3
        add     r2, r1, r3
        add     r3, r2, r3
pack4_group:
        ldr     r4, [r0], #4
        ldr     r5, [r1], #4
        ldr     r6, [r2], #4
        ldr     r7, [r3], #4
        sxtb16  r8, r4, ror #8
        sxtb16  r9, r5, ror #8
        sxtb16  r10, r6, ror #8
        sxtb16  r11, r7, ror #8
        sxtb16  r4, r4
        sxtb16  r5, r5
        sxtb16  r6, r6
        sxtb16  r7, r7
        stm     r12!, {r4-r11}
        cmp     r12, lr
        bne     pack4_group
        pop     {r4-r11, pc}
        end_function edgec_linear_s8_dsp_pack4, SAVED

#elif defined(__linux__)
        .section .note.GNU-stack, "", %progbits         /* the stack of a program that links this empty file stays data */
#endif
