/* SPDX-License-Identifier: Apache-2.0 */
/* conv2d_s8 of one group for cores with DSP instructions: four windows side by side are four rows of a dense layer. */
#include "edgec_dsp.h"
#include "edgec_kernels.h"

#define EDGEC_WINDOWS 4 /* as many as a block of edgec_linear_s8_dsp has rows */

/* Inlined into one another, these would only cost flash and registers. */
#define EDGEC_NOINLINE __attribute__((noinline))

EDGEC_NOINLINE
static void copy_bytes(int8_t *to, const int8_t *from, int32_t count)
{
    int8_t *const whole = to + (count & ~3);
    while (to != whole) {
        const uint32_t word = edgec_load_word(from);
        __builtin_memcpy(to, &word, sizeof word); /* one store: the library may have no string.h */
        from += 4;
        to += 4;
    }
    for (int32_t i = 0; i < (count & 3); i++) {
        to[i] = from[i];
    }
}

EDGEC_NOINLINE
static void fill_bytes(int8_t *to, int32_t value, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        to[i] = (int8_t)value;
    }
}

/* One row of taps, `length` pixels of which those in [0, width) are in the image; the others read the zero point. */
static void gather_row(const int8_t *row, const edgec_conv2d_geometry *g, int32_t column, int8_t *taps)
{
    const int32_t channels = g->channels;
    if (g->dilation_w == 1) { /* pixels lie together: padding, image, padding */
        const int32_t before = column < 0 ? (-column < g->kernel_w ? -column : g->kernel_w) : 0;
        const int32_t end = g->width - column < g->kernel_w ? g->width - column : g->kernel_w;
        const int32_t inside = end > before ? end - before : 0;
        if (before > 0) {
            fill_bytes(taps, g->x_zero_point, before * channels);
        }
        if (inside > 0) {
            copy_bytes(taps + before * channels, row + (column + before) * channels, inside * channels);
        }
        if (before + inside < g->kernel_w) {
            fill_bytes(taps + (before + inside) * channels, g->x_zero_point,
                       (g->kernel_w - before - inside) * channels);
        }
        return;
    }
    for (int32_t k = 0; k < g->kernel_w; k++) {
        if (column >= 0 && column < g->width) {
            copy_bytes(taps, row + column * channels, channels);
        } else {
            fill_bytes(taps, g->x_zero_point, channels);
        }
        column += g->dilation_w;
        taps += channels;
    }
}

EDGEC_NOINLINE
static void gather_window(const int8_t *x, const edgec_conv2d_geometry *g, int32_t row, int32_t column, int8_t *taps)
{
    const int32_t line = g->kernel_w * g->channels;
    for (int32_t k = 0; k < g->kernel_h; k++) {
        if (row >= 0 && row < g->height) {
            gather_row(x + row * g->width * g->channels, g, column, taps);
        } else {
            fill_bytes(taps, g->x_zero_point, line);
        }
        row += g->dilation_h;
        taps += line;
    }
}

void edgec_conv2d_s8_dsp(const int8_t *x, const uint32_t *w_packed, const int32_t *requantize,
                         const int32_t *geometry, int8_t *y, uint32_t *scratch)
{
    edgec_conv2d_geometry g;
    __builtin_memcpy(&g, geometry, sizeof g);
    const int32_t size = g.kernel_h * g.kernel_w * g.channels;
    int8_t *const taps = (int8_t *)(scratch + (size_t)2 * EDGEC_WINDOWS * (size_t)((size + 3) / 4));
    int32_t row = 0;
    int32_t column = 0;
    int32_t left = g.rows * g.columns;
    while (left > 0) {
        const int32_t count = left < EDGEC_WINDOWS ? left : EDGEC_WINDOWS;
        for (int32_t i = 0; i < count; i++) {
            gather_window(x, &g, row * g.stride_h - g.top, column * g.stride_w - g.left, taps + i * size);
            column++;
            if (column == g.columns) {
                column = 0;
                row++;
            }
        }
        edgec_linear_s8_dsp(taps, w_packed, requantize, y, count, size, g.outputs, g.zero_point, scratch);
        y += count * g.outputs;
        left -= count;
    }
}
