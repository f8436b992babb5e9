/* SPDX-License-Identifier: Apache-2.0 */
/* One output pixel of a depthwise convolution for cores with DSP instructions: four channels at a time. */
#include "depthwise_pixel_s8_dsp.h"

#include "edgec_compiler.h"
#include "edgec_dsp.h"

#define EDGEC_CHANNELS 4

/* Inlined, this would only cost flash and registers. */
#define EDGEC_NOINLINE __attribute__((noinline))

/* clip(acc << shift) by doubling with saturation; few channels have a shift at all. */
EDGEC_NOINLINE
static int32_t shifted(int32_t acc, int32_t shift)
{
    do {
        acc = edgec_qadd(acc, acc);
        shift--;
    } while (shift != 0);
    return acc;
}

static inline int8_t requantize_narrow(int32_t acc, const int32_t *requantize, int32_t zero_point)
{
    if (requantize[2] != 0) {
        acc = shifted(acc, requantize[2]);
    }
    return edgec_ssat8(edgec_smmlar(acc, requantize[1], zero_point));
}

void edgec_depthwise_pixel_s8_dsp(const int8_t *const *taps, int32_t count, int32_t channels, const uint32_t *w,
                                  const int32_t *requantize, int32_t zero_point, int8_t *y)
{
    const int8_t *const *const end = taps + count;
    for (int32_t at = 0; at < channels; at += EDGEC_CHANNELS) {
        int32_t acc0 = requantize[0];
        int32_t acc1 = requantize[3];
        int32_t acc2 = requantize[6];
        int32_t acc3 = requantize[9];
        EDGEC_KEEP_LOOP /* its registers would not do */
        for (const int8_t *const *tap = taps; tap != end; tap++) {
            const uint32_t word = edgec_load_word(*tap + at);
            const uint32_t even = edgec_sxtb16(word);
            const uint32_t odd = edgec_sxtb16_ror8(word);
            acc0 = edgec_smlabb(even, w[0], acc0);
            acc2 = edgec_smlatt(even, w[0], acc2);
            acc1 = edgec_smlabb(odd, w[1], acc1);
            acc3 = edgec_smlatt(odd, w[1], acc3);
            w += 2;
        }
        y[0] = requantize_narrow(acc0, requantize, zero_point);
        y[1] = requantize_narrow(acc1, requantize + 3, zero_point);
        y[2] = requantize_narrow(acc2, requantize + 6, zero_point);
        y[3] = requantize_narrow(acc3, requantize + 9, zero_point);
        requantize += 3 * EDGEC_CHANNELS;
        y += EDGEC_CHANNELS;
    }
}
