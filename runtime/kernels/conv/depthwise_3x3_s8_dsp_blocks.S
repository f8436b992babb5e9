/* SPDX-License-Identifier: Apache-2.0 */
/* The block kernels of depthwise_3x3_s8_dsp.h for Armv7E-M and Armv8-M with DSP instructions.
 *
 * The panel slides past one channel of one line at a time, whose weights, bias and multiplier stay in registers. A
 * pixel adds to three windows: it ends one, is the middle of one and begins one, whose sums trade places over three
 * steps.
 * 14 registers hold all of this, so ends and pointers of channels live on the stack.
 * LDRD, STRD and LDM touch only lines[], panel, records and stack, which are words: x and y may have any alignment. */

#if defined(__ARM_FEATURE_DSP) && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'

        .syntax unified
        .thumb

#define SAVED 36        /* r4-r11 and lr */
#define IN 0            /* panel of the next channel */
#define Y 4             /* its first output */
#define LAST2 8         /* where in the panel two outputs of this channel are left */
#define END 12
#define RECORD 16       /* of the next channel */
#define RECORDS_END 20
#define SPAN 24         /* bytes of the panel */
#define FRAME 28
#define PIXEL 32        /* bytes of the panel */
#define RECORDS 112     /* four of 7 words */

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
        .endm

/* The next pixel: ends the window in a, which is requantized and stored, is the middle of that in b and begins one in
 * p. No instruction here touches the flags. r8: third tap of the lone line, and y's step; r9 bias, r10 2*mult, r11 zero
 * point */
        .macro  next_pixel lane, a, b, p, w0, w1, w2, lone
        ldrd    \p, lr, [r0], #PIXEL
        smlad   \a, \p, \w2, \a
        smlad   \b, \p, \w1, \b
        smla\lane\()b \a, lr, r8, \a
        smlad   \p, \p, \w0, r9
        smla\lane\()t \b, lr, \lone, \b
        smmlar  \a, \a, r10, r11
        smla\lane\()b \p, lr, \lone, \p
        ssat    \a, #8, \a
        strb    \a, [r1]
        add     r1, r1, r8, asr #16
        .endm

/* All outputs of one channel. */
        .macro  slide lane, a, b, p, w0, w1, w2, lone
        ldrd    \a, lr, [r0], #PIXEL
        smlad   \a, \a, \w0, r9
        smla\lane\()b \a, lr, \lone, \a
        ldrd    \b, lr, [r0], #PIXEL
        smlad   \a, \b, \w1, \a
        smlad   \b, \b, \w0, r9
        smla\lane\()t \a, lr, \lone, \a
        smla\lane\()b \b, lr, \lone, \b
        ldr     lr, [sp, #LAST2]
        cmp     r0, lr
1:      next_pixel \lane, \a, \b, \p, \w0, \w1, \w2, \lone
        bhi     2f                                      /* it was the last */
        next_pixel \lane, \b, \p, \a, \w0, \w1, \w2, \lone
        beq     2f
        next_pixel \lane, \p, \a, \b, \w0, \w1, \w2, \lone
        ldr     lr, [sp, #LAST2]
        cmp     r0, lr
        bls     1b
        ldr     lr, [sp, #END]
        cmp     lr, r0
        bhi     1b                                      /* one is left */
2:
        .endm

/* Pointers, ends and record (r4-r10) of the next channel. */
        .macro  begin_channel
        ldrd    r0, r1, [sp, #IN]
        ldr     r3, [sp, #SPAN]
        ldr     r2, [sp, #RECORD]
        add     r3, r0, r3
        sub     r12, r3, #2 * PIXEL
        strd    r12, r3, [sp, #LAST2]
        add     r3, r0, #8
        add     r12, r1, #1
        strd    r3, r12, [sp, #IN]
        ldm     r2!, {r4-r10}
        str     r2, [sp, #RECORD]
        .endm

/* The record pairs the first two rows of taps; a first line wants the last two in r4, r5, r12, the first in r2, r8. */
        .macro  first_line_taps
        pkhbt   r2, r4, r5, lsl #16                     /* taps 0 and 1 of the first row */
        pkhtb   r5, r7, r5, asr #16                     /* tap 1 of the second and third row */
        lsl     r3, r7, #16
        pkhtb   r4, r3, r4, asr #16
        lsl     r12, r8, #16
        pkhtb   r12, r12, r6, asr #16
        pkhbt   r8, r6, r8                              /* tap 2 of the first row, step of y */
        .endm

        .macro  next_channel begin
        ldrd    r2, r3, [sp, #RECORD]
        cmp     r2, r3
        bne     \begin
        .endm

/* r0 panel, r1 records, r2 y, r3 outputs, y_cross, lines, zero_point */
        begin_function edgec_depthwise_3x3_s8_dsp_slide
        push    {r4-r11, lr}
        sub     sp, #FRAME
        strd    r0, r2, [sp, #IN]
        add     r3, r3, #2
        lsl     r3, r3, #5
        str     r3, [sp, #SPAN]
        add     r12, r1, #RECORDS
        strd    r1, r12, [sp, #RECORD]
        ldr     r11, [sp, #FRAME + SAVED + 8]

/* Line 0 meets the first row of the weights, lines 1 and 2 the others. The record pairs the first two rows. */
first_line:
        begin_channel
        first_line_taps
        slide   b, r3, r6, r7, r4, r5, r12, r2
        next_channel first_line

        ldr     r3, [sp, #FRAME + SAVED + 4]
        cmp     r3, #1
        beq     3f
        ldrd    r0, r1, [sp, #IN]
        sub     r0, r0, #32                             /* four channels of 8 bytes */
        sub     r1, r1, #4
        ldr     r3, [sp, #FRAME + SAVED]
        add     r1, r1, r3
        strd    r0, r1, [sp, #IN]
        sub     r2, r2, #RECORDS
        str     r2, [sp, #RECORD]

/* Lines 1 and 2 meet the first two rows, line 3 the third. */
second_line:
        begin_channel
        slide   t, r2, r3, r12, r4, r5, r6, r7
        next_channel second_line
3:      add     sp, #FRAME
        pop     {r4-r11, pc}
        end_function edgec_depthwise_3x3_s8_dsp_slide, SAVED + FRAME

/* The next two pixels: the middle of the window in a, and its end, which begins the one in b. No instruction here
 * touches the flags. */
        .macro  next_two_pixels a, b
        ldrd    r7, lr, [r0], #PIXEL
        smlad   \a, r7, r5, \a
        smlabt  \a, lr, r2, \a
        ldrd    \b, lr, [r0], #PIXEL
        smlad   \a, \b, r12, \a
        smlabb  \a, lr, r8, \a
        smlad   \b, \b, r4, r9
        smmlar  \a, \a, r10, r11
        smlabb  \b, lr, r2, \b
        ssat    \a, #8, \a
        strb    \a, [r1]
        add     r1, r1, r8, asr #16
        .endm

/* r0 panel, r1 records, r2 y, r3 outputs, zero_point */
        begin_function edgec_depthwise_3x3_s8_dsp_slide2
        push    {r4-r11, lr}
        sub     sp, #FRAME
        strd    r0, r2, [sp, #IN]
        lsl     r3, r3, #6
        add     r3, r3, #PIXEL
        str     r3, [sp, #SPAN]
        add     r12, r1, #RECORDS
        strd    r1, r12, [sp, #RECORD]
        ldr     r11, [sp, #FRAME + SAVED]
two_apart:
        begin_channel
        first_line_taps
        ldrd    r3, lr, [r0], #PIXEL
        smlad   r3, r3, r4, r9
        smlabb  r3, lr, r2, r3
        ldr     lr, [sp, #LAST2]
        cmp     r0, lr
1:      next_two_pixels r3, r6
        beq     2f                                      /* it was the last */
        next_two_pixels r6, r3
        ldr     lr, [sp, #LAST2]
        cmp     r0, lr
        bls     1b
2:      next_channel two_apart
        add     sp, #FRAME
        pop     {r4-r11, pc}
        end_function edgec_depthwise_3x3_s8_dsp_slide2, SAVED + FRAME

/* Three lines to the panel, as below; what lies beside the first is no line. */
        begin_function edgec_depthwise_3x3_s8_dsp_pack3 /* r0 lines, r1 pixels, r2 step, r3 panel */
        push    {r4-r11, lr}
        ldm     r0, {r4-r6}
        mul     r1, r1, r2
        add     r4, r4, r1
        add     r5, r5, r1
        add     r6, r6, r1
        rsb     r12, r1, #0
        sub     r3, r3, #8
1:      ldr     r0, [r5, r12]
        ldr     r1, [r6, r12]
        ldr     r7, [r4, r12]
        sxtb16  r8, r0
        sxtb16  r9, r1
        sxtb16  r10, r7
        pkhbt   lr, r8, r9, lsl #16
        pkhtb   r9, r9, r8, asr #16
        asr     r11, r10, #16
        strd    lr, r10, [r3, #8]                       /* channel 0 */
        strd    r9, r11, [r3, #24]                      /* channel 2 */
        sxtb16  r0, r0, ror #8
        sxtb16  r1, r1, ror #8
        sxtb16  r7, r7, ror #8
        adds    r12, r12, r2
        pkhbt   lr, r0, r1, lsl #16
        pkhtb   r1, r1, r0, asr #16
        asr     r11, r7, #16
        strd    lr, r7, [r3, #16]                       /* channel 1 */
        strd    r1, r11, [r3, #PIXEL]!                  /* channel 3 */
        bne     1b
        pop     {r4-r11, pc}
        end_function edgec_depthwise_3x3_s8_dsp_pack3, SAVED

/* Four lines to the panel: r4-r7 where each ends, r12 bytes to there, r3 the panel, whose words of a pixel begin 8
 * bytes on. Two words are loaded twice, since registers are scarce. */
        begin_function edgec_depthwise_3x3_s8_dsp_pack /* r0 lines, r1 pixels, r2 step, r3 panel */
        push    {r4-r11, lr}
        ldm     r0, {r4-r7}
        mul     r1, r1, r2
        add     r4, r4, r1
        add     r5, r5, r1
        add     r6, r6, r1
        add     r7, r7, r1
        rsb     r12, r1, #0
        sub     r3, r3, #8
1:      ldr     r0, [r5, r12]
        ldr     r1, [r6, r12]
        ldr     r10, [r4, r12]
        ldr     r11, [r7, r12]
        sxtb16  r8, r0
        sxtb16  r9, r1
        sxtb16  r10, r10
        sxtb16  r11, r11
        pkhbt   lr, r8, r9, lsl #16
        pkhtb   r9, r9, r8, asr #16
        pkhbt   r8, r10, r11, lsl #16
        pkhtb   r11, r11, r10, asr #16
        strd    lr, r8, [r3, #8]                        /* channel 0 */
        strd    r9, r11, [r3, #24]                      /* channel 2 */
        ldr     r10, [r4, r12]
        ldr     r11, [r7, r12]
        sxtb16  r0, r0, ror #8
        sxtb16  r1, r1, ror #8
        sxtb16  r10, r10, ror #8
        sxtb16  r11, r11, ror #8
        adds    r12, r12, r2
        pkhbt   lr, r0, r1, lsl #16
        pkhbt   r8, r10, r11, lsl #16
        pkhtb   r1, r1, r0, asr #16
        pkhtb   r11, r11, r10, asr #16
        strd    lr, r8, [r3, #16]                       /* channel 1 */
        strd    r1, r11, [r3, #PIXEL]!                  /* channel 3 */
        bne     1b
        pop     {r4-r11, pc}
        end_function edgec_depthwise_3x3_s8_dsp_pack, SAVED

#elif defined(__linux__)
        .section .note.GNU-stack, "", %progbits         /* the stack of a program that links this empty file stays data */
#endif
