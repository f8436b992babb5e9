/* SPDX-License-Identifier: Apache-2.0 */
/* avg_pool_s8 for cores with DSP instructions: four channels at a time, summed in 16-bit lanes. */
#include "edgec_compiler.h"
#include "edgec_dsp.h"
#include "edgec_kernels.h"

#include "pool_taps.h"

/* Inlined into one another, these would only cost flash and registers. */
#define EDGEC_NOINLINE __attribute__((noinline))

typedef struct {
    int32_t offset; /* -zero_point_x for each tap inside */
    int32_t double_mult, shift, zero_point;
} edgec_pool_mean;

/* clip(value << shift) by doubling with saturation; only means of one or two taps have a shift at all. */
EDGEC_NOINLINE
static int32_t shifted(int32_t value, int32_t shift)
{
    do {
        value = edgec_qadd(value, value);
        shift--;
    } while (shift != 0);
    return value;
}

static inline int8_t mean_of(int32_t total, edgec_pool_mean mean)
{
    int32_t value = total + mean.offset;
    if (mean.shift != 0) {
        value = shifted(value, mean.shift);
    }
    return edgec_ssat8(edgec_smmlar(value, mean.double_mult, mean.zero_point));
}

/* Sums of rows x columns taps, a word of four channels each, in 16-bit lanes: 255 taps fit. */
typedef struct {
    uint32_t even, odd;
} edgec_pool_sums;

static inline edgec_pool_sums sum_of_words(const int8_t *line, int32_t rows, int32_t columns, int32_t row_step,
                                           int32_t column_step)
{
    edgec_pool_sums sums = {0, 0};
    EDGEC_KEEP_LOOP
    for (; rows > 0; rows--) {
        const int8_t *tap = line;
        EDGEC_KEEP_LOOP
        for (int32_t left = columns; left > 0; left--) {
            const uint32_t word = edgec_load_word(tap);
            sums.even = edgec_sxtab16(sums.even, word);
            sums.odd = edgec_sxtab16_ror8(sums.odd, word);
            tap += column_step;
        }
        line += row_step;
    }
    return sums;
}

EDGEC_SMALL
static int32_t sum_of_bytes(const int8_t *line, int32_t rows, int32_t columns, int32_t row_step, int32_t column_step)
{
    int32_t total = 0;
    for (int32_t i = 0; i < rows; i++) {
        for (int32_t j = 0; j < columns; j++) {
            total += line[i * row_step + j * column_step];
        }
    }
    return total;
}

/* Channels [0, channels) of one window of rows x columns taps. */
EDGEC_NOINLINE
static void mean_of_window(const int8_t *x, int32_t rows, int32_t columns, int32_t row_step, int32_t column_step,
                           int32_t channels, const edgec_pool_mean *of_window, int8_t *y)
{
    const edgec_pool_mean mean = *of_window; /* in registers: a byte of y could be anything */
    int8_t *const end = y + channels;
    EDGEC_KEEP_LOOP
    while (end - y >= 4) {
        const edgec_pool_sums sums = sum_of_words(x, rows, columns, row_step, column_step);
        y[0] = mean_of(edgec_lane0(sums.even), mean);
        y[1] = mean_of(edgec_lane0(sums.odd), mean);
        y[2] = mean_of(edgec_lane1(sums.even), mean);
        y[3] = mean_of(edgec_lane1(sums.odd), mean);
        x += 4;
        y += 4;
    }
    EDGEC_KEEP_LOOP
    for (; y != end; y++) {
        *y = mean_of(sum_of_bytes(x, rows, columns, row_step, column_step), mean);
        x++;
    }
}

void edgec_avg_pool_s8_dsp(const int8_t *x, const int32_t *multipliers, const int32_t *geometry, int8_t *y,
                           int32_t first_row, int32_t rows)
{
    edgec_avg_pool_geometry p;
    __builtin_memcpy(&p, geometry, sizeof p);
    const edgec_conv2d_geometry *const g = &p.window;
    for (int32_t row = first_row; row < first_row + rows; row++) {
        const int32_t top = row * g->stride_h - g->top;
        const edgec_pool_taps down = edgec_pool_inside(top, g->dilation_h, g->kernel_h, 0, g->height);
        const edgec_pool_taps down_counted =
            edgec_pool_inside(top, g->dilation_h, g->kernel_h, -p.counted_top, g->height + p.counted_bottom);
        for (int32_t column = 0; column < g->columns; column++) {
            const int32_t left = column * g->stride_w - g->left;
            const edgec_pool_taps along = edgec_pool_inside(left, g->dilation_w, g->kernel_w, 0, g->width);
            const edgec_pool_taps along_counted =
                edgec_pool_inside(left, g->dilation_w, g->kernel_w, -p.counted_left, g->width + p.counted_right);
            const int32_t inside = along.count > 0 ? down.count : 0;
            const int32_t *const multiplier = multipliers + 2 * (down_counted.count * along_counted.count - 1);
            const edgec_pool_mean mean = {-g->x_zero_point * inside * along.count, multiplier[0], multiplier[1],
                                          g->zero_point};
            mean_of_window(inside > 0 ? x + (down.first * g->width + along.first) * g->channels : x, inside,
                           along.count, g->dilation_h * g->width * g->channels, g->dilation_w * g->channels,
                           g->channels, &mean, y);
            y += g->channels;
        }
    }
}
