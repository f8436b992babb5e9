/* SPDX-License-Identifier: Apache-2.0 */
/* The serial line, polled, 8N1, in both register layouts of the STM32 USART. */
#include "board.h"
#include "port.h"

#if EDGEC_USART_V2 /* STM32F7, G0, H7, L5 */
#define CR1 EDGEC_REG(EDGEC_USART_BASE + 0x00u)
#define BRR EDGEC_REG(EDGEC_USART_BASE + 0x0Cu)
#define STATUS EDGEC_REG(EDGEC_USART_BASE + 0x1Cu)
#define CLEAR EDGEC_REG(EDGEC_USART_BASE + 0x20u)
#define RECEIVE EDGEC_REG(EDGEC_USART_BASE + 0x24u)
#define TRANSMIT EDGEC_REG(EDGEC_USART_BASE + 0x28u)
#define CR1_ON 0x0Du /* UE, RE, TE */
#else /* STM32F2, F4 */
#define STATUS EDGEC_REG(EDGEC_USART_BASE + 0x00u)
#define RECEIVE EDGEC_REG(EDGEC_USART_BASE + 0x04u)
#define TRANSMIT EDGEC_REG(EDGEC_USART_BASE + 0x04u)
#define BRR EDGEC_REG(EDGEC_USART_BASE + 0x08u)
#define CR1 EDGEC_REG(EDGEC_USART_BASE + 0x0Cu)
#define CR1_ON 0x200Cu
#endif
#define STATUS_OVERRUN (1u << 3)
#define STATUS_RECEIVED (1u << 5)
#define STATUS_EMPTY (1u << 7)

void edgec_usart_init(void) {
  BRR = EDGEC_USART_DIVIDER;
  CR1 = CR1_ON;
}

void edgec_usart_write(uint8_t byte) {
  while ((STATUS & STATUS_EMPTY) == 0u) {
  }
  TRANSMIT = byte;
}

uint8_t edgec_usart_read(void) {
  for (;;) {
    const uint32_t status = STATUS;
#if EDGEC_USART_V2
    if ((status & STATUS_OVERRUN) != 0u) CLEAR = STATUS_OVERRUN; /* the lost byte shows in the frame's CRC */
#endif
    if ((status & STATUS_RECEIVED) != 0u) return (uint8_t)RECEIVE;
  }
}
