/* SPDX-License-Identifier: Apache-2.0 */
/* Frames on the serial line: ED 6C, type, sequence, length (2), payload, CRC-32 (4) of type to payload; little-endian. */
#include "frame.h"

#include "port.h"

/* CRC-32 of IEEE 802.3, reflected, a nibble at a time. */
static uint32_t crc_byte(uint32_t crc, uint32_t byte) {
  static const uint32_t nibble[16] = {0x00000000u, 0x1DB71064u, 0x3B6E20C8u, 0x26D930ACu, 0x76DC4190u, 0x6B6B51F4u,
                                      0x4DB26158u, 0x5005713Cu, 0xEDB88320u, 0xF00F9344u, 0xD6D6A3E8u, 0xCB61B38Cu,
                                      0x9B64C2B0u, 0x86D3D2D4u, 0xA00AE278u, 0xBDBDF21Cu};
  crc ^= byte;
  crc = nibble[crc & 15u] ^ (crc >> 4);
  return nibble[crc & 15u] ^ (crc >> 4);
}

static uint32_t send_byte(uint32_t crc, uint8_t byte) {
  edgec_usart_write(byte);
  return crc_byte(crc, byte);
}

void edgec_frame_send(uint8_t type, uint8_t sequence, const uint8_t *payload, uint32_t bytes) {
  uint32_t crc = 0xFFFFFFFFu;
  edgec_usart_write(0xEDu);
  edgec_usart_write(0x6Cu);
  crc = send_byte(crc, type);
  crc = send_byte(crc, sequence);
  crc = send_byte(crc, (uint8_t)bytes);
  crc = send_byte(crc, (uint8_t)(bytes >> 8));
  for (uint32_t i = 0; i < bytes; i++) crc = send_byte(crc, payload[i]);
  crc = ~crc;
  for (uint32_t i = 0; i < 4u; i++) edgec_usart_write((uint8_t)(crc >> (8u * i)));
}

static uint8_t receive_byte(uint32_t *crc) {
  const uint8_t byte = edgec_usart_read();
  *crc = crc_byte(*crc, byte);
  return byte;
}

uint8_t edgec_frame_receive(edgec_frame *frame) {
  uint8_t byte = edgec_usart_read();
  for (;;) { /* hunt for the two start bytes: whatever noise came before is skipped */
    while (byte != 0xEDu) byte = edgec_usart_read();
    byte = edgec_usart_read();
    if (byte == 0x6Cu) break;
  }
  uint32_t crc = 0xFFFFFFFFu;
  frame->type = receive_byte(&crc);
  frame->sequence = receive_byte(&crc);
  frame->bytes = receive_byte(&crc);
  frame->bytes |= (uint32_t)receive_byte(&crc) << 8;
  if (frame->bytes > EDGEC_PAYLOAD_MAX) return EDGEC_NAK_LENGTH;
  for (uint32_t i = 0; i < frame->bytes; i++) frame->payload[i] = receive_byte(&crc);
  crc = ~crc;
  uint32_t sent = 0u;
  for (uint32_t i = 0; i < 4u; i++) sent |= (uint32_t)edgec_usart_read() << (8u * i);
  return sent == crc ? 0u : EDGEC_NAK_CRC;
}
