/* SPDX-License-Identifier: Apache-2.0 */
/* Copies between places of any alignment; memcpy of the runtime takes words only where both are aligned. */
#ifndef EDGEC_COPY_RUN_H
#define EDGEC_COPY_RUN_H

#include <stdint.h>

/* From and to do not overlap. Returns the end of what was written. */
int8_t *edgec_copy_run(int8_t *to, const int8_t *from, int32_t bytes);

#endif
