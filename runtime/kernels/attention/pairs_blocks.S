/* SPDX-License-Identifier: Apache-2.0 */
/* The block kernels of pairs.h for Armv7E-M and Armv8-M with DSP instructions.
 *
 * SMLAD with the raw word sums 256*P1 + U0, with UXTB16 of it U0 = P0 + 128*(sum of the row); both sums begin at
 * -128*(sum of the row), so they end at 256*P1 + P0 and P0. Registers and the entry into the body are as in
 * linear_s8_dsp_rows4.S: r4-r7 both of rows 0-3, r8-r11 even, r2 r3 activations, r12 a packed word, lr its even
 * columns, r0 panel, r1 packed words. LDRD touches only the panel, the block and the stack, which are words. */

#if defined(__ARM_FEATURE_DSP) && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'

        .syntax unified
        .thumb

#define SAVED 36 /* r4-r11 and lr */

/* edgec_pairs_block */
#define BLOCK_Y 0
#define BLOCK_STEPS 4
#define BLOCK_PAIRS 16
#define BLOCK_GROUPS 20
#define BLOCK_STRIDE 24
#define BLOCK_MULT 28
#define BLOCK_START 36

#define PANEL 0
#define ENTRY 4
#define PANEL_END 8
#define STRIDE 12
#define Y 16
#define BLOCK 20
#define LEFT 24
#define PAIR 28
#define FRAME 32

        .macro  step far, second
        ldrd    r2, r3, [r0], #8
        uxtb16  lr, r12
        smlad   r4, r2, r12, r4
        smlad   r5, r3, r12, r5
        smlad   r8, r2, lr, r8
        smlad   r9, r3, lr, r9
        ldrd    r2, r3, [r0], #8
        smlad   r6, r2, r12, r6
        smlad   r7, r3, r12, r7
        .if     !\second
        .if     \far
        ldr.w   r12, [r1, #4]
        .else
        ldr.w   r12, [r1], #4
        .endif
        .endif
        smlad   r10, r2, lr, r10
        smlad   r11, r3, lr, r11
        .endm

        .macro  group far
        .if     \far
        ldr.w   r12, [r1]
        .else
        ldr.w   r12, [r1], #4
        .endif
        step    \far, 0
        step    \far, 1
        .if     \far
        ldr.w   lr, [sp, #STRIDE]
        add.w   r1, r1, lr
        .endif
        .endm

/* A function of its own for each order of the packed words. */
        .macro  rows4 name, far, group_bytes
        .section .text.\name, "ax", %progbits
        .p2align 2
        .global \name
        .type   \name, %function
        .thumb_func
\name:
        push    {r4-r11, lr}
        sub     sp, #FRAME
        ldrd    r4, r5, [r2, #BLOCK_PAIRS]              /* pairs, groups */
        rsb     r6, r5, #0                              /* entry: the body has four groups */
        and     r6, r6, #3
        mov     r7, #\group_bytes
        mul     r6, r6, r7
        adr.w   r7, 2f
        add     r6, r6, r7
        orr     r6, r6, #1
        strd    r0, r6, [sp, #PANEL]
        add     r0, r0, r5, lsl #5                      /* a group is 8 words */
        ldr     r6, [r2, #BLOCK_STRIDE]
        strd    r0, r6, [sp, #PANEL_END]
        ldr     r3, [r2, #BLOCK_Y]
        strd    r3, r2, [sp, #Y]
        mov     r12, r2
        b       1f
9:      ldr     r12, [sp, #BLOCK]
1:      strd    r4, r1, [sp, #LEFT]
        ldrd    r8, r9, [r12, #BLOCK_START]
        ldrd    r10, r11, [r12, #BLOCK_START + 8]
        ldrd    r0, r2, [sp, #PANEL]
        mov     r4, r8
        mov     r5, r9
        mov     r6, r10
        mov     r7, r11
        bx      r2
        .p2align 2
2:
        .rept   4
        group   \far
        .endr
        .if     . - 2b != 4 * \group_bytes
        .error  "an instruction of the body is not four bytes long"
        .endif
        ldr     r2, [sp, #PANEL_END]
        cmp     r0, r2
        bne     2b

        ldr     r12, [sp, #BLOCK]
        sub     r4, r4, r8
        sub     r5, r5, r9
        sub     r6, r6, r10
        sub     r7, r7, r11
        ldrd    r0, r2, [r12, #BLOCK_MULT]              /* 2 * mult, zero point */
        asrs    r4, r4, #8
        asrs    r5, r5, #8
        asrs    r6, r6, #8
        asrs    r7, r7, #8
        smmlar  r8, r8, r0, r2
        smmlar  r9, r9, r0, r2
        smmlar  r10, r10, r0, r2
        smmlar  r11, r11, r0, r2
        smmlar  r4, r4, r0, r2
        smmlar  r5, r5, r0, r2
        smmlar  r6, r6, r0, r2
        smmlar  r7, r7, r0, r2
        ldr     r3, [sp, #Y]
        ldr     lr, [r12, #BLOCK_STEPS]
        ldrd    r0, r2, [r12, #BLOCK_STEPS + 4]
        ssat    r8, #8, r8
        ssat    r4, #8, r4
        ssat    r9, #8, r9
        ssat    r5, #8, r5
        ssat    r10, #8, r10
        ssat    r6, #8, r6
        ssat    r11, #8, r11
        ssat    r7, #8, r7
        add     r12, r3, #2
        str     r12, [sp, #Y]
        strb    r8, [r3]
        strb    r4, [r3, #1]
        add     r3, lr
        strb    r9, [r3]
        strb    r5, [r3, #1]
        add     r3, r0
        strb    r10, [r3]
        strb    r6, [r3, #1]
        add     r3, r2
        strb    r11, [r3]
        strb    r7, [r3, #1]
        .if     \far
        ldrd    r4, r1, [sp, #LEFT]
        adds    r1, #8
        .else
        ldr     r4, [sp, #LEFT]
        ldr     r2, [sp, #STRIDE]
        add     r1, r2
        .endif
        subs    r4, #1
        bne     9b
        add     sp, #FRAME
        pop     {r4-r11, pc}
        .size   \name, . - \name
        .section .stack_sizes, "o", %progbits, .text.\name
        .long   \name
        .uleb128 SAVED + FRAME
        .set    edgec_local_jumps.\name, \name          /* the computed entry stays inside: see edgec/device/stack.py */
        .endm

        rows4   edgec_pairs_near_rows4, 0, 96
        rows4   edgec_pairs_far_rows4, 1, 104

#elif defined(__linux__)
        .section .note.GNU-stack, "", %progbits         /* the stack of a program that links this empty file stays data */
#endif
