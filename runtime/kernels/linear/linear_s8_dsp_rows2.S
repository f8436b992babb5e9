/* SPDX-License-Identifier: Apache-2.0 */
/* Two rows by a pair of columns. */
#include "linear_s8_dsp_blocks.h"

#if EDGEC_DSP_ASSEMBLY

/* rows2(r0 panel, r1 y, r2 columns)
 * r6 r7: both of rows 0 1, r8 r9: even, r2 r3: activations, r4 r5: weights, r10: y, r11: end of the panel, lr: record */
#define R2_PANEL 0
#define R2_ENTRY 4
#define R2_MODE 8
#define R2_ZERO_POINT 12
#define R2_RECORD_BYTES 16
#define R2_RECORDS_END 20
#define R2_STRIDE 24
#define R2_COLUMNS 28
#define R2_FRAME 32

        .macro  rows2_group
        ldrd    r4, r5, [r1], #8
        ldrd    r2, r3, [r0], #8
        sxtb16  r12, r4
        smlad   r6, r2, r4, r6
        smlad   r7, r3, r4, r7
        smlad   r8, r2, r12, r8
        smlad   r9, r3, r12, r9
        ldrd    r2, r3, [r0], #8
        sxtb16  r12, r5
        smlad   r6, r2, r5, r6
        smlad   r7, r3, r5, r7
        smlad   r8, r2, r12, r8
        smlad   r9, r3, r12, r9
        .endm

        begin_function edgec_linear_s8_dsp_rows2
        push    {r4-r11, lr}
        sub     sp, #R2_FRAME
        mov     r10, r1
        ldrd    r6, r7, [r2, #C_GROUPS]                 /* groups, stride */
        strd    r7, r2, [sp, #R2_STRIDE]
        body_entry r8, r6, rows2_body, 52
        strd    r0, r8, [sp, #R2_PANEL]
        add     r11, r0, r6, lsl #4                     /* a group is 4 words */
        ldrd    r5, r4, [r2, #C_RECORDS_END]
        strd    r4, r5, [sp, #R2_RECORD_BYTES]
        ldrd    r4, r5, [r2, #C_MODE]
        strd    r4, r5, [sp, #R2_MODE]
        ldrd    r1, lr, [r2, #C_W]
rows2_pair:
        ldr     r6, [lr, #12]
        mov     r7, r6
        mov     r8, r6
        mov     r9, r6
        ldrd    r0, r2, [sp, #R2_PANEL]
        bx      r2
        .p2align 2
rows2_body:
        .rept   4
        rows2_group
        .endr
        .if     . - rows2_body != 4 * 52
        .error  "rows2_body: an instruction is not four bytes long"
        .endif
        cmp     r0, r11
        bne     rows2_body

        ldm     lr, {r0, r2, r3}                        /* bias odd, 2M even, 2M odd */
        part_columns r6, r8, r0
        part_columns r7, r9, r0
        ldrd    r4, r12, [sp, #R2_MODE]
        cmp     r4, #0
        bne     rows2_special
        smmlar  r8, r8, r2, r12
        smmlar  r9, r9, r2, r12
        smmlar  r6, r6, r3, r12
        smmlar  r7, r7, r3, r12
        ssat    r8, #8, r8
        ssat    r6, #8, r6
        ssat    r9, #8, r9
        ssat    r7, #8, r7
rows2_store:
        ldr     r0, [sp, #R2_STRIDE]
        bfi     r8, r6, #8, #8
        bfi     r9, r7, #8, #8
        strh    r9, [r10, r0]
        strh    r8, [r10], #2
        ldrd    r0, r2, [sp, #R2_RECORD_BYTES]
        add     lr, lr, r0
        cmp     lr, r2
        bne     rows2_pair
        add     sp, #R2_FRAME
        pop     {r4-r11, pc}

rows2_special:                                          /* r4: mode, r12: zero point; r1 and lr stay */
        record_shift r4, lr, r5, r8, r9, , , r6, r7
        ldr     r4, [sp, #R2_MODE]
        smmlar  r8, r8, r2, r12
        smmlar  r9, r9, r2, r12
        smmlar  r6, r6, r3, r12
        smmlar  r7, r7, r3, r12
        ssat    r8, #8, r8
        ssat    r6, #8, r6
        ssat    r9, #8, r9
        ssat    r7, #8, r7
        lsrs    r4, r4, #2
        ldr     r4, [sp, #R2_COLUMNS]
        bcs     rows2_table
        beq     rows2_store
        adds    r4, #C_RESIDUAL
        ldm     r4, {r0, r2, r3, r12}                   /* distance, result_mult, residual_mult, offset */
        ldr     r4, [sp, #R2_STRIDE]
        add     r0, r0, r10
        add_residual r8, r6, r0, r2, r3, r12, r5
        add     r0, r0, r4
        add_residual r9, r7, r0, r2, r3, r12, r5
        ssat    r8, #8, r8, asr #SUM_POINT
        ssat    r6, #8, r6, asr #SUM_POINT
        ssat    r9, #8, r9, asr #SUM_POINT
        ssat    r7, #8, r7, asr #SUM_POINT
        b       rows2_store
rows2_table:
        ldr     r4, [r4, #C_TABLE]
        ldrb    r8, [r4, r8]
        ldrb    r6, [r4, r6]
        ldrb    r9, [r4, r9]
        ldrb    r7, [r4, r7]
        b       rows2_store
        end_function edgec_linear_s8_dsp_rows2, SAVED + R2_FRAME

#elif defined(__linux__)
        .section .note.GNU-stack, "", %progbits         /* the stack of a program that links this empty file stays data */
#endif
