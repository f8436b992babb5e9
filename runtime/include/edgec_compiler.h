/* SPDX-License-Identifier: Apache-2.0 */
/* What kernels ask of the compiler where it costs flash for nothing otherwise; compilers that do not know it do without. */
#ifndef EDGEC_COMPILER_H
#define EDGEC_COMPILER_H

#if defined(__clang__)
#define EDGEC_KEEP_LOOP _Pragma("clang loop unroll(disable)") /* the loop behind it is not unrolled */
#define EDGEC_UNROLL_TWICE _Pragma("clang loop unroll_count(2)")
#define EDGEC_MINSIZE __attribute__((minsize)) /* a function that only steers */
#else
#define EDGEC_KEEP_LOOP
#define EDGEC_UNROLL_TWICE
#define EDGEC_MINSIZE
#endif

#endif
