/* SPDX-License-Identifier: Apache-2.0 */
/* strided_copy_s8: runs of bytes by words, transposed planes in blocks of four by four, the rest byte by byte. */
#include "copy_run.h"
#include "edgec_compiler.h"
#include "edgec_dsp.h"
#include "edgec_kernels.h"

enum { ROWS, ROW_STEP, COLUMNS, COLUMN_STEP }; /* of a plane, the last words of the geometry */

/* Neither inlined at each call nor laid out for speed, what only steers would cost flash for nothing. */
#define EDGEC_SMALL __attribute__((noinline)) EDGEC_MINSIZE

__attribute__((noinline))
static void copy_line(const int8_t *x, int32_t x_step, int8_t *y, int32_t y_step, int32_t count)
{
#if EDGEC_HAS_DSP
    if (count >= 4) {
        uint32_t a, b, c, d;
        count -= 4;
        __asm__ volatile("1:\n\t"
                         "ldrb    %[a], [%[x]]\n\t"
                         "ldrb    %[b], [%[x], %[x_step]]\n\t"
                         "ldrb    %[c], [%[x], %[x_step], lsl #1]\n\t"
                         "ldrb    %[d], [%[x], %[x_step_3]]\n\t"
                         "add     %[x], %[x], %[x_step], lsl #2\n\t"
                         "strb    %[a], [%[y]]\n\t"
                         "strb    %[b], [%[y], %[y_step]]\n\t"
                         "strb    %[c], [%[y], %[y_step], lsl #1]\n\t"
                         "strb    %[d], [%[y], %[y_step_3]]\n\t"
                         "add     %[y], %[y], %[y_step], lsl #2\n\t"
                         "subs    %[count], #4\n\t"
                         "bpl     1b"
                         : [x] "+&r"(x), [y] "+&r"(y), [count] "+&l"(count), [a] "=&r"(a), [b] "=&r"(b), [c] "=&r"(c),
                           [d] "=&r"(d)
                         : [x_step] "r"(x_step), [x_step_3] "r"(3 * x_step), [y_step] "r"(y_step),
                           [y_step_3] "r"(3 * y_step)
                         : "cc", "memory");
        count += 4;
    }
#endif
    EDGEC_KEEP_LOOP
    for (; count > 0; count--) {
        *y = *x;
        x += x_step;
        y += y_step;
    }
}

/* y[row][column] = x[row * row_step + column * column_step], the longer axis inside; rows of y are y_step apart. */
EDGEC_SMALL
static void copy_bytes(const int8_t *x, const int32_t *plane, int32_t rows, int32_t columns, int8_t *y, int32_t y_step)
{
    if (columns >= rows) {
        for (; rows > 0; rows--) {
            copy_line(x, plane[COLUMN_STEP], y, 1, columns);
            x += plane[ROW_STEP];
            y += y_step;
        }
    } else {
        for (; columns > 0; columns--) {
            copy_line(x, plane[ROW_STEP], y, y_step, rows);
            x += plane[COLUMN_STEP];
            y++;
        }
    }
}

/* Blocks of four words of x, `step` bytes apart, until x is `end`: byte b of word w goes to word b, byte w of y. */
#if EDGEC_HAS_DSP
static inline void transpose_blocks(const int8_t *x, int32_t step, int8_t *y, int32_t y_step, const int8_t *end)
{
    uint32_t a, b, c, d, even, odd;
    __asm__ volatile("1:\n\t"
                     "ldr     %[b], [%[x], %[step]]\n\t"
                     "ldr     %[c], [%[x], %[step], lsl #1]\n\t"
                     "ldr     %[d], [%[x], %[step_3]]\n\t"
                     "ldr     %[a], [%[x]], #4\n\t"
                     "uxtb16  %[odd], %[b]\n\t"
                     "uxtb16  %[even], %[a]\n\t"
                     "uxtb16  %[a], %[a], ror #8\n\t"
                     "uxtb16  %[b], %[b], ror #8\n\t"
                     "orr     %[even], %[even], %[odd], lsl #8\n\t" /* bytes 0 and 2 of the first two words */
                     "orr     %[a], %[a], %[b], lsl #8\n\t"         /* bytes 1 and 3 */
                     "uxtb16  %[odd], %[c]\n\t"
                     "uxtb16  %[b], %[d]\n\t"
                     "uxtb16  %[c], %[c], ror #8\n\t"
                     "uxtb16  %[d], %[d], ror #8\n\t"
                     "orr     %[odd], %[odd], %[b], lsl #8\n\t" /* 0 and 2 of the others */
                     "orr     %[c], %[c], %[d], lsl #8\n\t"
                     "pkhbt   %[d], %[even], %[odd], lsl #16\n\t"
                     "pkhbt   %[b], %[a], %[c], lsl #16\n\t"
                     "pkhtb   %[odd], %[odd], %[even], asr #16\n\t"
                     "pkhtb   %[c], %[c], %[a], asr #16\n\t"
                     "str     %[d], [%[y]]\n\t"
                     "str     %[b], [%[y], %[y_step]]\n\t"
                     "str     %[odd], [%[y], %[y_step], lsl #1]\n\t"
                     "str     %[c], [%[y], %[y_step_3]]\n\t"
                     "add     %[y], %[y], %[y_step], lsl #2\n\t"
                     "cmp     %[x], %[end]\n\t"
                     "bne     1b"
                     : [x] "+&r"(x), [y] "+&r"(y), [a] "=&r"(a), [b] "=&r"(b), [c] "=&r"(c), [d] "=&r"(d),
                       [even] "=&r"(even), [odd] "=&r"(odd)
                     : [step] "r"(step), [step_3] "r"(3 * step), [y_step] "r"(y_step), [y_step_3] "r"(3 * y_step),
                       [end] "r"(end)
                     : "cc", "memory");
}
#else
static inline void transpose_blocks(const int8_t *x, int32_t step, int8_t *y, int32_t y_step, const int8_t *end)
{
    for (; x != end; x++) {
        for (int32_t word = 0; word < 4; word++) {
            y[word] = x[word * step];
        }
        y += y_step;
    }
}
#endif

/* row_step 1: four elements of a column are a word. */
EDGEC_SMALL
static void transpose(const int8_t *x, const int32_t *plane, int8_t *y)
{
    const int32_t rows = plane[ROWS] & ~3;
    const int32_t columns = plane[COLUMNS] & ~3;
    const int32_t step = plane[COLUMN_STEP];
    const int32_t y_step = plane[COLUMNS];
    for (int32_t column = 0; column < columns; column += 4) {
        const int8_t *const from = x + column * step;
        transpose_blocks(from, step, y + column, y_step, from + rows);
    }
    copy_bytes(x + columns * step, plane, rows, plane[COLUMNS] - columns, y + columns, y_step);
    copy_bytes(x + rows, plane, plane[ROWS] - rows, plane[COLUMNS], y + rows * y_step, y_step);
}

EDGEC_SMALL
static int8_t *copy_plane(const int8_t *x, const int32_t *plane, int8_t *y)
{
    const int32_t rows = plane[ROWS], columns = plane[COLUMNS];
    if (plane[COLUMN_STEP] == 1) {
        for (int32_t row = 0; row < rows; row++) {
            y = edgec_copy_run(y, x, columns);
            x += plane[ROW_STEP];
        }
        return y;
    }
    if (plane[ROW_STEP] == 1 && rows >= 4 && columns >= 4) {
        transpose(x, plane, y);
    } else {
        copy_bytes(x, plane, rows, columns, y, columns);
    }
    return y + rows * columns;
}

EDGEC_MINSIZE
void edgec_strided_copy_s8_dsp(const int8_t *x, const int32_t *geometry, int8_t *y)
{
    const int32_t *const outer = geometry + 1;
    x += geometry[0];
    for (int32_t i = 0; i < outer[0]; i++) {
        for (int32_t j = 0; j < outer[2]; j++) {
            for (int32_t k = 0; k < outer[4]; k++) {
                y = copy_plane(x + i * outer[1] + j * outer[3] + k * outer[5], geometry + 7, y);
            }
        }
    }
}
