/* SPDX-License-Identifier: Apache-2.0 */
/* The newest samples of a ring of hops, under a window. */
#include "edgec_compiler.h"
#include "edgec_dsp.h"
#include "front_end.h"

/* The element at which number n lies in bit-reversed order, `unused` bits above those of a number. */
static inline uint32_t reversed(uint32_t n, int32_t unused)
{
#if EDGEC_HAS_DSP
    return __rbit(n) >> unused;
#else
    uint32_t result = 0;
    for (int32_t bit = unused; bit < 32; bit++) {
        result = result << 1 | (n & 1u);
        n >>= 1;
    }
    return result;
#endif
}

uint32_t edgec_front_end_window(const int16_t *ring, int32_t newest, int32_t rows, int32_t hop, const int16_t *window,
                                int32_t size, edgec_complex *z, int32_t stages)
{
    const int32_t unused = 32 - stages;
    const int8_t *w = (const int8_t *)window;
    uint32_t n = 0, bits = 0;
    int32_t row = newest, begin = rows * hop - size; /* of the oldest hop only the end */
    for (int32_t left = rows; left > 0; left--) {
        row = row + 1 == rows ? 0 : row + 1;
        const int8_t *x = (const int8_t *)(ring + row * hop + begin);
        EDGEC_UNROLL_TWICE
        for (int32_t pairs = (hop - begin) >> 1; pairs > 0; pairs--) {
            const uint32_t samples = edgec_load_word(x), factors = edgec_load_word(w);
            const int32_t re = edgec_lane0(samples) * edgec_lane0(factors);
            const int32_t im = edgec_lane1(samples) * edgec_lane1(factors);
            bits |= (uint32_t)(re ^ (re >> 31)) | (uint32_t)(im ^ (im >> 31));
            edgec_complex *const to = z + reversed(n, unused);
            to->re = re;
            to->im = im;
            x += 4;
            w += 4;
            n++;
        }
        begin = 0;
    }
    EDGEC_KEEP_LOOP
    for (; n < (uint32_t)1 << stages; n++) {
        edgec_complex *const to = z + reversed(n, unused);
        to->re = 0;
        to->im = 0;
    }
    return bits;
}
