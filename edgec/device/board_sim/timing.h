/* SPDX-License-Identifier: Apache-2.0 */
/* The cycle estimate of the simulated board (docs/cycles.md): what its parts tell each other. */
#ifndef EDGEC_BOARD_SIM_TIMING_H
#define EDGEC_BOARD_SIM_TIMING_H
#include <stdint.h>

/* What an instruction occupies in the core. */
enum kind {
  KIND_ALU,
  KIND_SHIFT,    /* a register moved through the shifter alone */
  KIND_BITFIELD, /* extension, bit field, byte reversal, saturation and the parallel instructions of the DSP set */
  KIND_MULTIPLY, /* with or without accumulation */
  KIND_DIVIDE,
  KIND_LOAD,
  KIND_STORE,
  KIND_LOAD_MANY, /* LDM, POP, LDRD */
  KIND_STORE_MANY,
  KIND_BRANCH,
  KIND_FP,
  KIND_FP_MAC,
  KIND_FP_DIVIDE,
  KIND_FP_ROOT,
  KIND_FP_MOVE, /* between registers of either kind */
  KIND_OTHER,
};

enum trait {
  SETS_FLAGS = 1,
  READS_FLAGS = 2,
  SHIFTER = 4,         /* takes an operand through the shifter */
  SIMPLE = 8,          /* add, subtract, move or shift: its result is early */
  NARROW_DATA = 16,    /* loads a byte or a halfword */
  FLOATING = 64,       /* moves FPU registers */
  DOUBLE = 128,        /* works on double precision */
  INDIRECT = 256,      /* a branch whose target is in a register or in memory */
  IF_THEN = 512,
  MOVE_TOP = 1024,     /* MOVT, which pairs with the MOVW that it completes */
};

enum { PC = 15, NO_REGISTER = 16, ALWAYS = 14 };

typedef struct {
  uint8_t kind, count, wide; /* count: registers of a multiple transfer; what IT governs */
  uint8_t size;              /* bytes of one transfer, 0 for no access to memory */
  uint8_t base, index, shift; /* the address is base + (index << shift) + offset; NO_REGISTER for no index */
  uint16_t traits;
  int16_t offset;
  uint16_t address, early, operands, addend, stored, results, writeback; /* sets of core registers */
  uint32_t fp_operands, fp_addend, fp_stored, fp_results;               /* sets of single-precision registers */
} instruction;

/* Decodes one Thumb-2 instruction; `second` is ignored when it is 2 bytes long. */
instruction timing_decode(uint16_t first, uint16_t second);

/* Instructions that a core has: Armv6-M, Armv7-M, and all (with the DSP set; the FPU is judged by CPACR). */
enum instruction_set { ISA_ALL, ISA_V7M, ISA_V6M };

/* Whether an instruction is undefined on a core; `second` is ignored when it is 2 bytes long. */
int isa_lacks(uint32_t set, uint16_t first, uint16_t second);

enum core { CORE_SINGLE, CORE_DUAL, CORE_M3, CORE_M0PLUS };
enum block_end { END_NONE, END_DIRECT, END_INDIRECT };

/* An access to memory as it is found again when it runs; no bytes: the instruction accesses none. */
typedef struct {
  uint8_t base, index, shift, condition;
  int16_t offset;
  uint16_t bytes;
  uint8_t store, wide;
} timing_access;

/* Cycles that straight-line code takes from issue to issue with memories that answer at once, and how it ends. The
 * accesses are noted at the halfword of their instruction, unless `accesses` is null. */
uint32_t timing_block(const uint8_t *code, uint32_t bytes, uint32_t core, uint8_t *end, timing_access *accesses);

/* Cycles of a branch on top of its issue: `where` is its block's end, `to` the address that follows it. */
uint32_t timing_branch(uint32_t core, uint8_t end, uint32_t where, uint32_t to, int wide_target);
void timing_forget_branches(void);

enum { REGIONS_MAX = 16, FLASH_MAX = 4 };

typedef struct {
  uint32_t origin, end;
  uint32_t flash;       /* 1 + number of the flash region, 0 for RAM */
  uint32_t cached;      /* whether the cache holds lines of it */
  uint32_t first, next; /* stall of a line fill, and of one that follows the line before; of an access if not cached */
} timing_region;

typedef struct {
  uint32_t line, sets, ways; /* bytes of a line; no ways: no cache */
} timing_cache;

typedef struct {
  uint32_t core;
  uint32_t prefetch; /* the next line is fetched while one is executed */
  uint32_t region_count;
  timing_region regions[REGIONS_MAX];
  timing_cache code, data;
} timing_machine;

/* What one part of a run cost. */
typedef struct {
  uint64_t issue, branch, memory; /* cycles */
  uint64_t read[FLASH_MAX], fetched[FLASH_MAX]; /* bytes of data read from flash, and of them what no cache held */
} timing_cost;

void timing_forget_memory(void);
void timing_data(const timing_machine *machine, timing_cost *cost, uint32_t address, uint32_t size, int write);
void timing_fetch(const timing_machine *machine, timing_cost *cost, uint32_t address, uint32_t size, uint32_t cycles);

#endif
