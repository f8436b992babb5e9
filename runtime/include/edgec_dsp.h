/* SPDX-License-Identifier: Apache-2.0 */
/* The Armv7E-M / Armv8-M DSP instructions that the kernels use, and their exact definitions in portable C for every other CPU. */
#ifndef EDGEC_DSP_H
#define EDGEC_DSP_H

#include <stdint.h>

#if defined(__ARM_FEATURE_DSP) && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
#define EDGEC_HAS_DSP 1
#include <arm_acle.h>
#else
#define EDGEC_HAS_DSP 0
#endif

/* Two signed 16-bit lanes in one word: lane 0 is bits 0..15, lane 1 is bits 16..31. */
static inline int32_t edgec_lane0(uint32_t lanes) { return (int32_t)((lanes & 0xFFFFu) ^ 0x8000u) - 0x8000; }
static inline int32_t edgec_lane1(uint32_t lanes) { return edgec_lane0(lanes >> 16); }

/* A word from any address, little endian. */
static inline uint32_t edgec_load_word(const int8_t *p)
{
    uint32_t word;
    __builtin_memcpy(&word, p, sizeof word); /* the library may have no string.h */
    return word;
}

/* SMLAD: acc + a0*b0 + a1*b1 modulo 2^32. */
static inline uint32_t edgec_smlad(uint32_t a, uint32_t b, uint32_t acc)
{
#if EDGEC_HAS_DSP
    return (uint32_t)__smlad((int16x2_t)a, (int16x2_t)b, (int32_t)acc);
#else
    return acc + (uint32_t)(edgec_lane0(a) * edgec_lane0(b)) + (uint32_t)(edgec_lane1(a) * edgec_lane1(b));
#endif
}

/* SMLALD: the same in 64 bits. */
static inline int64_t edgec_smlald(uint32_t a, uint32_t b, int64_t acc)
{
#if EDGEC_HAS_DSP
    return __smlald((int16x2_t)a, (int16x2_t)b, acc);
#else
    return acc + (int64_t)edgec_lane0(a) * edgec_lane0(b) + (int64_t)edgec_lane1(a) * edgec_lane1(b);
#endif
}

/* SMLABB: acc + a0*b0, the lower lanes. */
static inline int32_t edgec_smlabb(uint32_t a, uint32_t b, int32_t acc)
{
#if EDGEC_HAS_DSP
    return __smlabb((int32_t)a, (int32_t)b, acc);
#else
    return acc + edgec_lane0(a) * edgec_lane0(b);
#endif
}

/* SMLATT: acc + a1*b1, the upper lanes. */
static inline int32_t edgec_smlatt(uint32_t a, uint32_t b, int32_t acc)
{
#if EDGEC_HAS_DSP
    return __smlatt((int32_t)a, (int32_t)b, acc);
#else
    return acc + edgec_lane1(a) * edgec_lane1(b);
#endif
}

/* SXTB16: bytes 0 and 2, sign-extended, become lanes 0 and 1. */
static inline uint32_t edgec_sxtb16(uint32_t bytes)
{
#if EDGEC_HAS_DSP
    return (uint32_t)__sxtb16((int8x4_t)bytes);
#else
    uint32_t low = ((bytes & 0xFFu) ^ 0x80u) - 0x80u;
    uint32_t high = (((bytes >> 16) & 0xFFu) ^ 0x80u) - 0x80u;
    return (low & 0xFFFFu) | (high << 16);
#endif
}

/* SXTB16 with ROR #8: bytes 1 and 3, sign-extended, become lanes 0 and 1. */
static inline uint32_t edgec_sxtb16_ror8(uint32_t bytes)
{
    return edgec_sxtb16((bytes >> 8) | (bytes << 24));
}

/* UXTB16: bytes 0 and 2 become lanes 0 and 1; with ROR #8 bytes 1 and 3. Compilers know these expressions. */
static inline uint32_t edgec_uxtb16(uint32_t bytes) { return bytes & 0x00FF00FFu; }
static inline uint32_t edgec_uxtb16_ror8(uint32_t bytes) { return (bytes >> 8) & 0x00FF00FFu; }

/* SSUB16: a0 - b0 and a1 - b1, each modulo 2^16. */
static inline uint32_t edgec_ssub16(uint32_t a, uint32_t b)
{
#if EDGEC_HAS_DSP
    return (uint32_t)__ssub16((int16x2_t)a, (int16x2_t)b);
#else
    return ((a - b) & 0xFFFFu) | ((a & 0xFFFF0000u) - (b & 0xFFFF0000u));
#endif
}

/* SXTAB16: bytes 0 and 2, sign-extended, added to the lanes, each modulo 2^16. */
static inline uint32_t edgec_sxtab16(uint32_t lanes, uint32_t bytes)
{
#if EDGEC_HAS_DSP
    return (uint32_t)__sxtab16((int16x2_t)lanes, (int8x4_t)bytes);
#else
    const uint32_t widened = edgec_sxtb16(bytes);
    return ((lanes + widened) & 0xFFFFu) | ((lanes & 0xFFFF0000u) + (widened & 0xFFFF0000u));
#endif
}

/* SXTAB16 with ROR #8: bytes 1 and 3. */
static inline uint32_t edgec_sxtab16_ror8(uint32_t lanes, uint32_t bytes)
{
    return edgec_sxtab16(lanes, (bytes >> 8) | (bytes << 24));
}

/* SSUB8 and SEL: the larger of two signed bytes, four times. */
static inline uint32_t edgec_larger_bytes(uint32_t a, uint32_t b)
{
#if EDGEC_HAS_DSP
    uint32_t larger; /* one piece: the flags between the two are no value that a compiler knows */
    __asm__("ssub8 %0, %1, %2\n\tsel %0, %1, %2" : "=&r"(larger) : "r"(a), "r"(b) : "cc");
    return larger;
#else
    uint32_t larger = 0;
    for (int i = 0; i < 32; i += 8) {
        const uint32_t from = ((a >> i & 0xFFu) ^ 0x80u) > ((b >> i & 0xFFu) ^ 0x80u) ? a : b;
        larger |= from & (uint32_t)0xFF << i;
    }
    return larger;
#endif
}

/* SMMLAR: addend + round(a*b / 2^32), halves up, modulo 2^32. */
static inline int32_t edgec_smmlar(int32_t a, int32_t b, int32_t addend)
{
#if EDGEC_HAS_DSP
    int32_t result;
    __asm__("smmlar %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(addend));
    return result;
#else
    uint64_t product = (uint64_t)((int64_t)a * b) + 0x80000000u;
    return (int32_t)((uint32_t)(product >> 32) + (uint32_t)addend);
#endif
}

/* SMMLSR: addend + round(-a*b / 2^32), halves up, modulo 2^32. */
static inline int32_t edgec_smmlsr(int32_t a, int32_t b, int32_t addend)
{
#if EDGEC_HAS_DSP
    int32_t result;
    __asm__("smmlsr %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(addend));
    return result;
#else
    uint64_t product = 0x80000000u - (uint64_t)((int64_t)a * b);
    return (int32_t)((uint32_t)(product >> 32) + (uint32_t)addend);
#endif
}

/* SMMULR: round(a*b / 2^32), halves up. */
static inline int32_t edgec_smmulr(int32_t a, int32_t b)
{
    return edgec_smmlar(a, b, 0);
}

/* QADD: a + b, saturated to int32. */
static inline int32_t edgec_qadd(int32_t a, int32_t b)
{
#if EDGEC_HAS_DSP
    return __qadd(a, b);
#else
    int64_t sum = (int64_t)a + b;
    return sum > INT32_MAX ? INT32_MAX : sum < INT32_MIN ? INT32_MIN : (int32_t)sum;
#endif
}

/* SSAT #8: saturated to int8. */
static inline int8_t edgec_ssat8(int32_t value)
{
#if EDGEC_HAS_DSP
    return (int8_t)__ssat(value, 8);
#else
    return (int8_t)(value > 127 ? 127 : value < -128 ? -128 : value);
#endif
}

/* SSAT #16: saturated to int16. */
static inline int16_t edgec_ssat16(int32_t value)
{
#if EDGEC_HAS_DSP
    return (int16_t)__ssat(value, 16);
#else
    return (int16_t)(value > INT16_MAX ? INT16_MAX : value < INT16_MIN ? INT16_MIN : value);
#endif
}

#endif
