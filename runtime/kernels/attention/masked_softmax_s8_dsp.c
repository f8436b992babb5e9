/* SPDX-License-Identifier: Apache-2.0 */
/* masked_softmax_s8 for cores with DSP instructions: hidden elements count as -128 for the largest, 0 in the sum. */
#include "edgec_compiler.h"
#include "edgec_kernels.h"
#include "softmax_row.h"

/* Writes x with -128 for what is hidden to y, which may be x; the largest of it. */
static int32_t hide(const int8_t *x, const int8_t *counts, int8_t *y, int32_t n)
{
    uint32_t largest = 0x80808080u;
    const int8_t *const whole = x + (n & ~3);
    EDGEC_KEEP_LOOP
    while (x != whole) {
        const uint32_t word = ((edgec_load_word(x) ^ 0x80808080u) & edgec_load_word(counts)) ^ 0x80808080u;
        __builtin_memcpy(y, &word, sizeof word);
        largest = edgec_larger_bytes(word, largest);
        x += 4;
        counts += 4;
        y += 4;
    }
    int8_t most = -128;
    EDGEC_KEEP_LOOP
    for (int32_t i = 0; i < (n & 3); i++) {
        y[i] = counts[i] != 0 ? x[i] : -128;
        most = y[i] > most ? y[i] : most;
    }
    EDGEC_KEEP_LOOP
    for (int32_t i = 0; i < 4; i++) {
        const int8_t lane = (int8_t)(largest >> (8 * i));
        most = lane > most ? lane : most;
    }
    return most;
}

void edgec_masked_softmax_s8_dsp(const int8_t *x, const int8_t *mask, const uint16_t *table, int8_t *y, int32_t rows,
                                 int32_t n, int32_t mask_rows)
{
    const int8_t *counts = mask;
    int32_t left = mask_rows;
    EDGEC_KEEP_LOOP
    while (rows > 0) {
        const uint16_t *const from = table + 255 - hide(x, counts, y, n);
        const int32_t whole = n & ~3;
        uint32_t sum = 0;
        EDGEC_KEEP_LOOP
        for (int32_t i = 0; i < whole; i += 4) {
            const int32_t first = from[y[i]] & counts[i];
            const int32_t second = from[y[i + 1]] & counts[i + 1];
            const int32_t third = from[y[i + 2]] & counts[i + 2];
            const int32_t fourth = from[y[i + 3]] & counts[i + 3];
            sum += (uint32_t)first + (uint32_t)second + (uint32_t)third + (uint32_t)fourth;
        }
        EDGEC_KEEP_LOOP
        for (int32_t i = whole; i < n; i++) {
            sum += (uint32_t)(from[y[i]] & counts[i]);
        }
        const int32_t factor = sum != 0 ? edgec_softmax_factor(sum) : 0; /* 0: nothing counts */
        EDGEC_KEEP_LOOP
        for (int32_t i = 0; i < whole; i += 4) {
            const int32_t first = edgec_smmlar(from[y[i]] & counts[i], factor, -128);
            const int32_t second = edgec_smmlar(from[y[i + 1]] & counts[i + 1], factor, -128);
            const int32_t third = edgec_smmlar(from[y[i + 2]] & counts[i + 2], factor, -128);
            const int32_t fourth = edgec_smmlar(from[y[i + 3]] & counts[i + 3], factor, -128);
            y[i] = (int8_t)first;
            y[i + 1] = (int8_t)second;
            y[i + 2] = (int8_t)third;
            y[i + 3] = (int8_t)fourth;
        }
        EDGEC_KEEP_LOOP
        for (int32_t i = whole; i < n; i++) {
            y[i] = (int8_t)edgec_smmlar(from[y[i]] & counts[i], factor, -128);
        }
        x += n;
        y += n;
        counts += n;
        left--;
        if (left == 0) {
            counts = mask;
            left = mask_rows;
        }
        rows--;
    }
}
