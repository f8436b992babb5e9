/* SPDX-License-Identifier: Apache-2.0 */
/* A fault on the board: say which and where over the serial line, once a second or so, and stay there. */
#include "port.h"

#define SCB_CFSR 0xE000ED28u
#define SCB_HFSR 0xE000ED2Cu
#define SCB_MMFAR 0xE000ED34u
#define SCB_BFAR 0xE000ED38u

__attribute__((noreturn)) void edgec_fault(const uint32_t *frame, uint32_t exception) {
  const uint32_t address = (uint32_t)(uintptr_t)frame;
  /* After a stack overflow the frame itself is out of RAM: reading it would fault again. */
  const int readable = address >= (uint32_t)(uintptr_t)edgec_stack_bottom &&
                       address + 32u <= (uint32_t)(uintptr_t)edgec_stack_top && (address & 3u) == 0u;
#if EDGEC_HAS_FAULT_STATUS
  const uint32_t cfsr = EDGEC_REG(SCB_CFSR), hfsr = EDGEC_REG(SCB_HFSR);
  const uint32_t bfar = EDGEC_REG(SCB_BFAR), mmfar = EDGEC_REG(SCB_MMFAR);
#else
  const uint32_t cfsr = 0u, hfsr = 0u, bfar = 0u, mmfar = 0u;
#endif
  const uint32_t pc = readable ? frame[6] : 0u, lr = readable ? frame[5] : 0u;
  const uint32_t words[7] = {exception, cfsr, hfsr, bfar, mmfar, pc, lr};
  uint8_t report[sizeof words];
  for (uint32_t i = 0; i < sizeof words; i++) report[i] = (uint8_t)(words[i / 4u] >> (8u * (i % 4u)));
  for (;;) {
    edgec_frame_send(EDGEC_FAULT, 0u, report, sizeof report);
    for (uint32_t i = 0; i < 50000000u; i++) __asm volatile("nop");
  }
}
