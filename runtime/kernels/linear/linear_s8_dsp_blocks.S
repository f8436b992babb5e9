/* SPDX-License-Identifier: Apache-2.0 */
/* The block kernels of linear_s8_dsp.h for Armv7E-M and Armv8-M with DSP instructions.
 *
 * A weight word holds two k of two columns, a lane being 256*w_odd + w_even. SMLAD with the raw word sums 256*P1 + P0,
 * with SXTB16 of it P0; the columns part after the last k (the proof is in edgec/kernels/linear.py). Four rows by two
 * columns need 8 sums, 2 + 2 operands and 2 pointers: all 14 registers, so everything else lives on the stack.
 *
 * A loop body covers 16 k. It is entered in the middle when k is no multiple of 16; every instruction in it is four
 * bytes long, which makes the entry an offset (asserted below).
 * A record is {bias odd, 2*mult even, 2*mult odd, bias even} and, with shifts, {shift even | shift odd << 8}.
 * LDRD and LDM touch only the panel, weights, records and stack, which are words: x, y, table and residual may have any
 * alignment. */

#if defined(__ARM_FEATURE_DSP) && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'

        .syntax unified
        .thumb

#define SAVED 36 /* r4-r11 and lr, pushed by each kernel */

/* edgec_linear_columns */
#define C_W 0
#define C_RECORDS 4
#define C_RECORDS_END 8
#define C_RECORD_BYTES 12
#define C_GROUPS 16
#define C_STRIDE 20
#define C_MODE 24
#define C_TABLE 32
#define C_RESIDUAL 36
#define SUM_POINT 18 /* EDGEC_LINEAR_ADD_SHIFT */

/* What -fstack-size-section emits for a compiled function: its address and the bytes of stack that it takes. */
        .macro  begin_function name
        .section .text.\name, "ax", %progbits
        .p2align 2
        .global \name
        .type   \name, %function
        .thumb_func
\name:
        .endm

        .macro  end_function name, stack_bytes
        .size   \name, . - \name
        .section .stack_sizes, "o", %progbits, .text.\name
        .long   \name
        .uleb128 \stack_bytes
        .set    edgec_local_jumps.\name, \name         /* the computed entry stays inside: see edgec/device/stack.py */
        .endm

/* entry = address in a body of four sections where a sum over `groups` groups begins */
        .macro  body_entry entry, groups, body, section_bytes
        rsb     \entry, \groups, #0
        and     \entry, \entry, #3
        mov     r12, #\section_bytes
        mul     \entry, \entry, r12
        adr.w   r12, \body
        add     \entry, \entry, r12
        orr     \entry, \entry, #1
        .endm

/* both = bias_even + 256*P1 + P0, even = bias_even + P0  ->  both = bias_odd + P1 */
        .macro  part_columns both, even, bias_odd
        sub     \both, \both, \even
        add     \both, \bias_odd, \both, asr #8
        .endm

/* Shifts left by `count` (destroyed) with saturation; rare: only ratios from 0.5 on have a shift. */
        .macro  saturating_shift count, a, b, c, d
8:      qadd    \a, \a, \a
        .ifnb   \b
        qadd    \b, \b, \b
        .endif
        .ifnb   \c
        qadd    \c, \c, \c
        qadd    \d, \d, \d
        .endif
        subs    \count, \count, #1
        bne     8b
        .endm

/* The shifts of a record, if it has any; `mode` is destroyed. */
        .macro  record_shift mode, record, count, a, b, c, d, e, f, g, h
        lsrs    \mode, \mode, #1
        bcc     2f
        ldr     \mode, [\record, #16]
        ands    \count, \mode, #0xFF
        beq     1f
        saturating_shift \count, \a, \b, \c, \d
1:      lsrs    \mode, \mode, #8
        beq     2f
        saturating_shift \mode, \e, \f, \g, \h
2:
        .endm

/* even and odd = sums with the two residuals at [from], not yet shifted; `one` is destroyed. */
        .macro  add_residual even, odd, from, result_mult, residual_mult, offset, one
        ldrsb   \one, [\from]
        mla     \one, \one, \residual_mult, \offset
        mla     \even, \even, \result_mult, \one
        ldrsb   \one, [\from, #1]
        mla     \one, \one, \residual_mult, \offset
        mla     \odd, \odd, \result_mult, \one
        .endm

/* ------------------------------------------------------------------------------- four rows, a pair, block by block
 * pack4(r0 x, r1 k, r2 groups, r3 panel) */
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

/* ----------------------------------------------------------------------------------------------- two rows, a pair
 * rows2(r0 panel, r1 y, r2 columns)
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

/* ---------------------------------------------------------------------------------------------- one row, two pairs
 * row1(r0 panel, r1 y, r2 columns, r3 second_pair)
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
