/* SPDX-License-Identifier: Apache-2.0 */
/* From reset to main: FPU, clocks, wait states and pins (the table in the generated board.h), RAM, caches. */
#include "board.h"
#include "port.h"

#define SCB_CCR 0xE000ED14u     /* PM0253 section 4.3: configuration and control */
#define SCB_SHCSR 0xE000ED24u   /* system handler control and state */
#define SCB_CCSIDR 0xE000ED80u  /* cache size */
#define SCB_CSSELR 0xE000ED84u  /* cache selection */
#define SCB_CPACR 0xE000ED88u   /* coprocessor access */
#define SCB_ICIALLU 0xE000EF50u /* invalidate the instruction cache */
#define SCB_DCISW 0xE000EF60u   /* invalidate the data cache by set and way */
#define DEMCR 0xE000EDFCu
#define DWT_CTRL 0xE0001000u
#define DWT_CYCCNT 0xE0001004u
#define DWT_LAR 0xE0001FB0u

typedef struct {
  uint32_t reg, clear, set, wait, equals, delay_loops;
} boot_step;

static const boot_step boot_steps[] = EDGEC_BOOT_STEPS;

__attribute__((unused)) static void barrier(void) { __asm volatile("dsb\n isb" ::: "memory"); }

static void clocks_and_pins(void) {
  for (uint32_t i = 0; i < sizeof boot_steps / sizeof boot_steps[0]; i++) {
    const boot_step *s = &boot_steps[i];
    if (s->delay_loops != 0u) {
      for (uint32_t n = 0; n < s->delay_loops; n++) __asm volatile("nop");
      continue;
    }
    if ((s->clear | s->set) != 0u) {
      const uint32_t old = s->clear == 0xFFFFFFFFu ? 0u : EDGEC_REG(s->reg);
      EDGEC_REG(s->reg) = (old & ~s->clear) | s->set;
      __asm volatile("dsb" ::: "memory"); /* a clock that was just enabled needs two cycles before its first use */
    }
    while (s->wait != 0u && (EDGEC_REG(s->reg) & s->wait) != s->equals) {
    }
  }
}

static void ram(void) {
  const volatile uint32_t *from = edgec_data_load;
  for (volatile uint32_t *to = edgec_data_start; to < edgec_data_end;) *to++ = *from++;
  for (volatile uint32_t *to = edgec_bss_start; to < edgec_bss_end;) *to++ = 0u;
}

static void caches(void) {
#if EDGEC_HAS_ICACHE
  EDGEC_REG(SCB_ICIALLU) = 0u;
  barrier();
  EDGEC_REG(SCB_CCR) |= 1u << 17;
  barrier();
#endif
#if EDGEC_HAS_DCACHE
  EDGEC_REG(SCB_CSSELR) = 0u;
  barrier();
  const uint32_t size = EDGEC_REG(SCB_CCSIDR), sets = (size >> 13) & 0x7FFFu, ways = (size >> 3) & 0x3FFu;
  for (uint32_t set = 0; set <= sets; set++)
    for (uint32_t way = 0; way <= ways; way++) EDGEC_REG(SCB_DCISW) = (way << 30) | (set << 5); /* 4 ways, 32 B lines */
  barrier();
  EDGEC_REG(SCB_CCR) |= 1u << 16;
  barrier();
#endif
}

static void cycle_counter(void) {
#if EDGEC_HAS_CYCLE_COUNTER
  EDGEC_REG(DEMCR) |= 1u << 24;
  EDGEC_REG(DWT_LAR) = 0xC5ACCE55u;
  EDGEC_REG(DWT_CYCCNT) = 0u;
  EDGEC_REG(DWT_CTRL) |= 1u;
#endif
}

__attribute__((noreturn)) void Reset_Handler(void) {
#if EDGEC_HAS_FPU
  EDGEC_REG(SCB_CPACR) |= 0xFu << 20;
  barrier();
#endif
#if EDGEC_HAS_FAULT_STATUS
  EDGEC_REG(SCB_SHCSR) |= 7u << 16; /* usage, bus and memory faults apart from the hard fault */
#endif
  clocks_and_pins();
  ram();
  caches();
  cycle_counter();
  edgec_usart_init();
  (void)main();
  for (;;) {
  }
}

/* r0: the stacked registers, r1: the exception's number. */
__attribute__((naked)) static void fault_entry(void) {
  __asm volatile(
      "mrs r0, msp\n"
      "mrs r1, ipsr\n"
      "bl edgec_fault\n"); /* it does not return; on Armv6-M a plain branch does not reach far */
}

typedef void (*vector)(void);
__attribute__((section(".vectors"), used)) static const vector vectors[16] = {
    (vector)(uintptr_t)edgec_stack_top, Reset_Handler, fault_entry, fault_entry, fault_entry, fault_entry, fault_entry, 0, 0,
    0, 0, fault_entry, fault_entry, 0, fault_entry, fault_entry};
