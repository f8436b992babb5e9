/* SPDX-License-Identifier: Apache-2.0 */
/* What the bench (firmware or host library) needs to know of a compiled model: one constant that bench.c defines. */
#ifndef EDGEC_BENCH_H
#define EDGEC_BENCH_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  const char *name;  /* as in the model */
  uint32_t bytes;
} edgec_bench_tensor;

typedef struct {
  const char *model_id;  /* hex digest from the manifest: the host refuses another model's firmware */
  uint32_t input_count, output_count;
  const edgec_bench_tensor *inputs, *outputs;
  int (*init)(void);   /* once, before anything else; 0 is success */
  void (*reset)(void); /* state back to its reset values */
  int (*run)(void);    /* one inference; 0 is success */
  void *(*input)(uint32_t index); /* null for an input that is fed */
  const void *(*output)(uint32_t index);
  /* Takes the next bytes of an input that is fed; offset 0 begins anew. 0 is success. Null where no input is fed. */
  int (*feed)(uint32_t index, uint32_t offset, const void *bytes, uint32_t count);
  void *state;          /* what <model>_save would copy; null without state */
  uint32_t state_bytes;
} edgec_bench_program;

extern const edgec_bench_program edgec_bench;

#ifdef __cplusplus
}
#endif
#endif
