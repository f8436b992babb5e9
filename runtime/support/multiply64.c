/* SPDX-License-Identifier: Apache-2.0 */
/* 64-bit product of the ARM run-time ABI, modulo 2^64, for cores whose multiplier gives 32 bits (Armv6-M). */
/* In assembly, because a compiler would recognise the product in its parts. a is in r0:r1, b in r2:r3. */
__attribute__((naked)) void __aeabi_lmul(void);
__attribute__((naked)) void __aeabi_lmul(void) {
  __asm volatile(
      "push {r4, lr}\n"
      "muls r1, r2, r1\n" /* the upper word takes a_high * b_low + a_low * b_high */
      "muls r3, r0, r3\n"
      "adds r1, r1, r3\n"
      "mov r12, r1\n"
      "uxth r3, r0\n" /* a_low * b_low in halves of 16 bits */
      "lsrs r0, r0, #16\n"
      "lsrs r4, r2, #16\n"
      "uxth r2, r2\n"
      "movs r1, r0\n"
      "muls r1, r4, r1\n" /* upper halves */
      "muls r4, r3, r4\n"
      "muls r0, r2, r0\n"
      "muls r3, r2, r3\n" /* lower halves */
      "movs r2, #0\n"
      "adds r0, r0, r4\n" /* the two mixed products, and their carry */
      "adcs r2, r2\n"
      "lsls r2, r2, #16\n"
      "adds r1, r1, r2\n"
      "lsls r4, r0, #16\n"
      "lsrs r2, r0, #16\n"
      "adds r0, r3, r4\n"
      "adcs r1, r2\n"
      "add r1, r12\n"
      "pop {r4, pc}\n"
      ".pushsection .stack_sizes,\"o\",%progbits,.text.__aeabi_lmul\n"
      ".long __aeabi_lmul\n"
      ".uleb128 8\n"
      ".popsection\n");
}
