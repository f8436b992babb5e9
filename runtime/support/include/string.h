/* SPDX-License-Identifier: Apache-2.0 */
/* The memory functions of <string.h> that firmware may use. */
#ifndef EDGEC_STRING_H
#define EDGEC_STRING_H

#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t bytes);
void *memmove(void *to, const void *from, size_t bytes);
void *memset(void *to, int value, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);

#endif
