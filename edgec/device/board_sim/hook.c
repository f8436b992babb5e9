/* SPDX-License-Identifier: Apache-2.0 */
/* Runs before every basic block of the simulated core: counts instructions, in total and per call of the run function. */
#include <stdint.h>

enum { FLASH_HALFWORDS = 1 << 20, OPERATORS_MAX = 4096, USES_FPU = 1 };

typedef struct {
  uint16_t instructions, bytes;
  uint8_t flags;
} block;

typedef struct {
  /* Set by the owner. */
  uint32_t flash_origin, run_start, run_end;
  uint32_t fpu_enabled;
  const uint16_t *calls; /* per halfword of the run function: 1 + number of the call instruction there, or 0 */
  int (*mem_read)(void *uc, uint64_t address, void *bytes, uint64_t size);
  int (*reg_read)(void *uc, int reg, void *value);
  int (*stop)(void *uc);
  int register_lr, register_sp;
  const int *registers; /* the engine's numbers of r0 to r15 */
  /* Results. */
  uint32_t fpu_fault; /* address of the first block that used the FPU while it was off */
  uint32_t unaligned_pc, unaligned_address; /* first access that needs a word boundary and has none */
  uint32_t entry_sp;  /* stack pointer when the run function was last entered */
  uint64_t total, runs, overhead;
  uint64_t operators[OPERATORS_MAX];
  /* The run in progress; it becomes the result when it returns. */
  uint32_t active, return_address, current; /* current: 1 + operator, 0 for the run function itself */
  uint64_t now_overhead, now[OPERATORS_MAX];
  uint32_t operator_count;
} probe;

static probe state;
static block blocks[FLASH_HALFWORDS];

probe *probe_state(void) { return &state; }
uint32_t probe_size(void) { return sizeof state; }

static block decode(void *uc, uint32_t address, uint32_t size) {
  block b = {0, (uint16_t)size, 0};
  uint16_t code[2];
  for (uint32_t at = 0; at < size;) {
    if (state.mem_read(uc, address + at, code, at + 4u <= size ? 4u : 2u) != 0) break;
    const int wide = (code[0] >> 11) >= 0x1D;
    if (wide && (code[0] & 0xEC00) == 0xEC00 && ((code[1] >> 8) & 0xE) == 0xA) b.flags |= USES_FPU; /* coprocessors 10, 11 */
    at += wide ? 4u : 2u;
    b.instructions++;
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
  state.now_overhead = 0;
  for (uint32_t i = 0; i < state.operator_count; i++) state.now[i] = 0;
}

static void finish(void) {
  state.active = 0;
  state.runs++;
  state.overhead = state.now_overhead;
  for (uint32_t i = 0; i < state.operator_count; i++) state.operators[i] = state.now[i];
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
  state.total += b->instructions;
  if (address == state.run_start && !state.active) begin(uc);
  if (!state.active) return;
  if (address == state.return_address) {
    finish();
    return;
  }
  if (address >= state.run_start && address < state.run_end) {
    state.now_overhead += b->instructions;
    const uint32_t end = (address - state.run_start + size) >> 1; /* the block's last instruction may be a call */
    state.current = end >= 2 && state.calls[end - 2] != 0 ? state.calls[end - 2] : state.calls[end - 1];
  } else if (state.current != 0) {
    state.now[state.current - 1] += b->instructions;
  } else {
    state.now_overhead += b->instructions;
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
  if (!address_of(uc, (uint32_t)where & ~1u, code, &address)) {
    if (index < FLASH_HALFWORDS) known[index] = HARMLESS;
  } else if ((address & 3u) != 0u) {
    state.unaligned_pc = (uint32_t)where & ~1u;
    state.unaligned_address = address;
    state.stop(uc);
  }
}
