/* SPDX-License-Identifier: Apache-2.0 */
/* The pieces of the Cortex-M bench: boot, serial line, fault report, serial protocol. */
#ifndef EDGEC_PORT_H
#define EDGEC_PORT_H

#include <stdint.h>

#define EDGEC_REG(address) (*(volatile uint32_t *)(uintptr_t)(address))

/* What Armv6-M lacks (Armv6-M Architecture Reference Manual, DDI 0419, sections B3.2 and C1.8): every fault is a hard fault
 * without a status register, and the DWT does not count cycles. */
#if defined(__ARM_ARCH) && __ARM_ARCH == 6
#define EDGEC_HAS_FAULT_STATUS 0
#define EDGEC_HAS_CYCLE_COUNTER 0
#else
#define EDGEC_HAS_FAULT_STATUS 1
#define EDGEC_HAS_CYCLE_COUNTER 1
#endif

/* Linker symbols (edgec/emit/linker.py). */
extern uint32_t edgec_stack_bottom[], edgec_stack_top[];
extern uint32_t edgec_data_start[], edgec_data_end[], edgec_bss_start[], edgec_bss_end[];
extern const uint32_t edgec_data_load[];

void Reset_Handler(void);
void edgec_fault(const uint32_t *frame, uint32_t exception);
int main(void);

void edgec_usart_init(void);
void edgec_usart_write(uint8_t byte);
uint8_t edgec_usart_read(void);

/* Frame types of the serial protocol; an answer has the request's type with bit 7 set. */
enum {
  EDGEC_HELLO = 1,
  EDGEC_DESCRIBE = 2,
  EDGEC_RESET = 3,
  EDGEC_WRITE = 4,
  EDGEC_RUN = 5,
  EDGEC_READ = 6,
  EDGEC_STATE_GET = 7,
  EDGEC_STATE_PUT = 8,
  EDGEC_ANSWER = 0x80,
  EDGEC_FAULT = 0x7E,
  EDGEC_NAK = 0x7F
};
/* Reasons in a NAK. */
enum { EDGEC_NAK_CRC = 1, EDGEC_NAK_TYPE = 2, EDGEC_NAK_LENGTH = 3, EDGEC_NAK_RANGE = 4, EDGEC_NAK_INIT = 5 };
enum { EDGEC_PROTOCOL_VERSION = 2, EDGEC_PAYLOAD_MAX = 256 };

void edgec_frame_send(uint8_t type, uint8_t sequence, const uint8_t *payload, uint32_t bytes);

#endif
