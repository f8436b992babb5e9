/* SPDX-License-Identifier: Apache-2.0 */
/* depthwise_conv2d_s8 for cores with DSP instructions: four channels at a time, padding read from a row of its own. */
#include "depthwise_pixel_s8_dsp.h"
#include "edgec_kernels.h"

/* Inlined into one another, these would only cost flash and registers. */
#define EDGEC_NOINLINE __attribute__((noinline))

/* Where each tap of one window begins: in the image, or in the row of zero points. */
EDGEC_NOINLINE
static void find_taps(const int8_t *x, const edgec_conv2d_geometry *g, int32_t row, int32_t column,
                      const int8_t *padding, const int8_t **taps)
{
    for (int32_t i = 0; i < g->kernel_h; i++) {
        const int32_t h = row + i * g->dilation_h;
        const int8_t *const line = x + h * g->width * g->channels;
        for (int32_t j = 0; j < g->kernel_w; j++) {
            const int32_t w = column + j * g->dilation_w;
            const int inside = h >= 0 && h < g->height && w >= 0 && w < g->width;
            *taps++ = inside ? line + w * g->channels : padding;
        }
    }
}

/* The same one window further on. */
static inline void move_taps(const int8_t **taps, int32_t count, int32_t step)
{
    for (int32_t i = 0; i < count; i++) {
        taps[i] += step;
    }
}

void edgec_depthwise_conv2d_s8_dsp(const int8_t *x, const uint32_t *w_packed, const int32_t *requantize,
                                   const int32_t *geometry, int8_t *y, int8_t *scratch)
{
    const int8_t *taps[EDGEC_DEPTHWISE_TAPS];
    edgec_conv2d_geometry g;
    __builtin_memcpy(&g, geometry, sizeof g); /* the library may have no string.h */
    const int32_t count = g.kernel_h * g.kernel_w;
    for (int32_t i = 0; i < g.channels; i++) {
        scratch[i] = (int8_t)g.x_zero_point;
    }
    for (int32_t row = 0; row < g.rows; row++) {
        const int32_t top = row * g.stride_h - g.top;
        const int in_rows = top >= 0 && top + (g.kernel_h - 1) * g.dilation_h < g.height;
        int found = 0; /* whether the taps of the window before lie in the image, all of them */
        for (int32_t column = 0; column < g.columns; column++) {
            const int32_t left = column * g.stride_w - g.left;
            const int inside = in_rows && left >= 0 && left + (g.kernel_w - 1) * g.dilation_w < g.width;
            if (found && inside) {
                move_taps(taps, count, g.stride_w * g.channels);
            } else {
                find_taps(x, &g, top, left, scratch, taps);
            }
            found = inside;
            edgec_depthwise_pixel_s8_dsp(taps, count, g.channels, w_packed, requantize, g.zero_point, y);
            y += g.channels;
        }
    }
}
