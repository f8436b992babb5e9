/* SPDX-License-Identifier: Apache-2.0 */
/* One row by two pairs of columns. */
#include "linear_s8_dsp_blocks.h"

#if EDGEC_DSP_ASSEMBLY

/* row1(r0 panel, r1 y, r2 columns, r3 second_pair)
 * r1 r2: weights of the first and second pair, r5 r6: both and even of the first, r7 r8: of the second,
 * r3 r4: activations, r9 r10 and r12 lr: weights, r11: end of the panel */
#define R1_PANEL 0
#define R1_ENTRY 4
#define R1_MODE 8
#define R1_ZERO_POINT 12
#define R1_RECORD 16
#define R1_Y 20
#define R1_RECORD_BYTES 24
#define R1_RECORDS_END 28
#define R1_SECOND_PAIR 32
#define R1_COLUMNS 36
#define R1_PANEL_END 40
#define R1_FRAME 44

        .macro  row1_group
        ldrd    r9, r10, [r1], #8
        ldrd    r3, r4, [r0], #8
        ldrd    r12, lr, [r2], #8
        smlad   r5, r3, r9, r5
        sxtb16  r9, r9
        smlad   r7, r3, r12, r7
        sxtb16  r12, r12
        smlad   r5, r4, r10, r5
        sxtb16  r10, r10
        smlad   r7, r4, lr, r7
        sxtb16  lr, lr
        smlad   r6, r3, r9, r6
        smlad   r8, r3, r12, r8
        smlad   r6, r4, r10, r6
        smlad   r8, r4, lr, r8
        .endm

/* A pair without shifts or residual; lr: record, r1: y, r12: zero point, `table` if results are looked up. */
        .macro  row1_finish both, even, table
        ldm     lr!, {r0, r3, r4, r9}                   /* bias odd, 2M even, 2M odd, bias even */
        part_columns \both, \even, r0
        smmlar  \even, \even, r3, r12
        smmlar  \both, \both, r4, r12
        ssat    \even, #8, \even
        ssat    \both, #8, \both
        .ifnb   \table
        ldrb    \even, [\table, \even]
        ldrb    \both, [\table, \both]
        .endif
        bfi     \even, \both, #8, #8
        strh    \even, [r1], #2
        .endm

        begin_function edgec_linear_s8_dsp_row1
        push    {r4-r11, lr}
        sub     sp, #R1_FRAME
        strd    r3, r2, [sp, #R1_SECOND_PAIR]
        ldr     r6, [r2, #C_GROUPS]
        body_entry r8, r6, row1_body, 60
        strd    r0, r8, [sp, #R1_PANEL]
        add     r11, r0, r6, lsl #3                     /* a group is 2 words */
        str     r11, [sp, #R1_PANEL_END]
        str     r1, [sp, #R1_Y]
        ldrd    r5, r4, [r2, #C_RECORDS_END]
        strd    r4, r5, [sp, #R1_RECORD_BYTES]
        ldrd    r4, r5, [r2, #C_MODE]
        strd    r4, r5, [sp, #R1_MODE]
        ldrd    r2, lr, [r2, #C_W]
row1_quad:
        str     lr, [sp, #R1_RECORD]
        ldr     r3, [sp, #R1_RECORD_BYTES]
        add     r3, r3, lr
        ldr     r6, [lr, #12]
        ldr     r8, [r3, #12]
        mov     r5, r6
        mov     r7, r8
        mov     r1, r2
        ldr     r0, [sp, #R1_SECOND_PAIR]
        add     r2, r2, r0
        ldrd    r0, r3, [sp, #R1_PANEL]
        bx      r3
        .p2align 2
row1_body:
        .rept   4
        row1_group
        .endr
        .if     . - row1_body != 4 * 60
        .error  "row1_body: an instruction is not four bytes long"
        .endif
        cmp     r0, r11
        bne     row1_body

        ldrd    lr, r1, [sp, #R1_RECORD]
        ldrd    r4, r12, [sp, #R1_MODE]
        cmp     r4, #0
        bne     row1_special
        row1_finish r5, r6
        row1_finish r7, r8
row1_next:
        str     r1, [sp, #R1_Y]
        ldr     r0, [sp, #R1_RECORDS_END]
        cmp     lr, r0
        bne     row1_quad
        add     sp, #R1_FRAME
        pop     {r4-r11, pc}

row1_special:                                           /* r4: mode, r12: zero point */
        cmp     r4, #2                                  /* a table and no shifts */
        bne     row1_rare
        ldr     r10, [sp, #R1_COLUMNS]
        ldr     r10, [r10, #C_TABLE]
        row1_finish r5, r6, r10
        row1_finish r7, r8, r10
        b       row1_next
row1_rare:                                              /* one pair after the other */
        mov     r11, #2
row1_special_pair:
        ldm     lr, {r0, r3, r9}                        /* bias odd, 2M even, 2M odd */
        part_columns r5, r6, r0
        record_shift r4, lr, r0, r6, , , , r5
        smmlar  r6, r6, r3, r12
        smmlar  r5, r5, r9, r12
        ssat    r6, #8, r6
        ssat    r5, #8, r5
        ldr     r4, [sp, #R1_MODE]
        lsrs    r0, r4, #2
        ldr     r0, [sp, #R1_COLUMNS]
        bcs     row1_table
        beq     row1_special_store
        adds    r0, #C_RESIDUAL
        ldm     r0, {r0, r3, r9, r10}                   /* distance, result_mult, residual_mult, offset */
        add     r0, r0, r1
        add_residual r6, r5, r0, r3, r9, r10, r4
        ldr     r4, [sp, #R1_MODE]
        ssat    r6, #8, r6, asr #SUM_POINT
        ssat    r5, #8, r5, asr #SUM_POINT
        b       row1_special_store
row1_table:
        ldr     r0, [r0, #C_TABLE]
        ldrb    r6, [r0, r6]
        ldrb    r5, [r0, r5]
row1_special_store:
        bfi     r6, r5, #8, #8
        strh    r6, [r1], #2
        ldr     r0, [sp, #R1_RECORD_BYTES]
        add     lr, lr, r0
        mov     r5, r7
        mov     r6, r8
        subs    r11, r11, #1
        bne     row1_special_pair
        ldr     r11, [sp, #R1_PANEL_END]
        b       row1_next
        end_function edgec_linear_s8_dsp_row1, SAVED + R1_FRAME

#elif defined(__linux__)
        .section .note.GNU-stack, "", %progbits         /* the stack of a program that links this empty file stays data */
#endif
