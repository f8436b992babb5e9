/* SPDX-License-Identifier: Apache-2.0 */
/* Two stages of the Fourier transform on four elements at a time, all of them in registers; transform.c has it in C. */
#if defined(__ARM_FEATURE_DSP) && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'

        .syntax unified
        .thumb

#define SAVED 36 /* r4-r11 and lr */
#define DISTANCE 0 /* bytes from one of the four to the next */
#define END 4
#define FIRST 8 /* the factors of both stages */
#define SECOND 12
#define STEP 16 /* bytes from one factor of the second stage to the next */
#define Z 20
#define Z_END 24
#define FRAME 28

/* The imaginary part of b stays in its register; its real part comes to `free`, and its own register is free then. */
        .macro  butterfly a_re, a_im, b_re, b_im, c, s, free
        asr     \a_re, \a_re, #1
        asr     \a_im, \a_im, #1
        smmlar  \free, \b_re, \c, \a_re
        smmlar  \free, \b_im, \s, \free
        smmlar  \b_im, \b_im, \c, \a_im
        smmlsr  \b_im, \b_re, \s, \b_im
        rsb     \a_re, \free, \a_re, lsl #1
        rsb     \a_im, \b_im, \a_im, lsl #1
        .endm

/* A quarter of a turn on. */
        .macro  butterfly_on a_re, a_im, b_re, b_im, c, s, free
        asr     \a_re, \a_re, #1
        asr     \a_im, \a_im, #1
        smmlsr  \free, \b_re, \s, \a_re
        smmlar  \free, \b_im, \c, \free
        smmlsr  \b_im, \b_im, \s, \a_im
        smmlsr  \b_im, \b_re, \c, \b_im
        rsb     \a_re, \free, \a_re, lsl #1
        rsb     \a_im, \b_im, \a_im, lsl #1
        .endm

/* two_stages(r0 z, r1 twiddles, r2 points, r3 half), half a power of two below points / 2 + 1
 * r0: an element, r2-r9 and r1: four elements and a free register, r10 r11 and r12 lr: factors of the two stages */
        .section .text.edgec_front_end_two_stages, "ax", %progbits
        .p2align 2
        .global edgec_front_end_two_stages
        .type   edgec_front_end_two_stages, %function
        .thumb_func
edgec_front_end_two_stages:
        push    {r4-r11, lr}
        sub     sp, #FRAME
        lsl     r4, r3, #3
        add     r5, r0, r2, lsl #3
        clz     r6, r3
        rsb     r6, r6, #31
        lsl     r7, r2, #2
        lsr     r7, r7, r6                              /* 4 * points / half */
        add     r8, r0, r4
        strd    r4, r5, [sp, #DISTANCE]
        strd    r1, r1, [sp, #FIRST]
        strd    r7, r0, [sp, #STEP]
        str     r8, [sp, #Z_END]
two_stages_factors:
        ldrd    r1, r2, [sp, #FIRST]
        ldr     r3, [sp, #STEP]
        ldrd    r10, r11, [r1]
        ldrd    r12, lr, [r2]
        add     r1, r1, r3, lsl #1
        add     r2, r2, r3
        strd    r1, r2, [sp, #FIRST]
two_stages_group:
        ldr     r1, [sp, #DISTANCE]
        ldrd    r2, r3, [r0]
        add     r0, r0, r1
        ldrd    r4, r5, [r0]
        add     r0, r0, r1
        ldrd    r6, r7, [r0]
        add     r0, r0, r1
        ldrd    r8, r9, [r0]
        butterfly r2, r3, r4, r5, r10, r11, r1
        butterfly r6, r7, r8, r9, r10, r11, r4
        butterfly r2, r3, r6, r7, r12, lr, r8
        butterfly_on r1, r5, r4, r9, r12, lr, r6
        ldr     r4, [sp, #DISTANCE]
        strd    r6, r9, [r0]
        sub     r0, r0, r4
        strd    r8, r7, [r0]
        sub     r0, r0, r4
        strd    r1, r5, [r0]
        sub     r0, r0, r4
        strd    r2, r3, [r0]
        add     r0, r0, r4, lsl #2
        ldr     r4, [sp, #END]
        cmp     r0, r4
        blo     two_stages_group
        ldr     r0, [sp, #Z]
        ldr     r1, [sp, #Z_END]
        adds    r0, #8
        str     r0, [sp, #Z]
        cmp     r0, r1
        bne     two_stages_factors
        add     sp, #FRAME
        pop     {r4-r11, pc}
        .size   edgec_front_end_two_stages, . - edgec_front_end_two_stages
/* What -fstack-size-section emits for a compiled function. */
        .section .stack_sizes, "o", %progbits, .text.edgec_front_end_two_stages
        .long   edgec_front_end_two_stages
        .uleb128 SAVED + FRAME

#elif defined(__linux__)
        .section .note.GNU-stack, "", %progbits         /* the stack of a program that links this empty file stays data */
#endif
