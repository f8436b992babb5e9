/* SPDX-License-Identifier: Apache-2.0 */
/* A received frame of the serial protocol. */
#ifndef EDGEC_FRAME_H
#define EDGEC_FRAME_H

#include <stdint.h>

#include "port.h"

typedef struct {
  uint8_t type, sequence;
  uint32_t bytes;
  uint8_t payload[EDGEC_PAYLOAD_MAX];
} edgec_frame;

/* Waits for a frame. Returns 0, or the reason of the NAK that it deserves. */
uint8_t edgec_frame_receive(edgec_frame *frame);

#endif
