/* SPDX-License-Identifier: Apache-2.0 */
/* The block kernels of linear_s8_dsp.h for Armv7E-M and Armv8-M with DSP instructions.
 *
 * A weight word holds two k of two columns, a lane being 256*w_odd + w_even. SMLAD with the raw word sums 256*P1 + P0,
 * with SXTB16 of it P0; the columns part after the last k (the proof is in edgec/kernels/linear.py). Four rows by two
 * columns need 8 sums, 2 + 2 operands and 2 pointers: all 14 registers, so everything else lives on the stack.
 *
 * A loop body covers 16 k. It is entered in the middle when k is no multiple of 16; every instruction in it is four
 * bytes long, which makes the entry an offset (asserted below).
 * LDRD and LDM touch only the panel, weights, records and stack, which are words: x and y may have any alignment. */

#if defined(__ARM_FEATURE_DSP) && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'

        .syntax unified
        .thumb

#define SAVED 36 /* r4-r11 and lr, pushed by each kernel */

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

/* ---------------------------------------------------------------------------------------------- four rows, a pair
 * rows4(r0 panel, r1 w, r2 requantize, r3 y, y_stride, pairs, groups, y_zero_point)
 * r4-r7: both of rows 0-3, r8-r11: even, r2 r3: activations, r12: weights, lr: even weights */
#define R4_PANEL 0
#define R4_ENTRY 4
#define R4_PANEL_END 8
#define R4_RECORD 12
#define R4_Y 16
#define R4_STRIDE 20
#define R4_ZERO_POINT 24
#define R4_RECORDS_END 28
#define R4_FRAME 32

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
        ldrd    r4, r5, [sp, #R4_FRAME + SAVED]         /* y_stride, pairs */
        ldrd    r6, r7, [sp, #R4_FRAME + SAVED + 8]     /* groups, y_zero_point */
        body_entry r8, r6, rows4_body, 96
        strd    r0, r8, [sp, #R4_PANEL]
        add     r0, r0, r6, lsl #5                      /* a group is 8 words */
        str     r0, [sp, #R4_PANEL_END]
        strd    r3, r4, [sp, #R4_Y]
        add     r5, r5, r5, lsl #2                      /* a record is 5 words */
        add     r5, r2, r5, lsl #2
        strd    r7, r5, [sp, #R4_ZERO_POINT]
        mov     lr, r2
rows4_pair:
        ldr     r4, [lr], #4
        str     lr, [sp, #R4_RECORD]
        mov     r5, r4
        mov     r6, r4
        mov     r7, r4
        mov     r8, r4
        mov     r9, r4
        mov     r10, r4
        mov     r11, r4
        ldrd    r0, r2, [sp, #R4_PANEL]
        bx      r2
        .p2align 2
rows4_body:
        .rept   4
        rows4_group
        .endr
        .if     . - rows4_body != 4 * 96
        .error  "rows4_body: an instruction is not four bytes long"
        .endif
        ldr     r2, [sp, #R4_PANEL_END]
        cmp     r0, r2
        bne     rows4_body

        ldr     lr, [sp, #R4_RECORD]
        ldm     lr!, {r0, r2, r3, r12}                  /* bias odd, 2M even, 2M odd, shifts */
        part_columns r4, r8, r0
        part_columns r5, r9, r0
        part_columns r6, r10, r0
        part_columns r7, r11, r0
        cmp     r12, #0
        bne     rows4_shift
rows4_requantize:
        ldr     r0, [sp, #R4_ZERO_POINT]
        smmlar  r8, r8, r2, r0
        smmlar  r9, r9, r2, r0
        smmlar  r10, r10, r2, r0
        smmlar  r11, r11, r2, r0
        smmlar  r4, r4, r3, r0
        smmlar  r5, r5, r3, r0
        smmlar  r6, r6, r3, r0
        smmlar  r7, r7, r3, r0
        ldrd    r2, r3, [sp, #R4_Y]
        ssat    r8, #8, r8
        ssat    r4, #8, r4
        ssat    r9, #8, r9
        ssat    r5, #8, r5
        ssat    r10, #8, r10
        ssat    r6, #8, r6
        ssat    r11, #8, r11
        ssat    r7, #8, r7
        adds    r0, r2, #2
        str     r0, [sp, #R4_Y]
        strb    r8, [r2]
        strb    r4, [r2, #1]
        add     r2, r3
        strb    r9, [r2]
        strb    r5, [r2, #1]
        add     r2, r3
        strb    r10, [r2]
        strb    r6, [r2, #1]
        add     r2, r3
        strb    r11, [r2]
        strb    r7, [r2, #1]
        ldr     r0, [sp, #R4_RECORDS_END]
        cmp     lr, r0
        bne     rows4_pair
        add     sp, #R4_FRAME
        pop     {r4-r11, pc}
rows4_shift:
        ands    r0, r12, #0xFF
        beq     1f
        saturating_shift r0, r8, r9, r10, r11
1:      lsrs    r12, r12, #8
        beq     rows4_requantize
        saturating_shift r12, r4, r5, r6, r7
        b       rows4_requantize
        end_function edgec_linear_s8_dsp_rows4, SAVED + R4_FRAME

/* ----------------------------------------------------------------------------------------------- two rows, a pair
 * rows2(r0 panel, r1 w, r2 requantize, r3 y, y_stride, pairs, groups, y_zero_point)
 * r6 r7: both of rows 0 1, r8 r9: even, r2 r3: activations, r4 r5: weights, r11: end of the panel, lr: record */
#define R2_PANEL 0
#define R2_ENTRY 4
#define R2_Y 8
#define R2_STRIDE 12
#define R2_ZERO_POINT 16
#define R2_RECORDS_END 20
#define R2_FRAME 24

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
        ldrd    r4, r5, [sp, #R2_FRAME + SAVED]         /* y_stride, pairs */
        ldrd    r6, r7, [sp, #R2_FRAME + SAVED + 8]     /* groups, y_zero_point */
        body_entry r8, r6, rows2_body, 52
        strd    r0, r8, [sp, #R2_PANEL]
        add     r11, r0, r6, lsl #4                     /* a group is 4 words */
        strd    r3, r4, [sp, #R2_Y]
        add     r5, r5, r5, lsl #2                      /* a record is 5 words */
        add     r5, r2, r5, lsl #2
        strd    r7, r5, [sp, #R2_ZERO_POINT]
        mov     lr, r2
rows2_pair:
        ldr     r6, [lr], #4
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

        ldm     lr!, {r0, r2, r3, r12}                  /* bias odd, 2M even, 2M odd, shifts */
        part_columns r6, r8, r0
        part_columns r7, r9, r0
        cmp     r12, #0
        bne     rows2_shift
rows2_requantize:
        ldrd    r0, r10, [sp, #R2_ZERO_POINT]
        ldrd    r4, r5, [sp, #R2_Y]
        smmlar  r8, r8, r2, r0
        smmlar  r9, r9, r2, r0
        smmlar  r6, r6, r3, r0
        smmlar  r7, r7, r3, r0
        adds    r2, r4, #2
        str     r2, [sp, #R2_Y]
        ssat    r8, #8, r8
        ssat    r6, #8, r6
        ssat    r9, #8, r9
        ssat    r7, #8, r7
        strb    r8, [r4]
        strb    r6, [r4, #1]
        add     r4, r5
        strb    r9, [r4]
        strb    r7, [r4, #1]
        cmp     lr, r10
        bne     rows2_pair
        add     sp, #R2_FRAME
        pop     {r4-r11, pc}
rows2_shift:
        ands    r0, r12, #0xFF
        beq     1f
        saturating_shift r0, r8, r9
1:      lsrs    r12, r12, #8
        beq     rows2_requantize
        saturating_shift r12, r6, r7
        b       rows2_requantize
        end_function edgec_linear_s8_dsp_rows2, SAVED + R2_FRAME

/* ---------------------------------------------------------------------------------------------- one row, two pairs
 * row1(r0 panel, r1 w, r2 requantize, r3 y, second_pair, quads, groups, y_zero_point)
 * r1 r2: weights of the first and second pair, r5 r6: both and even of the first, r7 r8: of the second,
 * r3 r4: activations, r9 r10 and r12 lr: weights, r11: end of the panel */
#define R1_PANEL 0
#define R1_ENTRY 4
#define R1_ZERO_POINT 8
#define R1_Y 12
#define R1_RECORD 16
#define R1_SECOND_PAIR 20
#define R1_RECORDS_END 24
#define R1_FRAME 28

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

/* Requantizes and stores a pair; lr: record, r1: y, r12: zero point. */
        .macro  row1_finish both, even
        ldm     lr!, {r0, r3, r4, r9, r10}              /* bias even, bias odd, 2M even, 2M odd, shifts */
        part_columns \both, \even, r3
        cmp     r10, #0
        beq     3f
        ands    r0, r10, #0xFF
        beq     1f
        saturating_shift r0, \even
1:      lsrs    r10, r10, #8
        beq     3f
        saturating_shift r10, \both
3:      smmlar  \even, \even, r4, r12
        smmlar  \both, \both, r9, r12
        ssat    \even, #8, \even
        ssat    \both, #8, \both
        strb    \even, [r1], #1
        strb    \both, [r1], #1
        .endm

        begin_function edgec_linear_s8_dsp_row1
        push    {r4-r11, lr}
        sub     sp, #R1_FRAME
        ldrd    r4, r5, [sp, #R1_FRAME + SAVED]         /* second_pair, quads */
        ldrd    r6, r7, [sp, #R1_FRAME + SAVED + 8]     /* groups, y_zero_point */
        body_entry r8, r6, row1_body, 60
        strd    r0, r8, [sp, #R1_PANEL]
        add     r11, r0, r6, lsl #3                     /* a group is 2 words */
        strd    r7, r3, [sp, #R1_ZERO_POINT]
        add     r5, r5, r5, lsl #2                      /* two records are 10 words */
        add     r5, r2, r5, lsl #3
        lsl     r4, r4, #2
        strd    r4, r5, [sp, #R1_SECOND_PAIR]
        mov     lr, r2
        mov     r2, r1
row1_quad:
        str     lr, [sp, #R1_RECORD]
        ldr     r6, [lr]
        ldr     r8, [lr, #20]
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

        ldrd    r12, r1, [sp, #R1_ZERO_POINT]
        ldr     lr, [sp, #R1_RECORD]
        row1_finish r5, r6
        row1_finish r7, r8
        str     r1, [sp, #R1_Y]
        ldr     r0, [sp, #R1_RECORDS_END]
        cmp     lr, r0
        bne     row1_quad
        add     sp, #R1_FRAME
        pop     {r4-r11, pc}
        end_function edgec_linear_s8_dsp_row1, SAVED + R1_FRAME

#elif defined(__linux__)
        .section .note.GNU-stack, "", %progbits         /* the stack of a program that links this empty file stays data */
#endif
