/* SPDX-License-Identifier: Apache-2.0 */
/* conv2d_s8 of one group for cores with DSP instructions: four windows side by side are four rows of a dense layer.
 *
 * Where channels go by four, rows of taps are widened from the image straight into the panel. Other windows are first
 * laid out in bytes, since their words hold channels of two rows. */
#include "edgec_dsp.h"
#include "edgec_kernels.h"

#define EDGEC_WINDOWS 4 /* rows of a block of the panel */

/* Inlined into one another, these would only cost flash and registers; unrolled, little but flash. */
#define EDGEC_NOINLINE __attribute__((noinline))
#if defined(__clang__)
#define EDGEC_SMALL __attribute__((noinline, minsize))
#else
#define EDGEC_SMALL __attribute__((noinline))
#endif

/* Which taps of a row of taps lie in the image: `before` do not, then `inside` do. */
typedef struct {
    int32_t before, inside;
} edgec_conv_span;

static inline void pack_word(uint32_t word, uint32_t *panel, int32_t stride)
{
    panel[0] = edgec_sxtb16(word);
    panel[stride] = edgec_sxtb16_ror8(word);
}

/* `words` words of four channels to the panel, `stride` words between its words; x moves on by `step` bytes a word. */
static inline void pack_strided(const int8_t *x, int32_t step, int32_t words, uint32_t *panel, int32_t stride)
{
    uint32_t *const end = panel + 2 * stride * words;
    if ((words & 1) != 0) {
        pack_word(edgec_load_word(x), panel, stride);
        x += step;
        panel += 2 * stride;
    }
#if defined(__clang__)
#pragma clang loop unroll(disable)
#endif
    while (panel != end) {
        pack_word(edgec_load_word(x), panel, stride);
        pack_word(edgec_load_word(x + step), panel + 2 * stride, stride);
        x += 2 * step;
        panel += 4 * stride;
    }
}

EDGEC_NOINLINE
static void pack_words(const int8_t *x, int32_t words, uint32_t *panel, int32_t stride)
{
    if (stride == EDGEC_WINDOWS) { /* almost always: offsets of stores are known */
        pack_strided(x, 4, words, panel, EDGEC_WINDOWS);
    } else {
        pack_strided(x, 4, words, panel, stride);
    }
}

EDGEC_SMALL
static void fill_words(uint32_t lanes, int32_t words, uint32_t *panel, int32_t stride)
{
    for (int32_t i = 0; i < 2 * words; i++) {
        *panel = lanes;
        panel += stride;
    }
}

/* One window, channels a multiple of four. */
EDGEC_SMALL
static void pack_window(const int8_t *x, const edgec_conv2d_geometry *g, int32_t row, int32_t column,
                        edgec_conv_span span, uint32_t *panel, int32_t stride)
{
    const uint32_t zero_points = ((uint32_t)g->x_zero_point & 0xFFFFu) | ((uint32_t)g->x_zero_point << 16);
    const int32_t pixel = g->channels >> 2;
    const int32_t after = g->kernel_w - span.before - span.inside;
    for (int32_t k = 0; k < g->kernel_h; k++) {
        if (row < 0 || row >= g->height || span.inside == 0) {
            fill_words(zero_points, pixel * g->kernel_w, panel, stride);
        } else {
            const int8_t *from =
                x + (row * g->width + column + span.before * g->dilation_w) * g->channels;
            uint32_t *to = panel + 2 * stride * pixel * span.before;
            if (span.before != 0) {
                fill_words(zero_points, pixel * span.before, panel, stride);
            }
            if (g->dilation_w == 1) {
                pack_words(from, pixel * span.inside, to, stride);
                to += 2 * stride * pixel * span.inside;
            } else {
                for (int32_t i = 0; i < span.inside; i++) {
                    pack_words(from, pixel, to, stride);
                    from += g->dilation_w * g->channels;
                    to += 2 * stride * pixel;
                }
            }
            if (after != 0) {
                fill_words(zero_points, pixel * after, to, stride);
            }
        }
        row += g->dilation_h;
        panel += 2 * stride * pixel * g->kernel_w;
    }
}

EDGEC_SMALL
static void fill_bytes(int8_t *to, int32_t value, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        to[i] = (int8_t)value;
    }
}

/* The last word overlaps the one before where bytes do not go by four. */
EDGEC_NOINLINE
static void copy_bytes(int8_t *to, const int8_t *from, int32_t count)
{
    if (count < 4) {
        for (int32_t i = 0; i < count; i++) {
            to[i] = from[i];
        }
        return;
    }
    const int8_t *const last = from + count - 4;
    int8_t *const last_to = to + count - 4;
    uint32_t word;
    while (from < last) {
        word = edgec_load_word(from);
        __builtin_memcpy(to, &word, sizeof word); /* one store: the library may have no string.h */
        from += 4;
        to += 4;
    }
    word = edgec_load_word(last);
    __builtin_memcpy(last_to, &word, sizeof word);
}

/* One window of any number of channels, side by side. */
EDGEC_SMALL
static void gather_window(const int8_t *x, const edgec_conv2d_geometry *g, int32_t row, int32_t column,
                          edgec_conv_span span, int8_t *taps)
{
    const int32_t line = g->kernel_w * g->channels;
    const int32_t before = span.before * g->channels;
    const int32_t inside = span.inside * g->channels;
    const int8_t *from = x + (row * g->width + column + span.before * g->dilation_w) * g->channels;
    for (int32_t k = 0; k < g->kernel_h; k++) {
        if (row < 0 || row >= g->height || inside == 0) {
            fill_bytes(taps, g->x_zero_point, line);
        } else {
            if (inside != line) {
                fill_bytes(taps, g->x_zero_point, before);
                fill_bytes(taps + before + inside, g->x_zero_point, line - before - inside);
            }
            if (g->dilation_w == 1) {
                copy_bytes(taps + before, from, inside);
            } else {
                for (int32_t i = 0; i < span.inside; i++) {
                    copy_bytes(taps + before + i * g->channels, from + i * g->dilation_w * g->channels, g->channels);
                }
            }
        }
        row += g->dilation_h;
        from += g->dilation_h * g->width * g->channels;
        taps += line;
    }
}

static inline edgec_conv_span span_of(const edgec_conv2d_geometry *g, int32_t column)
{
    edgec_conv_span span = {0, g->kernel_w};
    for (int32_t at = column; at < 0 && span.inside > 0; at += g->dilation_w) {
        span.before++;
        span.inside--;
    }
    for (int32_t at = column + (g->kernel_w - 1) * g->dilation_w; at >= g->width && span.inside > 0;
         at -= g->dilation_w) {
        span.inside--;
    }
    return span;
}

/* Four windows side by side, taps side by side, channels a multiple of four: taps in the padding are read as what lies
 * there in the image, then overwritten. Returns 0 where that would read outside of the image. */
EDGEC_SMALL
static int pack_four(const int8_t *x, const edgec_conv2d_geometry *g, int32_t row, int32_t column,
                     const edgec_conv_span *spans, uint32_t *panel)
{
    const uint32_t zero_points = ((uint32_t)g->x_zero_point & 0xFFFFu) | ((uint32_t)g->x_zero_point << 16);
    const int32_t pixel = g->channels >> 2;
    const int32_t words = pixel * g->kernel_w;
    const int32_t last_row = row + (g->kernel_h - 1) * g->dilation_h;
    const int32_t end = column + (EDGEC_WINDOWS - 1) * g->stride_w + g->kernel_w;
    const int32_t first_read = (row > 0 ? row : 0) * g->width + column;
    const int32_t last_read = (last_row < g->height ? last_row : g->height - 1) * g->width + end;
    if (first_read < 0 || last_read > g->height * g->width) {
        return 0;
    }
    for (int32_t k = 0; k < g->kernel_h; k++) {
        if (row < 0 || row >= g->height) {
            fill_words(zero_points, EDGEC_WINDOWS * words, panel, 1);
        } else {
            edgec_linear_s8_dsp_pack4(x + (row * g->width + column) * g->channels, g->stride_w * g->channels, words,
                                      panel);
            for (int32_t i = 0; i < EDGEC_WINDOWS; i++) {
                const int32_t after = g->kernel_w - spans[i].before - spans[i].inside;
                if (after + spans[i].before != 0) {
                    fill_words(zero_points, pixel * spans[i].before, panel + i, EDGEC_WINDOWS);
                    fill_words(zero_points, pixel * after, panel + i + 2 * EDGEC_WINDOWS * (words - pixel * after),
                               EDGEC_WINDOWS);
                }
            }
        }
        row += g->dilation_h;
        panel += 2 * EDGEC_WINDOWS * words;
    }
    return 1;
}

/* Where a window begins, and how many are left in its row of windows. */
typedef struct {
    int32_t row, column, left;
} edgec_conv_place;

/* `count` windows (4, 2 or 1) to a block of the panel. */
EDGEC_SMALL
static void pack_block(const int8_t *x, const edgec_conv2d_geometry *g, edgec_conv_place *next, int32_t count,
                       uint32_t *panel, int8_t *taps)
{
    const int32_t groups = (g->kernel_h * g->kernel_w * g->channels + 3) >> 2;
    const int direct = (g->channels & 3) == 0;
    const int together = direct && count == EDGEC_WINDOWS && next->left >= EDGEC_WINDOWS && g->dilation_w == 1;
    edgec_conv_span spans[EDGEC_WINDOWS];
    edgec_conv_place places[EDGEC_WINDOWS];
    for (int32_t i = 0; i < count; i++) {
        spans[i] = span_of(g, next->column);
        places[i] = *next;
        next->column += g->stride_w;
        next->left--;
        if (next->left == 0) {
            *next = (edgec_conv_place){next->row + g->stride_h, -g->left, g->columns};
        }
    }
    if (together && pack_four(x, g, places[0].row, places[0].column, spans, panel)) {
        return;
    }
    for (int32_t i = 0; i < count; i++) {
        if (direct) {
            pack_window(x, g, places[i].row, places[i].column, spans[i], panel + i, count);
        } else {
            gather_window(x, g, places[i].row, places[i].column, spans[i], taps);
            pack_words(taps, groups, panel + i, count); /* bytes beyond the window meet weights of 0 */
        }
    }
}

void edgec_conv2d_s8_dsp(const int8_t *x, const uint32_t *w_packed, const int32_t *requantize,
                         const int32_t *geometry, int8_t *y, int32_t first_row, int32_t rows, int32_t panel_rows,
                         uint32_t *scratch)
{
    edgec_conv2d_geometry g;
    __builtin_memcpy(&g, geometry, sizeof g);
    const int32_t size = g.kernel_h * g.kernel_w * g.channels;
    const int32_t groups = (size + 3) >> 2;
    int8_t *const taps = (int8_t *)scratch;
    uint32_t *const panel = (g.channels & 3) == 0 ? scratch : scratch + groups; /* behind a window in bytes */
    edgec_conv_place next = {first_row * g.stride_h - g.top, -g.left, g.columns};
    int32_t left = rows * g.columns;
    while (left > 0) {
        int32_t count = left < panel_rows ? left : panel_rows;
        count = count >= EDGEC_WINDOWS ? count & ~(EDGEC_WINDOWS - 1) : count >= 2 ? 2 : 1;
        uint32_t *block = panel;
        for (int32_t done = 0; done < count; done += EDGEC_WINDOWS) {
            pack_block(x, &g, &next, count < EDGEC_WINDOWS ? count : EDGEC_WINDOWS, block, taps);
            block += 2 * EDGEC_WINDOWS * groups;
        }
        edgec_linear_s8_dsp_panel(panel, w_packed, requantize, y, count, size, g.outputs, g.zero_point);
        y += count * g.outputs;
        left -= count;
    }
}
