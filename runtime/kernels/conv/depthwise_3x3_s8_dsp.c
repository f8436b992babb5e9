/* SPDX-License-Identifier: Apache-2.0 */
/* depthwise_conv2d_s8 with 3x3 taps for cores with DSP instructions: lines of pixels paired, four channels at a time.
 *
 * SMLAD takes two taps that lie one above the other. Two lines of outputs share a panel of four lines of x: one word
 * holds lines 1 and 2, which both need, one word lines 0 and 3. Padding lies in the panel as any other pixel. */
#include "depthwise_3x3_s8_dsp.h"

#include "edgec_dsp.h"
#include "edgec_kernels.h"

#define EDGEC_PIXEL_WORDS 8 /* of a panel: two for each of four channels */

/* Inlined into one another, these would only cost flash and registers. */
#define EDGEC_NOINLINE __attribute__((noinline))

#if !EDGEC_HAS_DSP
static inline uint32_t lower_lanes(uint32_t low, uint32_t high) { return (low & 0xFFFFu) | (high << 16); }
static inline uint32_t upper_lanes(uint32_t low, uint32_t high) { return (low >> 16) | (high & 0xFFFF0000u); }

void edgec_depthwise_3x3_s8_dsp_pack(const int8_t *const lines[4], int32_t pixels, int32_t step, uint32_t *panel)
{
    for (int32_t i = 0; i < pixels; i++) {
        for (int32_t odd = 0; odd < 2; odd++) { /* channels 0 and 2, then 1 and 3 */
            uint32_t lanes[4];
            for (int32_t line = 0; line < 4; line++) {
                const uint32_t word = edgec_load_word(lines[line] + i * step);
                lanes[line] = odd != 0 ? edgec_sxtb16_ror8(word) : edgec_sxtb16(word);
            }
            panel[2 * odd] = lower_lanes(lanes[1], lanes[2]);
            panel[2 * odd + 1] = lower_lanes(lanes[0], lanes[3]);
            panel[2 * odd + 4] = upper_lanes(lanes[1], lanes[2]);
            panel[2 * odd + 5] = upper_lanes(lanes[0], lanes[3]);
        }
        panel += EDGEC_PIXEL_WORDS;
    }
}

void edgec_depthwise_3x3_s8_dsp_pack3(const int8_t *const lines[4], int32_t pixels, int32_t step, uint32_t *panel)
{
    const int8_t *const three[4] = {lines[0], lines[1], lines[2], lines[0]};
    edgec_depthwise_3x3_s8_dsp_pack(three, pixels, step, panel);
}

/* One line of outputs of one channel; `second`: its taps are in lines 1 to 3. */
static void slide_channel(const uint32_t *panel, const uint32_t *record, int32_t second, int8_t *y, int32_t outputs,
                          int32_t stride, int32_t zero_point)
{
    const int32_t taps[3][3] = {{edgec_lane0(record[0]), edgec_lane0(record[1]), edgec_lane0(record[2])},
                                {edgec_lane1(record[0]), edgec_lane1(record[1]), edgec_lane1(record[2])},
                                {edgec_lane0(record[3]), edgec_lane1(record[3]), edgec_lane0(record[4])}};
    for (int32_t i = 0; i < outputs; i++) {
        int32_t acc = (int32_t)record[5];
        for (int32_t tap = 0; tap < 3; tap++) {
            const uint32_t inner = panel[tap * EDGEC_PIXEL_WORDS];
            const uint32_t outer = panel[tap * EDGEC_PIXEL_WORDS + 1];
            const int32_t line[4] = {edgec_lane0(outer), edgec_lane0(inner), edgec_lane1(inner), edgec_lane1(outer)};
            for (int32_t row = 0; row < 3; row++) {
                acc += line[row + second] * taps[row][tap];
            }
        }
        *y = edgec_ssat8(edgec_smmlar(acc, (int32_t)record[6], zero_point));
        y += edgec_lane1(record[4]);
        panel += stride * EDGEC_PIXEL_WORDS;
    }
}

void edgec_depthwise_3x3_s8_dsp_slide(const uint32_t *panel, const uint32_t *records, int8_t *y, int32_t outputs,
                                      int32_t y_cross, int32_t lines, int32_t zero_point)
{
    for (int32_t line = 0; line < lines; line++) {
        for (int32_t channel = 0; channel < EDGEC_DEPTHWISE_CHANNELS; channel++) {
            slide_channel(panel + 2 * channel, records + channel * EDGEC_DEPTHWISE_RECORD_WORDS, line,
                          y + line * y_cross + channel, outputs, 1, zero_point);
        }
    }
}

void edgec_depthwise_3x3_s8_dsp_slide2(const uint32_t *panel, const uint32_t *records, int8_t *y, int32_t outputs,
                                       int32_t zero_point)
{
    for (int32_t channel = 0; channel < EDGEC_DEPTHWISE_CHANNELS; channel++) {
        slide_channel(panel + 2 * channel, records + channel * EDGEC_DEPTHWISE_RECORD_WORDS, 0, y + channel, outputs, 2,
                      zero_point);
    }
}
#endif

/* Lane `lane` of the two words of each channel: a line that lies outside the image. */
EDGEC_NOINLINE
static void blank_line(uint32_t *panel, int32_t pixels, int32_t lane, int32_t zero_point)
{
    const int16_t value = (int16_t)zero_point;
    int8_t *at = (int8_t *)panel + 2 * lane;
    int8_t *const end = at + pixels * EDGEC_PIXEL_WORDS * 4;
    while (at != end) {
        __builtin_memcpy(at, &value, sizeof value); /* stores of 16 bits */
        __builtin_memcpy(at + 8, &value, sizeof value);
        __builtin_memcpy(at + 16, &value, sizeof value);
        __builtin_memcpy(at + 24, &value, sizeof value);
        at += 32;
    }
}

EDGEC_NOINLINE
static void blank_pixels(uint32_t *panel, int32_t pixels, uint32_t zero_points)
{
    for (int32_t i = pixels * EDGEC_PIXEL_WORDS; i > 0; i--) {
        *panel++ = zero_points;
    }
}

void edgec_depthwise_3x3_s8_dsp(const int8_t *x, const uint32_t *records, const int32_t *geometry, int8_t *y,
                                int32_t first_row, int32_t rows, uint32_t *panel)
{
    edgec_depthwise_geometry g;
    __builtin_memcpy(&g, geometry, sizeof g); /* the library may have no string.h */
    edgec_window_axis *const down = g.slides_down ? &g.slide : &g.cross;
    down->before -= first_row * down->stride;
    down->outputs = rows;

    /* Pixels [begin, end) of the panel lie in the image, the others are padding once and for all. */
    const int32_t pixels = (g.slide.outputs - 1) * g.slide.stride + 3;
    const uint32_t zero_points = ((uint32_t)g.x_zero_point & 0xFFFFu) | ((uint32_t)g.x_zero_point << 16);
    int32_t begin = g.slide.before > 0 ? g.slide.before : 0;
    begin = begin < pixels ? begin : pixels;
    int32_t end = g.slide.before + g.slide.size;
    end = end < pixels ? end : pixels;
    const int32_t inside = end > begin ? end - begin : 0;
    blank_pixels(panel, begin, zero_points);
    blank_pixels(panel + (begin + inside) * EDGEC_PIXEL_WORDS, pixels - begin - inside, zero_points);

    const int32_t together = g.cross.stride == 1 && g.cross.dilation == 1 && g.slide.stride == 1 ? 2 : 1;
    for (int32_t line = 0; line < g.cross.outputs; line += together) {
        const int32_t count = g.cross.outputs - line < together ? 1 : together;
        const int8_t *lines[4];
        uint32_t blank = 0; /* lines outside the image */
        for (int32_t i = 0; i < 4; i++) {
            int32_t at = line * g.cross.stride - g.cross.before + i * g.cross.dilation;
            if (at < 0 || at >= g.cross.size) { /* any line will do: its lane is overwritten, or not read */
                blank |= i < 2 + count ? 1u << i : 0;
                at = at < 0 ? 0 : g.cross.size - 1;
            }
            lines[i] = x + at * g.cross.x_step + (begin - g.slide.before) * g.slide.x_step;
        }
        for (int32_t done = 0; done < g.channels;) {
            /* The last group overlaps the one before where channels are no multiple of four. */
            const int32_t left = g.channels - EDGEC_DEPTHWISE_CHANNELS;
            const int32_t channel = done < left ? done : left;
            const int8_t *const group[4] = {lines[0] + channel, lines[1] + channel, lines[2] + channel,
                                            lines[3] + channel};
            uint32_t *const image = panel + begin * EDGEC_PIXEL_WORDS;
            if (inside > 0 && count == 1) {
                edgec_depthwise_3x3_s8_dsp_pack3(group, inside, g.slide.x_step, image);
            } else if (inside > 0) {
                edgec_depthwise_3x3_s8_dsp_pack(group, inside, g.slide.x_step, image);
            }
            for (int32_t i = 0; blank >> i != 0; i++) {
                if ((blank >> i & 1u) != 0) {
                    blank_line(image, inside, (0x3102 >> 4 * i) & 3, g.x_zero_point); /* lanes of lines 0 to 3 */
                }
            }
            const uint32_t *const record = records + channel * EDGEC_DEPTHWISE_RECORD_WORDS;
            if (g.slide.stride == 2) {
                edgec_depthwise_3x3_s8_dsp_slide2(panel, record, y + channel, g.slide.outputs, g.zero_point);
            } else {
                edgec_depthwise_3x3_s8_dsp_slide(panel, record, y + channel, g.slide.outputs, g.cross.y_step, count,
                                                 g.zero_point);
            }
            done = channel + EDGEC_DEPTHWISE_CHANNELS;
        }
        y += together * g.cross.y_step;
    }
}
