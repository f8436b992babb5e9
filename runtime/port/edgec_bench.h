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
  void *(*input)(uint32_t index);
  const void *(*output)(uint32_t index);
} edgec_bench_program;

extern const edgec_bench_program edgec_bench;

#ifdef __cplusplus
}
#endif
#endif
