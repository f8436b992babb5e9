/* SPDX-License-Identifier: Apache-2.0 */
/* What the block kernels of linear_s8_dsp.h share where they are assembly: Armv7E-M and Armv8-M with DSP instructions.
 *
 * A weight word holds two k of two columns, a lane being 256*w_odd + w_even. SMLAD with the raw word sums 256*P1 + P0,
 * with SXTB16 of it P0; the columns part after the last k (the proof is in edgec/kernels/linear.py). Four rows by two
 * columns need 8 sums, 2 + 2 operands and 2 pointers: all 14 registers, so everything else lives on the stack.
 *
 * A loop body covers 16 k. It is entered in the middle when k is no multiple of 16; every instruction in it is four
 * bytes long, which makes the entry an offset (asserted behind each body).
 * A record is {bias odd, 2*mult even, 2*mult odd, bias even} and, with shifts, {shift even | shift odd << 8}.
 * LDRD and LDM touch only the panel, weights, records and stack, which are words: x, y, table and residual may have any
 * alignment. */

#ifndef EDGEC_LINEAR_S8_DSP_BLOCKS_H
#define EDGEC_LINEAR_S8_DSP_BLOCKS_H

#if defined(__ARM_FEATURE_DSP) && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
#define EDGEC_DSP_ASSEMBLY 1

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

#else
#define EDGEC_DSP_ASSEMBLY 0
#endif

#endif
