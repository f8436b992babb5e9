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
  const uint32_t words[7] = {exception,           EDGEC_REG(SCB_CFSR),       EDGEC_REG(SCB_HFSR),
                             EDGEC_REG(SCB_BFAR), EDGEC_REG(SCB_MMFAR),      readable ? frame[6] : 0u /* pc */,
                             readable ? frame[5] : 0u /* lr */};
  uint8_t report[sizeof words];
  for (uint32_t i = 0; i < sizeof words; i++) report[i] = (uint8_t)(words[i / 4u] >> (8u * (i % 4u)));
  for (;;) {
    edgec_frame_send(EDGEC_FAULT, 0u, report, sizeof report);
    for (uint32_t i = 0; i < 50000000u; i++) __asm volatile("nop");
  }
}
