/* SPDX-License-Identifier: Apache-2.0 */
/* What a core does not have: the engine executes every Thumb instruction on every core. Architecture Reference Manuals
 * of Armv6-M (DDI 0419, section A5) and Armv7-M (DDI 0403, section A5). */
#include "timing.h"

/* 32-bit instructions that are there on Armv6-M: BL, MSR, MRS and the barriers. */
static int wide_on_v6m(uint16_t a, uint16_t b) {
  if ((a & 0xF800u) != 0xF000u || !(b & 0x8000u)) return 0;
  return (b & 0xD000u) == 0xD000u || ((b & 0x5000u) == 0u && (a >> 6 & 15u) >= 14u);
}

static int of_dsp_set(uint16_t a, uint16_t b) {
  const uint32_t operation = (a >> 4) & 7u, low = (b >> 4) & 15u;
  if ((a & 0xFFE0u) == 0xEAC0u) return 1;                                                 /* PKH */
  if (((a & 0xFFF0u) == 0xF320u || (a & 0xFFF0u) == 0xF3A0u) && !(b & 0xF0C0u)) return 1; /* SSAT16, USAT16 */
  switch (a & 0xFF80u) {
    case 0xFA00u: return (b & 0x80u) && ((a & 15u) != PC || operation == 2u || operation == 3u); /* SXTAB, SXTB16 .. */
    case 0xFA80u: return !(b & 0x80u) || !(a & 0x10u); /* parallel arithmetic; QADD .., SEL; not REV .. and CLZ */
    case 0xFB00u: return operation != 0u;              /* all but MUL, MLA and MLS */
    case 0xFB80u: return operation == 5u || (operation == 4u && low != 0u) || (operation == 6u && low != 0u);
    default: return 0;
  }
}

int isa_lacks(uint32_t set, uint16_t first, uint16_t second) {
  if ((first >> 11) >= 0x1Du) return set == ISA_V6M ? !wide_on_v6m(first, second) : set == ISA_V7M && of_dsp_set(first, second);
  if (set != ISA_V6M) return 0;
  return (first & 0xF500u) == 0xB100u || ((first & 0xFF00u) == 0xBF00u && (first & 15u) != 0u); /* CBZ, CBNZ; IT */
}
