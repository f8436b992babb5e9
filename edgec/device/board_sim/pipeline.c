/* SPDX-License-Identifier: Apache-2.0 */
/* From issue to issue: the Cortex-M7 as an in-order pipeline that issues pairs, every other core one at a time.
 * docs/cycles.md states every rule with its source. */
#include <string.h>

#include "timing.h"

enum { REGISTERS = 16, FP_REGISTERS = 32, DIVIDE_CYCLES = 7 };

/* When a result can be used, in cycles of issue: by the arithmetic stage, and by what needs it elsewhere. */
typedef struct {
  uint32_t late[REGISTERS], early[REGISTERS], address[REGISTERS], factor[REGISTERS];
  uint32_t fp[FP_REGISTERS], fp_addend[FP_REGISTERS], fp_stored[FP_REGISTERS];
  uint32_t flags;
} scoreboard;

static uint32_t latest(const uint32_t *when, uint32_t set, uint32_t least) {
  for (; set != 0; set &= set - 1u) {
    const uint32_t at = when[__builtin_ctz(set)];
    if (at > least) least = at;
  }
  return least;
}

static void put(uint32_t *when, uint32_t set, uint32_t at) {
  for (; set != 0; set &= set - 1u) when[__builtin_ctz(set)] = at;
}

static int is_load(const instruction *i) { return i->kind == KIND_LOAD; }
static int is_store(const instruction *i) { return i->kind == KIND_STORE; }
static int is_fp_arithmetic(const instruction *i) {
  return i->kind == KIND_FP || i->kind == KIND_FP_MAC || i->kind == KIND_FP_DIVIDE || i->kind == KIND_FP_ROOT;
}

/* Cycles that keep the issue stage busy. */
static uint32_t dual_occupancy(const instruction *i) {
  switch (i->kind) {
    case KIND_LOAD_MANY:
    case KIND_STORE_MANY: return i->count > 2u ? (i->count + 1u) / 2u : 1u;
    case KIND_DIVIDE: return DIVIDE_CYCLES;
    case KIND_FP_DIVIDE: return i->traits & DOUBLE ? 30u : 16u;
    case KIND_FP_ROOT: return i->traits & DOUBLE ? 30u : 14u;
    case KIND_FP: return i->traits & DOUBLE ? 2u : 1u;
    case KIND_FP_MAC: return i->traits & DOUBLE ? 8u : 1u;
    default: return 1;
  }
}

static int alone(const instruction *i) {
  return dual_occupancy(i) > 1u || i->kind == KIND_LOAD_MANY || i->kind == KIND_STORE_MANY || i->kind == KIND_DIVIDE ||
         (i->kind == KIND_OTHER && !(i->traits & IF_THEN) && i->wide) || (i->kind == KIND_FP_MOVE && i->count == 2u);
}

/* Whether two loads are sure to fall into different banks (even and odd words). */
static int other_bank(const instruction *a, const instruction *b) {
  return a->index == NO_REGISTER && b->index == NO_REGISTER && a->base == b->base && a->writeback == 0 && ((a->offset ^ b->offset) & 4) != 0;
}

static int pairs(const instruction *older, const instruction *younger) {
  const instruction *a = older, *b = younger;
  if (alone(a) || alone(b)) return 0;
  if ((a->results | a->writeback) & (b->results | b->writeback)) return (b->traits & MOVE_TOP) != 0;
  if ((a->traits & SHIFTER) && (b->traits & SHIFTER)) return 0;
  if (b->kind == KIND_BITFIELD) return 0;
  if (a->kind == KIND_MULTIPLY && (b->kind == KIND_MULTIPLY || is_store(b))) return 0;
  if (is_store(a) && (b->kind == KIND_MULTIPLY || is_store(b))) return 0;
  if (is_load(a) && is_load(b)) return other_bank(a, b);
  if (is_fp_arithmetic(a) && is_fp_arithmetic(b)) return 0;
  if (a->kind == KIND_FP_MAC && (b->traits & FLOATING)) return 0;
  if (b->kind == KIND_FP_MAC && (a->traits & FLOATING)) return 0;
  return 1;
}

/* The first cycle in which every operand is there. */
static uint32_t dual_ready(const scoreboard *s, const instruction *i, int completes) {
  uint32_t at = latest(s->address, i->address, 0);
  at = latest(s->early, i->early, at);
  if (!completes) at = latest(i->kind == KIND_MULTIPLY ? s->factor : s->late, i->operands, at);
  at = latest(s->fp, i->fp_operands, at);
  at = latest(s->fp_addend, i->fp_addend, at);
  at = latest(s->fp_stored, i->fp_stored, at);
  /* An addend and what is stored are needed one cycle after issue. */
  const uint32_t soon = latest(s->late, (uint32_t)i->addend | i->stored, 0);
  if (soon > at + 1u) at = soon - 1u;
  if ((i->traits & READS_FLAGS) && s->flags > at) at = s->flags;
  return at;
}

static void dual_write(scoreboard *s, const instruction *i, uint32_t issue, uint32_t busy) {
  uint32_t late = issue + busy, early = late, address = late, factor = late;
  switch (i->kind) {
    case KIND_LOAD:
    case KIND_LOAD_MANY:
      if (i->traits & NARROW_DATA) late++;
      factor = issue + busy + 1u;
      early = late + 1u;
      address = issue + busy + 2u;
      break;
    case KIND_MULTIPLY: late++, early = factor = late, address = late + 1u; break;
    case KIND_BITFIELD: address++; break;
    case KIND_ALU:
    case KIND_SHIFT:
      if (!(i->traits & SIMPLE)) early++, address++;
      break;
    default: break;
  }
  put(s->late, i->results, late);
  put(s->early, i->results, early);
  put(s->address, i->results, address);
  put(s->factor, i->results, factor);
  const uint32_t moved = issue + 1u;
  put(s->late, i->writeback, moved);
  put(s->early, i->writeback, moved);
  put(s->address, i->writeback, moved);
  put(s->factor, i->writeback, moved);
  uint32_t fp = issue + busy, fp_addend = fp, fp_stored = fp;
  switch (i->kind) {
    case KIND_FP: fp += 2u, fp_addend = fp; break;
    case KIND_FP_MAC: fp += 4u, fp_addend += 2u, fp_stored += 2u; break;
    case KIND_FP_MOVE: fp += 2u, fp_addend = fp_stored = fp; break;
    case KIND_LOAD:
    case KIND_LOAD_MANY: fp_addend += 2u; break;
    default: break;
  }
  put(s->fp, i->fp_results, fp);
  put(s->fp_addend, i->fp_results, fp_addend);
  put(s->fp_stored, i->fp_results, fp_stored);
  if (i->traits & SETS_FLAGS) s->flags = issue + 1u;
}

typedef struct {
  scoreboard board;
  instruction older;
  uint32_t now, open; /* the cycle of the last issue; whether a younger instruction may still join it */
  uint32_t end;
} dual_state;

static void dual_issue(dual_state *s, const instruction *i) {
  const int completes = s->open && (i->traits & MOVE_TOP) && s->older.results == i->results;
  const uint32_t ready = dual_ready(&s->board, i, completes);
  uint32_t at = s->end > ready ? s->end : ready;
  const int joins = s->open && ready <= s->now && pairs(&s->older, i);
  if (joins) at = s->now;
  const uint32_t busy = dual_occupancy(i);
  dual_write(&s->board, i, at, busy);
  s->open = !joins && !alone(i);
  s->older = *i;
  s->now = at;
  if (at + busy > s->end) s->end = at + busy;
}

static uint32_t ones_of(uint32_t set) { return (uint32_t)__builtin_popcount(set); }

static uint32_t single_cycles(const instruction *i) {
  switch (i->kind) {
    case KIND_LOAD_MANY:
    case KIND_STORE_MANY: return 1u + i->count;
    case KIND_LOAD: return 2;
    case KIND_STORE: return i->index != NO_REGISTER || (i->traits & FLOATING) ? 2u : 1u;
    case KIND_DIVIDE: return DIVIDE_CYCLES;
    case KIND_FP_MAC: return 3;
    case KIND_FP_DIVIDE:
    case KIND_FP_ROOT: return 14;
    case KIND_FP_MOVE: return i->count == 2u ? 2u : 1u;
    default: return 1;
  }
}

/* The M3 multiplies 32 x 32 bits in one cycle and accumulates in another; a product of 64 bits takes 3 to 5, with an
 * addend 4 to 7. */
static uint32_t m3_cycles(const instruction *i) {
  if (i->kind != KIND_MULTIPLY) return single_cycles(i);
  if (ones_of(i->results) == 2u) return i->addend != 0 ? 6u : 4u;
  return i->addend != 0 ? 2u : 1u;
}

/* The M0+ overlaps nothing with its loads and stores. A call is dearer than a branch by one cycle, POP of pc too. */
static uint32_t m0plus_cycles(const instruction *i) {
  switch (i->kind) {
    case KIND_LOAD_MANY: return 1u + i->count + (i->traits & INDIRECT ? 1u : 0u);
    case KIND_STORE_MANY: return 1u + i->count;
    case KIND_LOAD:
    case KIND_STORE: return 2;
    case KIND_BRANCH: return i->wide ? 2u : 1u;
    case KIND_OTHER: return i->wide ? 3u : 1u; /* MSR, MRS, barriers */
    default: return 1;
  }
}

typedef struct {
  instruction before;
  uint32_t end;
} single_state;

static void single_issue(single_state *s, const instruction *i, uint32_t core) {
  const instruction *before = &s->before;
  if (core == CORE_M0PLUS) {
    s->end += m0plus_cycles(i);
    return;
  }
  s->end += core == CORE_M3 ? m3_cycles(i) : single_cycles(i);
  if (is_load(before)) {
    /* A single load or store overlaps with the load before it, unless that load makes its address. */
    if ((is_load(i) || is_store(i)) && !(i->address & before->results)) s->end--;
  } else if (is_fp_arithmetic(before) && ((i->fp_operands | i->fp_addend | i->fp_stored) & before->fp_results)) {
    s->end++;
  }
  s->before = *i;
}

static timing_access access_of(const instruction *i, uint32_t condition) {
  const uint32_t transfers = i->kind == KIND_LOAD || i->kind == KIND_STORE ? 1u : i->count;
  timing_access access = {i->base, i->index, i->shift, (uint8_t)condition, i->offset, (uint16_t)(i->size * transfers), 0, i->wide};
  if (i->kind == KIND_BRANCH) access.bytes = i->size;
  access.store = i->kind == KIND_STORE || i->kind == KIND_STORE_MANY;
  return access;
}

uint32_t timing_block(const uint8_t *code, uint32_t bytes, uint32_t core, uint8_t *end, timing_access *accesses) {
  dual_state dual;
  single_state single;
  memset(&dual, 0, sizeof dual);
  memset(&single, 0, sizeof single);
  uint32_t governed = 0, mask = 0; /* instructions that IT still governs; its condition and mask */
  *end = END_NONE;
  for (uint32_t at = 0; at + 2u <= bytes;) {
    const uint16_t first = (uint16_t)(code[at] | code[at + 1u] << 8);
    const uint16_t second = at + 4u <= bytes ? (uint16_t)(code[at + 2u] | code[at + 3u] << 8) : 0;
    instruction i = timing_decode(first, second);
    uint32_t condition = ALWAYS;
    if (governed != 0) {
      governed--;
      condition = mask >> 4;
      mask = (mask & 0xE0u) | (mask << 1 & 0x1Fu);
      i.traits = (uint16_t)(i.wide ? i.traits | READS_FLAGS : (i.traits | READS_FLAGS) & ~SETS_FLAGS);
    }
    if (i.traits & IF_THEN) {
      governed = i.count;
      mask = first & 0xFFu;
    }
    if (accesses != 0) accesses[at / 2u] = access_of(&i, condition);
    at += i.wide ? 4u : 2u;
    if (core == CORE_DUAL) dual_issue(&dual, &i);
    else single_issue(&single, &i, core);
    const int leaves = i.kind == KIND_BRANCH || (i.kind == KIND_LOAD_MANY && (i.traits & INDIRECT));
    *end = (uint8_t)(!leaves ? END_NONE : i.traits & INDIRECT ? END_INDIRECT : END_DIRECT);
  }
  return core == CORE_DUAL ? dual.end : single.end;
}

enum { BRANCHES = 1024, DUAL_PENALTY = 8 };

typedef struct {
  uint32_t where, to; /* end of the block; the last target of an indirect branch */
  uint8_t taken;      /* a counter of two bits */
} branch_memory;

static branch_memory branches[BRANCHES];

void timing_forget_branches(void) { memset(branches, 0, sizeof branches); }

/* The dual-issue core predicts: a direct branch by a counter of two bits, which begins with "backward is taken"; an
 * indirect one by its last target. */
static uint32_t dual_branch(uint8_t end, uint32_t where, uint32_t to) {
  branch_memory *memory = &branches[(where >> 1) % BRANCHES];
  if (memory->where != where) *memory = (branch_memory){where, where, to < where ? 2 : 1};
  if (end == END_INDIRECT) {
    const int right = memory->to == to;
    memory->to = to;
    return right ? 0 : DUAL_PENALTY;
  }
  const int taken = to != where, predicted = memory->taken >= 2;
  if (taken && memory->taken < 3) memory->taken++;
  if (!taken && memory->taken > 0) memory->taken--;
  return taken == predicted ? 0 : DUAL_PENALTY;
}

uint32_t timing_branch(uint32_t core, uint8_t end, uint32_t where, uint32_t to, int wide_target) {
  if (end == END_NONE) return 0;
  if (core == CORE_DUAL) return dual_branch(end, where, to);
  if (to == where) return 0;
  if (core == CORE_M0PLUS) return 1;
  return (end == END_INDIRECT ? 2u : 1u) + (wide_target && (to & 2u) ? 1u : 0u);
}
