/* SPDX-License-Identifier: Apache-2.0 */
/* Four rows by a pair of columns, block by block. */
#include "linear_s8_dsp_blocks.h"

#if EDGEC_DSP_ASSEMBLY

/* rows4(r0 panel, r1 y, r2 columns, r3 blocks)
 * r4-r7: both of rows 0-3, r8-r11: even, r2 r3: activations, r12: weights, lr: even weights; r0 runs on from block to
 * block, r1 from the beginning of a pair's weights to their end */
#define R4_ENTRY 0
#define R4_W 4
#define R4_W_END 8
#define R4_PAIR_BYTES 12
#define R4_RECORD_BYTES 16
#define R4_RECORDS_END 20
#define R4_MODE 24
#define R4_ZERO_POINT 28
#define R4_Y 32
#define R4_STRIDE 36
#define R4_RECORD 40
#define R4_PANEL 44
#define R4_PANEL_END 48
#define R4_Y_BACK 52 /* from the block after the last one to the next pair of the first */
#define R4_COLUMNS 56
#define R4_FRAME 60

        .macro  rows4_step next_weights
        ldrd    r2, r3, [r0], #8
        sxtb16  lr, r12
        smlad   r4, r2, r12, r4
        smlad   r5, r3, r12, r5
        smlad   r8, r2, lr, r8
        smlad   r9, r3, lr, r9
        ldrd    r2, r3, [r0], #8
        smlad   r6, r2, r12, r6
        smlad   r7, r3, r12, r7
        .if     \next_weights
        ldr.w   r12, [r1], #4                           /* early, so that the next step does not wait for it */
        .endif
        smlad   r10, r2, lr, r10
        smlad   r11, r3, lr, r11
        .endm

        .macro  rows4_group
        ldr.w   r12, [r1], #4
        rows4_step 1
        rows4_step 0
        .endm

        begin_function edgec_linear_s8_dsp_rows4
        push    {r4-r11, lr}
        sub     sp, #R4_FRAME
        str     r2, [sp, #R4_COLUMNS]
        ldrd    r6, r7, [r2, #C_GROUPS]                 /* groups, stride */
        body_entry r4, r6, rows4_body, 96
        str     r0, [sp, #R4_PANEL]
        mul     r5, r3, r6
        add     r5, r0, r5, lsl #5                      /* a group is 8 words */
        str     r5, [sp, #R4_PANEL_END]
        strd    r1, r7, [sp, #R4_Y]
        mul     r5, r3, r7
        lsl     r5, r5, #2
        subs    r5, #2
        str     r5, [sp, #R4_Y_BACK]
        ldrd    r5, lr, [r2, #C_W]
        strd    r4, r5, [sp, #R4_ENTRY]
        lsl     r6, r6, #3
        add     r5, r5, r6
        strd    r5, r6, [sp, #R4_W_END]
        ldrd    r5, r4, [r2, #C_RECORDS_END]
        strd    r4, r5, [sp, #R4_RECORD_BYTES]
        ldrd    r4, r5, [r2, #C_MODE]
        strd    r4, r5, [sp, #R4_MODE]
rows4_pair:
        str     lr, [sp, #R4_RECORD]
rows4_block:
        ldr     r4, [lr, #12]
        mov     r5, r4
        mov     r6, r4
        mov     r7, r4
        mov     r8, r4
        mov     r9, r4
        mov     r10, r4
        mov     r11, r4
        ldrd    r2, r1, [sp, #R4_ENTRY]
        bx      r2
        .p2align 2
rows4_body:
        .rept   4
        rows4_group
        .endr
        .if     . - rows4_body != 4 * 96
        .error  "rows4_body: an instruction is not four bytes long"
        .endif
        ldr     r2, [sp, #R4_W_END]
        cmp     r1, r2
        bne     rows4_body

        ldr     lr, [sp, #R4_RECORD]
        ldm     lr, {r1, r2, r3}                        /* bias odd, 2M even, 2M odd */
        part_columns r4, r8, r1
        part_columns r5, r9, r1
        part_columns r6, r10, r1
        part_columns r7, r11, r1
        ldrd    r1, r12, [sp, #R4_MODE]
        cmp     r1, #0
        bne     rows4_special
        smmlar  r8, r8, r2, r12
        smmlar  r9, r9, r2, r12
        smmlar  r10, r10, r2, r12
        smmlar  r11, r11, r2, r12
        smmlar  r4, r4, r3, r12
        smmlar  r5, r5, r3, r12
        smmlar  r6, r6, r3, r12
        smmlar  r7, r7, r3, r12
        ssat    r8, #8, r8
        ssat    r4, #8, r4
        ssat    r9, #8, r9
        ssat    r5, #8, r5
        ssat    r10, #8, r10
        ssat    r6, #8, r6
        ssat    r11, #8, r11
        ssat    r7, #8, r7
rows4_store:
        ldrd    r2, r3, [sp, #R4_Y]
        bfi     r8, r4, #8, #8
        strh    r8, [r2]
        bfi     r9, r5, #8, #8
        strh    r9, [r2, r3]
        bfi     r10, r6, #8, #8
        strh    r10, [r2, r3, lsl #1]
        add     r1, r3, r3, lsl #1
        bfi     r11, r7, #8, #8
        strh    r11, [r2, r1]
        add     r2, r2, r3, lsl #2
        str     r2, [sp, #R4_Y]
        ldr     r1, [sp, #R4_PANEL_END]
        cmp     r0, r1
        bne     rows4_block

        ldr     r1, [sp, #R4_Y_BACK]
        subs    r2, r2, r1
        str     r2, [sp, #R4_Y]
        ldrd    r2, r1, [sp, #R4_W_END]
        add     r1, r1, r2
        strd    r2, r1, [sp, #R4_W]
        ldr     r0, [sp, #R4_PANEL]
        ldrd    r1, r2, [sp, #R4_RECORD_BYTES]
        add     lr, lr, r1
        cmp     lr, r2
        bne     rows4_pair
        add     sp, #R4_FRAME
        pop     {r4-r11, pc}

rows4_special:                                          /* r1: mode, r12: zero point; r0 and lr stay */
        record_shift r1, lr, r12, r8, r9, r10, r11, r4, r5, r6, r7
        ldrd    r1, r12, [sp, #R4_MODE]
        smmlar  r8, r8, r2, r12
        smmlar  r9, r9, r2, r12
        smmlar  r10, r10, r2, r12
        smmlar  r11, r11, r2, r12
        smmlar  r4, r4, r3, r12
        smmlar  r5, r5, r3, r12
        smmlar  r6, r6, r3, r12
        smmlar  r7, r7, r3, r12
        ssat    r8, #8, r8
        ssat    r4, #8, r4
        ssat    r9, #8, r9
        ssat    r5, #8, r5
        ssat    r10, #8, r10
        ssat    r6, #8, r6
        ssat    r11, #8, r11
        ssat    r7, #8, r7
        lsrs    r1, r1, #2
        bcs     rows4_table
        beq     rows4_store
        push    {r0, lr}
        ldr     r0, [sp, #8 + R4_COLUMNS]
        adds    r0, #C_RESIDUAL
        ldm     r0, {r1, r2, r3, r12}                   /* distance, result_mult, residual_mult, offset */
        ldrd    r0, lr, [sp, #8 + R4_Y]
        add     r1, r1, r0
        add_residual r8, r4, r1, r2, r3, r12, r0
        add     r1, r1, lr
        add_residual r9, r5, r1, r2, r3, r12, r0
        add     r1, r1, lr
        add_residual r10, r6, r1, r2, r3, r12, r0
        add     r1, r1, lr
        add_residual r11, r7, r1, r2, r3, r12, r0
        ssat    r8, #8, r8, asr #SUM_POINT
        ssat    r4, #8, r4, asr #SUM_POINT
        ssat    r9, #8, r9, asr #SUM_POINT
        ssat    r5, #8, r5, asr #SUM_POINT
        ssat    r10, #8, r10, asr #SUM_POINT
        ssat    r6, #8, r6, asr #SUM_POINT
        ssat    r11, #8, r11, asr #SUM_POINT
        ssat    r7, #8, r7, asr #SUM_POINT
        pop     {r0, lr}
        b       rows4_store
rows4_table:
        ldr     r1, [sp, #R4_COLUMNS]
        ldr     r1, [r1, #C_TABLE]
        ldrb    r8, [r1, r8]
        ldrb    r4, [r1, r4]
        ldrb    r9, [r1, r9]
        ldrb    r5, [r1, r5]
        ldrb    r10, [r1, r10]
        ldrb    r6, [r1, r6]
        ldrb    r11, [r1, r11]
        ldrb    r7, [r1, r7]
        b       rows4_store
        end_function edgec_linear_s8_dsp_rows4, SAVED + R4_FRAME + 8

#elif defined(__linux__)
        .section .note.GNU-stack, "", %progbits         /* the stack of a program that links this empty file stays data */
#endif
