/* SPDX-License-Identifier: Apache-2.0 */
/* One row of int16 by two columns, eight k a group: SMLALD adds two products to a sum of 64 bits. */
#include "linear_s8_dsp_blocks.h"
#include "linear_s16_dsp.h"

#if EDGEC_DSP_ASSEMBLY

/* pairs(r0 panel, r1 y, r2 columns)
 * r0: panel, r1: weights, r2 r3 and r4 r5: sums of both columns, r6-r9: activations, r10-r12 lr: weights.
 * Rounding and zero point are in the addend of the upper word of sum * mult: see edgec/kernels/linear16.py. */
#define P_RECORD 0
#define P_Y 4
#define P_RECORDS_END 8
#define P_Y_BYTES 12
#define P_PANEL 16
#define P_ENTRY 20
#define P_PANEL_END 24
#define P_FRAME 28

/* edgec_linear16_columns */
#define C16_W 0
#define C16_RECORDS 4
#define C16_RECORDS_END 8
#define C16_GROUPS 12
#define C16_Y_BYTES 16

        .macro  pair_group
        ldm.w   r0!, {r6-r9}
        ldm.w   r1!, {r10-r12, lr}
        smlald  r2, r3, r6, r10
        smlald  r4, r5, r6, r12
        smlald  r2, r3, r7, r11
        smlald  r4, r5, r7, lr
        ldm.w   r1!, {r10-r12, lr}
        smlald  r2, r3, r8, r10
        smlald  r4, r5, r8, r12
        smlald  r2, r3, r9, r11
        smlald  r4, r5, r9, lr
        .endm

/* high = (upper word of high:low * mult + addend) >> down */
        .macro  pair_scale low, high
        ldm.w   r6!, {r0, r10, r11}                     /* mult, addend, down */
        umull   r12, lr, \low, r0
        mla     \high, \high, r0, lr
        add     \high, \high, r10
        asr     \high, \high, r11
        .endm

        begin_function edgec_linear_s16_dsp_pairs
        push    {r4-r11, lr}
        sub     sp, #P_FRAME
        ldr     r6, [r2, #C16_GROUPS]
        body_entry r8, r6, pair_body, 44
        strd    r0, r8, [sp, #P_PANEL]
        add     r11, r0, r6, lsl #4                     /* a group is 4 words */
        str     r11, [sp, #P_PANEL_END]
        str     r1, [sp, #P_Y]
        ldr     r4, [r2, #C16_RECORDS_END]
        ldr     r5, [r2, #C16_Y_BYTES]
        strd    r4, r5, [sp, #P_RECORDS_END]
        ldrd    r1, r6, [r2, #C16_W]
pair_next:
        ldm.w   r6!, {r2-r5}
        str     r6, [sp, #P_RECORD]
        ldrd    r0, r12, [sp, #P_PANEL]
        bx      r12
        .p2align 2
pair_body:
        .rept   4
        pair_group
        .endr
        .if     . - pair_body != 4 * 44
        .error  "pair_body: an instruction is not four bytes long"
        .endif
        ldr     r12, [sp, #P_PANEL_END]
        cmp     r0, r12
        bne     pair_body

        ldm.w   sp, {r6-r9}                             /* record, y, end of the records, bytes of y */
        pair_scale r2, r3
        pair_scale r4, r5
        cmp     r9, #1
        beq     pair_narrow
        ssat    r3, #16, r3
        ssat    r5, #16, r5
        pkhbt   r3, r3, r5, lsl #16
        str     r3, [r7], #4
pair_done:
        str     r7, [sp, #P_Y]
        cmp     r6, r8
        bne     pair_next
        add     sp, #P_FRAME
        pop     {r4-r11, pc}
pair_narrow:
        ssat    r3, #8, r3
        ssat    r5, #8, r5
        bfi     r3, r5, #8, #8
        strh    r3, [r7], #2
        b       pair_done
        end_function edgec_linear_s16_dsp_pairs, SAVED + P_FRAME

#elif defined(__linux__)
        .section .note.GNU-stack, "", %progbits         /* the stack of a program that links this empty file stays data */
#endif
