/* SPDX-License-Identifier: Apache-2.0 */
/* The bench on a Cortex-M: answers the host's requests about the model behind edgec_bench. */
#include "edgec_bench.h"
#include "frame.h"
#include "port.h"

#if EDGEC_HAS_CYCLE_COUNTER
#define CYCLES_NOW EDGEC_REG(0xE0001004u) /* DWT_CYCCNT */
#else
#define CYCLES_NOW 0u
#endif
#define STACK_PAINT 0xA5C3965Au

typedef struct {
  uint32_t status, stack_bytes, cycles, deepest;
} run_result;

static edgec_frame request; /* the only buffer: answers are sent from it or from the model's tensors */
static run_result last_run;
static uint32_t answered; /* type and sequence of the request before this one: the host asks again if an answer is lost */
static int repeated;      /* whether this is that request again */

static uint32_t get32(const uint8_t *p) {
  return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint8_t *put32(uint8_t *p, uint32_t value) {
  for (uint32_t i = 0; i < 4u; i++) *p++ = (uint8_t)(value >> (8u * i));
  return p;
}

static uint32_t put_text(uint8_t *p, const char *text) {
  uint32_t n = 0u;
  while (text[n] != '\0' && n < 200u) {
    p[n] = (uint8_t)text[n];
    n++;
  }
  return n;
}

/* One inference, or (offset >= 0) the feeding of the bytes at hand, on a freshly painted stack. The stack figure is
 * everything below this function's own frame. */
__attribute__((noinline)) static run_result measured(uint32_t input, int32_t offset) {
  volatile uint32_t *sp;
  __asm volatile("mov %0, sp" : "=r"(sp));
  for (volatile uint32_t *p = edgec_stack_bottom; p < sp; p++) *p = STACK_PAINT;
  const uint32_t start = CYCLES_NOW;
  run_result result;
  if (offset < 0)
    result.status = (uint32_t)edgec_bench.run();
  else
    result.status = (uint32_t)edgec_bench.feed(input, (uint32_t)offset, request.payload + 5, request.bytes - 5u);
  result.cycles = CYCLES_NOW - start;
  volatile uint32_t *p = edgec_stack_bottom;
  while (p < sp && *p == STACK_PAINT) p++;
  result.deepest = (uint32_t)(uintptr_t)p;
  result.stack_bytes = (uint32_t)(uintptr_t)sp - result.deepest;
  return result;
}

static void answer(uint32_t bytes) {
  edgec_frame_send((uint8_t)(request.type | EDGEC_ANSWER), request.sequence, request.payload, bytes);
}

static void refuse(uint8_t reason) { edgec_frame_send(EDGEC_NAK, request.sequence, &reason, 1u); }

static void hello(void) {
  uint8_t *p = put32(request.payload, EDGEC_PROTOCOL_VERSION);
  p = put32(p, EDGEC_PAYLOAD_MAX);
  p = put32(p, edgec_bench.input_count);
  p = put32(p, edgec_bench.output_count);
  p = put32(p, edgec_bench.state_bytes);
  p += put_text(p, edgec_bench.model_id);
  answer((uint32_t)(p - request.payload));
}

/* Payload: 0 for an input or 1 for an output, index. Answer: bytes (4), name. */
static void describe(void) {
  if (request.bytes != 2u) {
    refuse(EDGEC_NAK_LENGTH);
    return;
  }
  const uint32_t count = request.payload[0] == 0u ? edgec_bench.input_count : edgec_bench.output_count;
  const edgec_bench_tensor *tensor = request.payload[0] == 0u ? edgec_bench.inputs : edgec_bench.outputs;
  if (request.payload[0] > 1u || request.payload[1] >= count) {
    refuse(EDGEC_NAK_RANGE);
    return;
  }
  tensor += request.payload[1];
  uint8_t *p = put32(request.payload, tensor->bytes);
  p += put_text(p, tensor->name);
  answer((uint32_t)(p - request.payload));
}

static void answer_result(void) {
  uint8_t *p = put32(request.payload, last_run.status);
  p = put32(p, last_run.stack_bytes);
  p = put32(p, last_run.cycles);
  p = put32(p, last_run.deepest);
  answer((uint32_t)(p - request.payload));
}

/* Payload: input index, offset (4), bytes to write there. Answer: empty, or a result as of a run for an input that is
 * fed, which takes bytes once and in order. */
static void write_input(void) {
  if (request.bytes < 5u) {
    refuse(EDGEC_NAK_LENGTH);
    return;
  }
  const uint32_t index = request.payload[0], offset = get32(request.payload + 1), bytes = request.bytes - 5u;
  if (index >= edgec_bench.input_count || offset > edgec_bench.inputs[index].bytes ||
      bytes > edgec_bench.inputs[index].bytes - offset) {
    refuse(EDGEC_NAK_RANGE);
    return;
  }
  uint8_t *to = edgec_bench.input(index);
  if (to == 0) {
    if (!repeated) last_run = measured(index, (int32_t)offset);
    answer_result();
    return;
  }
  for (uint32_t i = 0; i < bytes; i++) to[offset + i] = request.payload[5u + i];
  answer(0u);
}

/* A run that is asked for again must not advance the state twice. */
static void run(void) {
  if (!repeated) last_run = measured(0u, -1);
  answer_result();
}

/* Payload: output index, offset (4), length (2). */
static void read_output(void) {
  if (request.bytes != 7u) {
    refuse(EDGEC_NAK_LENGTH);
    return;
  }
  const uint32_t index = request.payload[0], offset = get32(request.payload + 1);
  const uint32_t bytes = (uint32_t)request.payload[5] | (uint32_t)request.payload[6] << 8;
  if (index >= edgec_bench.output_count || offset > edgec_bench.outputs[index].bytes ||
      bytes > edgec_bench.outputs[index].bytes - offset || bytes > EDGEC_PAYLOAD_MAX) {
    refuse(EDGEC_NAK_RANGE);
    return;
  }
  edgec_frame_send((uint8_t)(request.type | EDGEC_ANSWER), request.sequence,
                   (const uint8_t *)edgec_bench.output(index) + offset, bytes);
}

/* Whether the state has `bytes` bytes at `offset`, and a frame has room for them; refuses the request if not. */
static int in_state(uint32_t offset, uint32_t bytes) {
  const int inside =
      offset <= edgec_bench.state_bytes && bytes <= edgec_bench.state_bytes - offset && bytes <= EDGEC_PAYLOAD_MAX;
  if (!inside) refuse(EDGEC_NAK_RANGE);
  return inside;
}

/* Payload: offset (4), length (2). */
static void get_state(void) {
  if (request.bytes != 6u) {
    refuse(EDGEC_NAK_LENGTH);
    return;
  }
  const uint32_t offset = get32(request.payload);
  const uint32_t bytes = (uint32_t)request.payload[4] | (uint32_t)request.payload[5] << 8;
  if (in_state(offset, bytes))
    edgec_frame_send((uint8_t)(request.type | EDGEC_ANSWER), request.sequence,
                     (const uint8_t *)edgec_bench.state + offset, bytes);
}

/* Payload: offset (4), bytes to write there. */
static void put_state(void) {
  if (request.bytes < 4u) {
    refuse(EDGEC_NAK_LENGTH);
    return;
  }
  const uint32_t offset = get32(request.payload), bytes = request.bytes - 4u;
  if (!in_state(offset, bytes)) return;
  uint8_t *to = (uint8_t *)edgec_bench.state + offset;
  for (uint32_t i = 0; i < bytes; i++) to[i] = request.payload[4u + i];
  answer(0u);
}

int main(void) {
  const int ready = edgec_bench.init() == 0;
  for (;;) {
    const uint8_t reason = edgec_frame_receive(&request);
    if (reason == 0u) {
      const uint32_t asked = (uint32_t)request.type << 8 | request.sequence;
      repeated = asked == answered;
      answered = asked;
    }
    if (reason != 0u) {
      refuse(reason);
    } else if (request.type == EDGEC_HELLO) {
      hello();
    } else if (request.type == EDGEC_DESCRIBE) {
      describe();
    } else if (!ready) {
      refuse(EDGEC_NAK_INIT);
    } else if (request.type == EDGEC_RESET) {
      edgec_bench.reset();
      answer(0u);
    } else if (request.type == EDGEC_WRITE) {
      write_input();
    } else if (request.type == EDGEC_RUN) {
      run();
    } else if (request.type == EDGEC_READ) {
      read_output();
    } else if (request.type == EDGEC_STATE_GET) {
      get_state();
    } else if (request.type == EDGEC_STATE_PUT) {
      put_state();
    } else {
      refuse(EDGEC_NAK_TYPE);
    }
  }
}
