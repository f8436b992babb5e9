/* SPDX-License-Identifier: Apache-2.0 */
/* Runs before every basic block of the simulated core: counts instructions, in total and per call of the run function. */
#include <stdint.h>
#include <string.h>

#include "timing.h"

enum { FLASH_HALFWORDS = 1 << 20, OPERATORS_MAX = 4096, BLOCK_BYTES_MAX = 4096 };
enum { USES_FPU = 1, BEGINS_WIDE = 2, LACKING = 4 };

typedef struct {
  uint16_t instructions, bytes;
  uint16_t cycles, again; /* of issue, and only when the run is timed; again: when the block follows itself */
  uint8_t flags, end;
} block;

typedef struct {
  /* Set by the owner. */
  uint32_t flash_origin, run_start, run_end;
  uint32_t fpu_enabled;
  uint32_t entries; /* of the run function for one inference: where there are several, its argument 1 counts them */
  uint32_t instruction_set; /* of enum instruction_set; accesses of Armv6-M must all be aligned */
  const uint16_t *calls; /* per halfword of the run function: 1 + number of the call instruction there, or 0 */
  int (*mem_read)(void *uc, uint64_t address, void *bytes, uint64_t size);
  int (*reg_read)(void *uc, int reg, void *value);
  int (*stop)(void *uc);
  int register_lr, register_sp, register_xpsr;
  const int *registers; /* the engine's numbers of r0 to r15 */
  const timing_machine *timing; /* what cycles are estimated for, or null */
  /* Results. */
  uint32_t fpu_fault; /* address of the first block that used the FPU while it was off */
  uint32_t lacking_pc; /* address of the first block with an instruction that the core does not have */
  uint32_t unaligned_pc, unaligned_address; /* first access that needs a boundary and is off it */
  uint32_t entry_sp, first_sp; /* stack pointer when the run function was last entered, and first in an inference */
  uint64_t total, runs, overhead;
  uint64_t operators[OPERATORS_MAX];
  /* The run in progress; it becomes the result when it returns. */
  uint32_t active, entry, return_address, current; /* current: 1 + operator, 0 for the run function itself */
  uint64_t now_overhead, now[OPERATORS_MAX];
  uint32_t operator_count;
} probe;

static probe state;
static block blocks[FLASH_HALFWORDS];
static timing_access accesses[FLASH_HALFWORDS]; /* of every instruction that a timed run has met */
/* Estimates of the last complete run and of the one in progress: of the run function itself, then of its operators. */
static timing_cost costs[OPERATORS_MAX + 1], now_costs[OPERATORS_MAX + 1];
static struct {
  uint32_t place, block_end;
  uint8_t end;
} before; /* where the instructions of the block before were counted, and how it ended */

probe *probe_state(void) { return &state; }
uint32_t probe_size(void) { return sizeof state; }
const timing_cost *probe_costs(void) { return costs; }
uint32_t probe_machine_size(void) { return sizeof(timing_machine); }

static block decode(void *uc, uint32_t address, uint32_t size) {
  static uint8_t code[2 * BLOCK_BYTES_MAX];
  block b = {0, (uint16_t)size, 0, 0, 0, END_NONE};
  if (size > BLOCK_BYTES_MAX || state.mem_read(uc, address, code, size) != 0) return b;
  for (uint32_t at = 0; at < size;) {
    const int wide = code[at + 1u] >= 0xE8;
    if (wide && (code[at + 1u] & 0xEC) == 0xEC && at + 4u <= size && (code[at + 3u] & 0xE) == 0xA) b.flags |= USES_FPU; /* coprocessors 10, 11 */
    if (wide && at == 0) b.flags |= BEGINS_WIDE;
    const uint16_t first = (uint16_t)(code[at] | code[at + 1u] << 8);
    const uint16_t second = wide && at + 4u <= size ? (uint16_t)(code[at + 2u] | code[at + 3u] << 8) : 0;
    if (isa_lacks(state.instruction_set, first, second)) b.flags |= LACKING;
    at += wide ? 4u : 2u;
    b.instructions++;
  }
  const uint32_t index = (address - state.flash_origin) >> 1;
  timing_access *noted = index + size / 2u <= FLASH_HALFWORDS && index < FLASH_HALFWORDS ? accesses + index : 0;
  if (state.timing != 0) {
    b.cycles = (uint16_t)timing_block(code, size, state.timing->core, &b.end, noted);
    memcpy(code + size, code, size);
    b.again = (uint16_t)(timing_block(code, 2u * size, state.timing->core, &b.end, 0) - b.cycles);
  }
  return b;
}

static void begin(void *uc) {
  uint32_t lr = 0, sp = 0;
  state.reg_read(uc, state.register_lr, &lr);
  state.reg_read(uc, state.register_sp, &sp);
  state.entry_sp = sp;
  state.active = 1;
  state.return_address = lr & ~1u;
  state.current = 0;
  state.entry = 0;
  before.end = END_NONE;
  before.block_end = 0;
  if (state.entries > 1u) state.reg_read(uc, state.registers[1], &state.entry);
  if (state.entry != 0u) return; /* goes on with what the entries before it began */
  state.first_sp = sp;
  state.now_overhead = 0;
  for (uint32_t i = 0; i < state.operator_count; i++) state.now[i] = 0;
  memset(now_costs, 0, (state.operator_count + 1u) * sizeof now_costs[0]);
  timing_forget_memory(); /* every run begins with cold caches: its estimate depends on nothing before it */
  timing_forget_branches();
}

static void finish(void) {
  state.active = 0;
  if (state.entry + 1u != state.entries) return;
  state.runs++;
  state.overhead = state.now_overhead;
  for (uint32_t i = 0; i < state.operator_count; i++) state.operators[i] = state.now[i];
  memcpy(costs, now_costs, (state.operator_count + 1u) * sizeof costs[0]);
}

static void finish_branch(uint32_t to, int wide) {
  now_costs[before.place].branch += timing_branch(state.timing->core, before.end, before.block_end, to, wide);
}

static void estimate(uint32_t address, const block *b, uint32_t place) {
  timing_cost *cost = &now_costs[place];
  const uint32_t block_end = address + b->bytes;
  cost->issue += before.block_end == block_end && before.place == place ? b->again : b->cycles;
  timing_fetch(state.timing, cost, address, b->bytes, b->cycles);
  before.place = place;
  before.block_end = block_end;
  before.end = b->end;
}

static int holds(void *uc, uint32_t condition) {
  uint32_t flags = 0;
  if (condition >= ALWAYS) return 1;
  state.reg_read(uc, state.register_xpsr, &flags);
  const uint32_t n = flags >> 31, z = flags >> 30 & 1u, c = flags >> 29 & 1u, v = flags >> 28 & 1u;
  const uint32_t met[] = {z, c, n, v, c & ~z, n == v, (n == v) & ~z};
  return (int)((met[condition >> 1] & 1u) ^ (condition & 1u));
}

/* Runs before every instruction of a timed run. The engine (unicorn 2.1.4) has hooks on accesses too, but loses values
 * that it keeps across a store when there is one, so that the address is computed here. */
void probe_access(void *uc, uint64_t where, uint32_t size, void *data) {
  (void)size, (void)data;
  const uint32_t pc = (uint32_t)where & ~1u, index = (pc - state.flash_origin) >> 1;
  if (!state.active || index >= FLASH_HALFWORDS || accesses[index].bytes == 0) return;
  const timing_access *access = &accesses[index];
  if (!holds(uc, access->condition)) return;
  uint32_t address = (pc + 4u) & ~3u, offset = 0;
  if (access->base != PC) state.reg_read(uc, state.registers[access->base], &address);
  if (access->index != NO_REGISTER) state.reg_read(uc, state.registers[access->index], &offset);
  address += (offset << access->shift) + (uint32_t)access->offset;
  timing_data(state.timing, &now_costs[before.place], address, access->bytes, access->store);
}

void probe_block(void *uc, uint64_t where, uint32_t size, void *data) {
  (void)data;
  const uint32_t address = (uint32_t)where & ~1u, index = (address - state.flash_origin) >> 1;
  block fresh, *b = &fresh;
  if (index < FLASH_HALFWORDS) {
    b = &blocks[index];
    if (b->bytes != size) *b = decode(uc, address, size);
  } else {
    fresh = decode(uc, address, size);
  }
  if ((b->flags & USES_FPU) && !state.fpu_enabled && state.fpu_fault == 0) {
    state.fpu_fault = address;
    state.stop(uc);
    return;
  }
  if ((b->flags & LACKING) && state.lacking_pc == 0) {
    state.lacking_pc = address;
    state.stop(uc);
    return;
  }
  state.total += b->instructions;
  if (address == state.run_start && !state.active) begin(uc);
  if (!state.active) return;
  if (state.timing != 0) finish_branch(address, b->flags & BEGINS_WIDE);
  if (address == state.return_address) {
    finish();
    return;
  }
  if (address >= state.run_start && address < state.run_end) {
    state.now_overhead += b->instructions;
    const uint32_t end = (address - state.run_start + size) >> 1; /* the block's last instruction may be a call */
    state.current = end >= 2 && state.calls[end - 2] != 0 ? state.calls[end - 2] : state.calls[end - 1];
    if (state.timing != 0) estimate(address, b, 0);
  } else if (state.current != 0) {
    state.now[state.current - 1] += b->instructions;
    if (state.timing != 0) estimate(address, b, state.current);
  } else {
    state.now_overhead += b->instructions;
    if (state.timing != 0) estimate(address, b, 0);
  }
}

/* Whether an instruction needs its address on a word boundary, as LDRD, STRD, LDM, STM, VLDR, VSTR, VLDM and VSTM do
 * (ARMv7-M Architecture Reference Manual, section A3.2.1); the engine lets them pass. */
static int address_of(void *uc, uint32_t pc, const uint16_t *code, uint32_t *address) {
  int32_t offset = 0;
  const uint32_t base = code[0] & 15u;
  if ((code[0] >> 11) < 0x1Du) {
    if ((code[0] & 0xF000u) != 0xC000u) return 0; /* LDM, STM */
    state.reg_read(uc, state.registers[(code[0] >> 8) & 7u], address);
    return 1;
  }
  if ((code[0] & 0xFE40u) == 0xE800u && (code[0] & 0x0180u) != 0u && (code[0] & 0x0180u) != 0x0180u) {
    /* LDM.W, STM.W: the base is a multiple of four exactly when every address is */
  } else if ((code[0] & 0xFE40u) == 0xE840u && (code[0] & 0x0120u) != 0u) {
    if (code[0] & 0x0100u) offset = (int32_t)(code[1] & 255u) * 4; /* LDRD, STRD */
  } else if ((code[0] & 0xFE00u) == 0xEC00u && ((code[1] >> 8) & 0xEu) == 0xAu && (code[0] & 0x01A0u) != 0u) {
    if ((code[0] & 0x0120u) == 0x0100u) offset = (int32_t)(code[1] & 255u) * 4; /* VLDR, VSTR, VLDM, VSTM */
  } else {
    return 0;
  }
  uint32_t value = 0;
  state.reg_read(uc, state.registers[base], &value);
  if (base == 15u) value = (pc + 4u) & ~3u;
  *address = code[0] & 0x0080u ? value + (uint32_t)offset : value - (uint32_t)offset;
  return 1;
}

/* The same for Armv6-M, where every access needs the boundary of its size (Armv6-M Architecture Reference Manual,
 * section A3.2.1). */
static int v6m_address(void *uc, uint32_t pc, const uint16_t *code, uint32_t *address, uint32_t *size) {
  const instruction i = timing_decode(code[0], code[1]);
  if (i.size < 2u) return 0;
  uint32_t value = (pc + 4u) & ~3u, offset = 0;
  if (i.base != PC) state.reg_read(uc, state.registers[i.base], &value);
  if (i.index != NO_REGISTER) state.reg_read(uc, state.registers[i.index], &offset);
  *address = value + (offset << i.shift) + (uint32_t)(int32_t)i.offset;
  *size = i.size;
  return 1;
}

/* Runs before every instruction, when alignment is to be checked. */
void probe_instruction(void *uc, uint64_t where, uint32_t size, void *data) {
  (void)data;
  enum { HARMLESS = 1 };
  static uint32_t known[FLASH_HALFWORDS]; /* the instruction, HARMLESS if it needs no boundary, 0 before its first run */
  const uint32_t index = (((uint32_t)where & ~1u) - state.flash_origin) >> 1;
  uint32_t word = index < FLASH_HALFWORDS ? known[index] : 0, address = 0;
  if (word == HARMLESS || state.unaligned_pc != 0) return;
  if (word == 0 && state.mem_read(uc, where & ~1ull, &word, size >= 4u ? 4u : 2u) != 0) return;
  const uint16_t code[2] = {(uint16_t)word, (uint16_t)(word >> 16)};
  if (index < FLASH_HALFWORDS) known[index] = word;
  uint32_t boundary = 4;
  const int accesses_memory = state.instruction_set == ISA_V6M
                                  ? v6m_address(uc, (uint32_t)where & ~1u, code, &address, &boundary)
                                  : address_of(uc, (uint32_t)where & ~1u, code, &address);
  if (!accesses_memory) {
    if (index < FLASH_HALFWORDS) known[index] = HARMLESS;
  } else if ((address & (boundary - 1u)) != 0u) {
    state.unaligned_pc = (uint32_t)where & ~1u;
    state.unaligned_address = address;
    state.stop(uc);
  }
}
