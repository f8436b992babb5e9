/* SPDX-License-Identifier: Apache-2.0 */
/* Thumb-2 instructions by what they occupy and which registers they wait for (ARMv7-M Architecture Reference Manual,
 * chapter A5). What is not needed for timing is not told apart. */
#include "timing.h"

enum { SP = 13, LR = 14 };

static uint16_t reg(uint32_t number) { return (uint16_t)(1u << (number & 15u)); }
static uint16_t unless_pc(uint32_t number) { return (number & 15u) == PC ? 0 : reg(number); }

static uint8_t ones(uint32_t set) { return (uint8_t)__builtin_popcount(set); }

static instruction make(uint8_t kind, uint16_t traits) {
  instruction i = {0};
  i.kind = kind;
  i.traits = traits;
  i.index = NO_REGISTER;
  return i;
}

/* A load or store of one core register. */
static instruction single(int load, uint32_t size, uint32_t data, uint32_t base, int32_t offset) {
  instruction i = make(load ? KIND_LOAD : KIND_STORE, size < 4u && load ? NARROW_DATA : 0);
  i.address = unless_pc(base);
  i.size = (uint8_t)size;
  i.base = (uint8_t)base;
  i.offset = (int16_t)offset;
  if (load) {
    i.results = reg(data);
    if (data == PC) i.kind = KIND_BRANCH, i.traits = INDIRECT;
  } else {
    i.stored = reg(data);
  }
  return i;
}

static instruction indexed(instruction i, uint32_t index, uint32_t shift) {
  i.index = (uint8_t)index;
  i.shift = (uint8_t)shift;
  i.address |= reg(index);
  return i;
}

static instruction many(int load, uint32_t list, uint32_t base, int writeback, int down) {
  instruction i = make(load ? KIND_LOAD_MANY : KIND_STORE_MANY, 0);
  i.count = ones(list & 0xFFFFu);
  i.size = 4;
  i.base = (uint8_t)base;
  i.offset = (int16_t)(down ? -4 * i.count : 0);
  i.address = reg(base);
  if (writeback) i.writeback = reg(base);
  if (load) {
    i.results = (uint16_t)list;
    if (list & 0x8000u) i.traits |= INDIRECT;
  } else {
    i.stored = (uint16_t)list;
  }
  return i;
}

static instruction branch(uint16_t traits) { return make(KIND_BRANCH, traits); }

static instruction alu(uint16_t traits, uint16_t operands, uint16_t results) {
  instruction i = make(KIND_ALU, traits);
  i.operands = operands;
  i.results = results;
  return i;
}

static instruction narrow_arithmetic(uint16_t w) {
  const uint32_t low = w & 7u, middle = (w >> 3) & 7u, high = (w >> 8) & 7u;
  if (w < 0x1800u) { /* LSL, LSR, ASR by a constant; MOVS */
    instruction i = alu(SETS_FLAGS | SIMPLE, reg(middle), reg(low));
    i.kind = KIND_SHIFT;
    return i;
  }
  if (w < 0x2000u) return alu(SETS_FLAGS | SIMPLE, (uint16_t)(reg(middle) | (w & 0x400u ? 0 : reg(w >> 6 & 7u))), reg(low));
  if (w < 0x2800u) return alu(SETS_FLAGS | SIMPLE, 0, reg(high));
  if (w < 0x3000u) return alu(SETS_FLAGS, reg(high), 0);
  return alu(SETS_FLAGS | SIMPLE, reg(high), reg(high));
}

static instruction narrow_register(uint16_t w) {
  const uint32_t low = w & 7u, middle = (w >> 3) & 7u, operation = (w >> 6) & 15u;
  const uint16_t both = (uint16_t)(reg(low) | reg(middle));
  instruction i = alu(SETS_FLAGS, both, reg(low));
  switch (operation) {
    case 2: case 3: case 4: case 7: i.kind = KIND_SHIFT; i.traits |= SIMPLE; break;
    case 5: case 6: i.traits |= READS_FLAGS; break;
    case 8: case 10: case 11: i.results = 0; break; /* TST, CMP, CMN */
    case 9: case 15: i.operands = reg(middle); break; /* RSB, MVN */
    case 13: i.kind = KIND_MULTIPLY; break;
    default: break;
  }
  return i;
}

static instruction narrow_special(uint16_t w) { /* ADD, CMP, MOV of any register; BX, BLX */
  const uint32_t destination = (w & 7u) | (w >> 4 & 8u), source = (w >> 3) & 15u;
  switch ((w >> 8) & 3u) {
    case 0: case 2: {
      const int adds = ((w >> 8) & 3u) == 0;
      instruction i = alu(SIMPLE, (uint16_t)(reg(source) | (adds ? reg(destination) : 0)), reg(destination));
      if (destination == PC) i.kind = KIND_BRANCH, i.traits = INDIRECT;
      return i;
    }
    case 1: return alu(SETS_FLAGS, (uint16_t)(reg(source) | reg(destination)), 0);
    default: {
      instruction i = branch(INDIRECT);
      i.operands = reg(source);
      if (w & 0x80u) i.results = reg(LR);
      return i;
    }
  }
}

static instruction narrow_memory(uint16_t w) {
  const uint32_t low = w & 7u, base = (w >> 3) & 7u, offset = (w >> 6) & 31u;
  if (w < 0x5000u) { /* LDR literal */
    return single(1, 4, w >> 8 & 7u, PC, (int32_t)(w & 255u) * 4);
  }
  if (w < 0x6000u) { /* register offset: STR STRH STRB LDRSB LDR LDRH LDRB LDRSH */
    const uint32_t operation = (w >> 9) & 7u, size = operation == 0 || operation == 4 ? 4u : operation & 1u ? 2u : 1u;
    return indexed(single(operation >= 3, operation == 3 ? 1u : size, low, base, 0), offset & 7u, 0);
  }
  if (w < 0x8000u) {
    const int byte = (w >> 12) & 1, load = (w >> 11) & 1;
    return single(load, byte ? 1 : 4, low, base, (int32_t)(byte ? offset : offset * 4));
  }
  if (w < 0x9000u) return single((w >> 11) & 1, 2, low, base, (int32_t)(offset * 2));
  return single((w >> 11) & 1, 4, w >> 8 & 7u, SP, (int32_t)(w & 255u) * 4);
}

static instruction narrow_other(uint16_t w) { /* 1011 xxxx */
  if ((w & 0xFF00u) == 0xB000u) return alu(SIMPLE, reg(SP), reg(SP));
  if ((w & 0xF500u) == 0xB100u) { /* CBZ, CBNZ */
    instruction i = branch(0);
    i.operands = reg(w & 7u);
    return i;
  }
  if ((w & 0xFF00u) == 0xB200u || (w & 0xFF00u) == 0xBA00u) {
    instruction i = make(KIND_BITFIELD, SHIFTER);
    i.early = reg(w >> 3 & 7u);
    i.results = reg(w & 7u);
    return i;
  }
  if ((w & 0xFE00u) == 0xB400u) return many(0, (w & 255u) | (w & 0x100u ? 0x4000u : 0u), SP, 1, 1);
  if ((w & 0xFE00u) == 0xBC00u) return many(1, (w & 255u) | (w & 0x100u ? 0x8000u : 0u), SP, 1, 0);
  if ((w & 0xFF00u) == 0xBF00u && (w & 15u) != 0) { /* IT: how many instructions it governs */
    instruction i = make(KIND_OTHER, IF_THEN);
    i.count = (uint8_t)(4 - __builtin_ctz(w & 15u));
    return i;
  }
  return make(KIND_OTHER, 0);
}

static instruction narrow(uint16_t w) {
  if (w < 0x4000u) return narrow_arithmetic(w);
  if (w < 0x4400u) return narrow_register(w);
  if (w < 0x4800u) return narrow_special(w);
  if (w < 0xA000u) return narrow_memory(w);
  if (w < 0xB000u) return alu(SIMPLE, w & 0x800u ? reg(SP) : 0, reg(w >> 8 & 7u));
  if (w < 0xC000u) return narrow_other(w);
  if (w < 0xD000u) {
    const uint32_t base = (w >> 8) & 7u, list = w & 255u;
    const int load = (w >> 11) & 1;
    return many(load, list, base, !(load && (list >> base & 1u)), 0);
  }
  if (w < 0xDE00u || w >= 0xE000u) return branch(0);
  return make(KIND_OTHER, 0);
}

static instruction wide_data(uint32_t operation, int sets, uint32_t n, uint32_t d) { /* AND ORR ADD ..: the common part */
  instruction i = make(KIND_ALU, sets ? SETS_FLAGS : 0);
  i.results = reg(d);
  i.operands = reg(n);
  if ((operation == 2 || operation == 3) && n == PC) i.operands = 0; /* MOV, MVN */
  if ((operation == 2 && n == PC) || operation == 8 || operation == 13) i.traits |= SIMPLE;
  if (operation == 10 || operation == 11) i.traits |= READS_FLAGS;
  if (d == PC && sets) i.results = 0; /* TST, TEQ, CMN, CMP */
  return i;
}

static instruction wide_shifted_register(uint16_t a, uint16_t b) {
  const uint32_t operation = (a >> 5) & 15u, n = a & 15u, d = (b >> 8) & 15u, m = b & 15u;
  const uint32_t amount = (b >> 10 & 28u) | (b >> 6 & 3u), type = (b >> 4) & 3u;
  instruction i = wide_data(operation, a >> 4 & 1, n, d);
  if (operation == 6) { /* PKH */
    i.kind = KIND_BITFIELD;
    i.traits = SHIFTER;
    i.early = reg(m);
  } else if (operation == 2 && n == PC) { /* MOV or a shift by a constant */
    i.operands = reg(m);
    i.kind = amount != 0 || type != 0 ? KIND_SHIFT : KIND_ALU;
  } else if (amount != 0 || type != 0) {
    i.traits = (uint16_t)((i.traits | SHIFTER) & ~SIMPLE);
    i.early = reg(m);
  } else {
    i.operands |= reg(m);
  }
  return i;
}

static instruction wide_immediate(uint16_t a, uint16_t b) {
  const uint32_t n = a & 15u, d = (b >> 8) & 15u;
  if (!(a & 0x200u)) { /* modified constant: made by rotation when its two top bits say so */
    const uint32_t constant = (a >> 10 & 1u) << 3 | (b >> 12 & 7u);
    instruction i = wide_data((a >> 5) & 15u, a >> 4 & 1, n, d);
    if (constant >= 4u) i.traits = (uint16_t)((i.traits | SHIFTER) & ~SIMPLE);
    return i;
  }
  switch ((a >> 4) & 31u) {
    case 0: case 10: return alu(SIMPLE, reg(n), reg(d)); /* ADDW, SUBW */
    case 4: return alu(SIMPLE, 0, reg(d));               /* MOVW */
    case 12: return alu(SIMPLE | MOVE_TOP, reg(d), reg(d));
    default: {
      instruction i = make(KIND_BITFIELD, SHIFTER); /* SSAT, USAT, SBFX, UBFX, BFI, BFC */
      i.early = unless_pc(n);
      i.results = reg(d);
      if (((a >> 4) & 31u) == 22u) i.operands = reg(d);
      return i;
    }
  }
}

static instruction wide_single(uint16_t a, uint16_t b) {
  const uint32_t size = 1u << ((a >> 5) & 3u), n = a & 15u, t = b >> 12;
  const int load = (a >> 4) & 1;
  if (load && t == PC && size != 4u) return make(KIND_OTHER, 0); /* PLD and hints */
  if (n == PC) return single(load, size, t, PC, a & 0x80u ? b & 0xFFF : -(b & 0xFFF));
  if (a & 0x80u) return single(load, size, t, n, b & 0xFFF);
  if (b & 0x800u) {
    const int32_t offset = b & 0x200u ? (int32_t)(b & 255u) : -(int32_t)(b & 255u);
    instruction i = single(load, size, t, n, b & 0x400u ? offset : 0);
    if (b & 0x100u) i.writeback = reg(n);
    return i;
  }
  return indexed(single(load, size, t, n, 0), b & 15u, b >> 4 & 3u);
}

static instruction wide_register(uint16_t a, uint16_t b) { /* 1111 1010 */
  const uint32_t n = a & 15u, d = (b >> 8) & 15u, m = b & 15u;
  instruction i = make(KIND_BITFIELD, 0);
  i.results = reg(d);
  if (!(a & 0x80u) && !(b & 0x80u)) { /* LSL LSR ASR ROR by a register */
    i.kind = KIND_SHIFT;
    i.traits = (uint16_t)(SIMPLE | (a & 0x10u ? SETS_FLAGS : 0));
    i.operands = (uint16_t)(reg(n) | reg(m));
  } else if (!(a & 0x80u)) { /* SXTAH .. UXTAB */
    i.traits = SHIFTER;
    i.early = reg(m);
    i.operands = unless_pc(n);
  } else { /* parallel addition, QADD, SEL, CLZ, REV */
    i.operands = (uint16_t)(reg(n) | reg(m));
    if ((b & 0x80u) && (a & 0x30u) == 0x10u) i.traits = SHIFTER;
  }
  return i;
}

static instruction wide_multiply(uint16_t a, uint16_t b) {
  const uint32_t operation = (a >> 4) & 7u, low = b >> 12, high = (b >> 8) & 15u;
  instruction i = make(KIND_MULTIPLY, 0);
  i.operands = (uint16_t)(reg(a) | reg(b));
  i.results = reg(high);
  if (!(a & 0x80u)) {
    i.addend = unless_pc(low);
  } else if (operation == 1u || operation == 3u) {
    i.kind = KIND_DIVIDE;
  } else {
    i.results |= reg(low);
    if (operation >= 4u) i.addend = i.results;
  }
  return i;
}

/* The set of single-precision registers that a field names: one, or the two halves of a double. */
static uint32_t fp_reg(int twice, uint32_t field, uint32_t bit) {
  if (twice) return bit ? 0u : 3u << (field & 15u) * 2u;
  return 1u << (((field & 15u) << 1 | (bit & 1u)) & 31u);
}

static instruction floating(uint16_t a, uint16_t b) {
  const int twice = (b >> 8) & 1;
  const uint32_t d = fp_reg(twice, b >> 12, a >> 6 & 1u), n = fp_reg(twice, a, b >> 7 & 1u), m = fp_reg(twice, b, b >> 5 & 1u);
  instruction i = make(KIND_FP, (uint16_t)(FLOATING | (twice ? DOUBLE : 0)));
  if ((a & 0xFFE0u) == 0xEC40u) { /* VMOV of two core registers */
    i.kind = KIND_FP_MOVE;
    i.count = 2;
    const uint16_t cores = (uint16_t)(reg(b >> 12) | reg(a));
    if (a & 0x10u) i.results = cores, i.fp_operands = m; else i.operands = cores, i.fp_results = m;
    return i;
  }
  if ((a & 0xFE00u) == 0xEC00u) {
    const int load = (a >> 4) & 1, one = (a & 0x0120u) == 0x0100u;
    const uint32_t words = one ? (twice ? 2u : 1u) : (b & 255u);
    const uint32_t first = twice ? (b >> 12) * 2u : ((uint32_t)(b >> 12) << 1 | (a >> 6 & 1u));
    const uint32_t list = (words >= 32u ? 0xFFFFFFFFu : (1u << words) - 1u) << (first & 31u);
    i.kind = words > 1u || !one ? (load ? KIND_LOAD_MANY : KIND_STORE_MANY) : (load ? KIND_LOAD : KIND_STORE);
    i.count = (uint8_t)words;
    i.address = unless_pc(a);
    i.size = 4;
    i.base = a & 15u;
    if (!one && (a & 0x20u)) i.writeback = reg(a);
    if (one || !(a & 0x80u)) i.offset = (int16_t)(a & 0x80u ? (b & 255u) * 4u : 0u - (b & 255u) * 4u);
    if (load) i.fp_results = list; else i.fp_stored = list;
    return i;
  }
  if ((a & 0xFF00u) == 0xEE00u && (b & 0x10u)) { /* one register between the files; VMRS */
    i.kind = KIND_FP_MOVE;
    const uint32_t s = fp_reg(0, a, b >> 7 & 1u);
    if (a & 0x10u) {
      i.fp_operands = (a & 0xE0u) ? 0u : s;
      i.results = unless_pc(b >> 12);
      if ((b >> 12) == PC) i.traits |= SETS_FLAGS;
    } else {
      i.operands = reg(b >> 12);
      i.fp_results = s;
    }
    return i;
  }
  i.fp_operands = n | m;
  i.fp_results = d;
  switch ((a & 0xFF00u) == 0xEE00u ? (a >> 4) & 11u : 2u) {
    case 0: case 1: case 9: case 10:
      i.kind = KIND_FP_MAC;
      i.fp_addend = d;
      break;
    case 8: i.kind = KIND_FP_DIVIDE; break;
    case 11:
      i.fp_operands = (b & 0x40u) ? m : 0u;
      if ((a & 15u) == 1u && (b & 0xC0u) == 0xC0u) i.kind = KIND_FP_ROOT;
      else if ((a & 14u) == 4u) i.fp_operands = d | ((a & 1u) ? 0u : m), i.fp_results = 0;
      else if (!(b & 0x40u) || ((a & 15u) == 0u && !(b & 0x80u))) i.kind = KIND_FP_MOVE;
      break;
    default: break;
  }
  return i;
}

static instruction wide(uint16_t a, uint16_t b) {
  if ((a & 0xEC00u) == 0xEC00u) {
    return ((b >> 8) & 0xEu) == 0xAu ? floating(a, b) : make(KIND_OTHER, 0);
  }
  if ((a & 0xF800u) == 0xF000u) {
    if (!(b & 0x8000u)) return wide_immediate(a, b);
    if (!(b & 0x5000u) && (a >> 6 & 15u) >= 14u) return make(KIND_OTHER, 0); /* MSR, MRS, barriers */
    instruction i = branch(0);
    if ((b & 0x5000u) == 0x5000u) i.results = reg(LR);
    return i;
  }
  if ((a & 0xFE00u) == 0xEA00u) return wide_shifted_register(a, b);
  if ((a & 0xFE40u) == 0xE800u) return many(a >> 4 & 1, b, a & 15u, a >> 5 & 1, (a & 0x180u) == 0x100u);
  if ((a & 0xFE40u) == 0xE840u) {
    if (a & 0x0120u) {
      instruction i = many(a >> 4 & 1, (uint32_t)reg(b >> 12) | reg(b >> 8), a & 15u, a >> 5 & 1, 0);
      i.count = 2;
      if (a & 0x100u) i.offset = (int16_t)(a & 0x80u ? (b & 255u) * 4u : 0u - (b & 255u) * 4u);
      return i;
    }
    if ((a & 0xFFF0u) == 0xE8D0u && (b & 0xFFE0u) == 0xF000u) { /* TBB, TBH */
      instruction i = branch(INDIRECT);
      i.address = (uint16_t)(reg(a) | reg(b));
      return i;
    }
    return make(KIND_OTHER, 0);
  }
  if ((a & 0xFE00u) == 0xF800u) return wide_single(a, b);
  if ((a & 0xFF00u) == 0xFA00u) return wide_register(a, b);
  if ((a & 0xFF00u) == 0xFB00u) return wide_multiply(a, b);
  return make(KIND_OTHER, 0);
}

instruction timing_decode(uint16_t first, uint16_t second) {
  const int is_wide = (first >> 11) >= 0x1D;
  instruction i = is_wide ? wide(first, second) : narrow(first);
  i.wide = (uint8_t)is_wide;
  return i;
}
