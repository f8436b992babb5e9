/* SPDX-License-Identifier: Apache-2.0 */
/* Hand-written kernels: each overrides the generated kernel of one operator and yields the same bits. */
#ifndef EDGEC_KERNELS_H
#define EDGEC_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* linear_s8: y[m][n] = requantize(sum over k of x[m][k] * w[n][k] + bias[n]), any m, k, n >= 1.
 *
 * x            int8 [m][k], any alignment
 * w_packed     uint32 [ceil(n/2)][4*ceil(k/4) / 2]: column pairs, see edgec/kernels/linear.py, pack_pairs
 * requantize   int32: the words of a record, then 2*ceil(n/4) records, one a pair: {bias of the odd column, 2*mult of
 *              the even one, 2*mult odd, bias even} and, where it has five words, {shift even | shift odd << 8}
 * y            int8 [m][n], any alignment
 * panel_rows   4, 8, ...: so many rows are widened together; the weights are read once for all of them. 0: x is what
 *              edgec_pack_panel_s8 made of all rows, 4-byte aligned
 * scratch      8*ceil(k/4) bytes for each row of a panel; with panel_rows 0 none
 *
 * Rows are taken in panels (panel_rows, then what is left of whole fours, then 2, then 1): a panel is read from x whole
 * before a byte of it is written. m may be any number of rows of the same layer. */
void edgec_linear_s8_dsp(const int8_t *x, const uint32_t *w_packed, const int32_t *requantize, int8_t *y, int32_t m,
                         int32_t k, int32_t n, int32_t y_zero_point, int32_t panel_rows, uint32_t *scratch);

/* linear_table_s8: the same, then y = table[y + 128], table int8 [256]. */
void edgec_linear_table_s8_dsp(const int8_t *x, const uint32_t *w_packed, const int32_t *requantize,
                               const int8_t *table, int8_t *y, int32_t m, int32_t k, int32_t n, int32_t zero_point,
                               int32_t panel_rows, uint32_t *scratch);

/* linear_add_s8: the same, then y = sat8((y * sum[0] + residual * sum[1] + sum[2]) >> 18).
 *
 * residual     int8 [m][n]; may be y itself: each of its elements is read before that element of y is written, and
 *              never again */
void edgec_linear_add_s8_dsp(const int8_t *x, const int8_t *residual, const uint32_t *w_packed,
                             const int32_t *requantize, const int32_t *sum, int8_t *y, int32_t m, int32_t k, int32_t n,
                             int32_t zero_point, int32_t panel_rows, uint32_t *scratch);

/* The same for one row, with less code and stack. */
void edgec_linear_row_s8_dsp(const int8_t *x, const uint32_t *w_packed, const int32_t *requantize, int8_t *y, int32_t k,
                             int32_t n, int32_t zero_point, uint32_t *scratch);
void edgec_linear_table_row_s8_dsp(const int8_t *x, const uint32_t *w_packed, const int32_t *requantize,
                                   const int8_t *table, int8_t *y, int32_t k, int32_t n, int32_t zero_point,
                                   uint32_t *scratch);
void edgec_linear_add_row_s8_dsp(const int8_t *x, const int8_t *residual, const uint32_t *w_packed,
                                 const int32_t *requantize, const int32_t *sum, int8_t *y, int32_t k, int32_t n,
                                 int32_t zero_point, uint32_t *scratch);

/* linear_s8 with one output, n = 1.
 *
 * w_packed     uint32 [2*ceil(k/4)]: 16-bit lanes of k = 4g and 4g + 2, then of 4g + 1 and 4g + 3
 * requantize   bias, 2*mult, shift */
void edgec_linear_s8_dot_dsp(const int8_t *x, const uint32_t *w_packed, const int32_t *requantize, int8_t *y,
                             int32_t m, int32_t k, int32_t y_zero_point);

/* Widens the rows of x int8 [m][k] for several layers of the same k: 8*ceil(k/4) bytes a row, 4-byte aligned. */
void edgec_pack_panel_s8(const int8_t *x, int32_t m, int32_t k, void *packed);

/* The halves of edgec_linear_s8_dsp, for kernels that make rows of their own: four rows of x, `step` bytes apart and
 * `groups` words of four long, to uint32 [groups][2][4]; and `rows` packed rows (1, 2 or a multiple of four, these in
 * blocks) times all columns. */
void edgec_linear_s8_dsp_pack4(const int8_t *x, int32_t step, int32_t groups, uint32_t *panel);
void edgec_linear_s8_dsp_panel(const uint32_t *panel, const uint32_t *w_packed, const int32_t *requantize, int8_t *y,
                               int32_t rows, int32_t k, int32_t n, int32_t y_zero_point);

/* How windows slide over x int8 [height][width][channels] to y int8 [rows][columns][outputs]. */
typedef struct {
    int32_t height, width, channels;
    int32_t rows, columns, outputs;
    int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
    int32_t top, left; /* padding, which reads x_zero_point */
    int32_t x_zero_point, zero_point;
} edgec_conv2d_geometry;

/* conv2d_s8 of one group: y = requantize(sum over the taps and channels of x * w + bias).
 *
 * w_packed, requantize   as for edgec_linear_s8_dsp, with k = kernel_h * kernel_w * channels and n = outputs
 * geometry               the words of an edgec_conv2d_geometry
 * y                      output row first_row; `rows` rows are computed, in order
 * panel_rows             4, 8, ...: so many windows are packed before the first of their outputs is written
 * scratch                8*ceil(k/4) bytes for each of these windows; a window of bytes where channels % 4 is not 0
 *
 * Output row r reads the input rows of its taps: r*stride_h - top + i*dilation_h, so far as there are any. */
void edgec_conv2d_s8_dsp(const int8_t *x, const uint32_t *w_packed, const int32_t *requantize,
                         const int32_t *geometry, int8_t *y, int32_t first_row, int32_t rows, int32_t panel_rows,
                         uint32_t *scratch);

#define EDGEC_DEPTHWISE_TAPS 25 /* taps of a kernel at most */

/* depthwise_conv2d_s8 with one output for each channel, channels a multiple of 4, taps <= EDGEC_DEPTHWISE_TAPS.
 *
 * w_packed     uint32 [channels/4][taps][2]: lanes of channels 0, 2 and of channels 1, 3 of a group
 * requantize   int32 [channels][3]: bias, 2*mult, shift
 * geometry     the words of an edgec_conv2d_geometry
 * scratch      a row of zero points: `channels` bytes */
void edgec_depthwise_conv2d_s8_dsp(const int8_t *x, const uint32_t *w_packed, const int32_t *requantize,
                                   const int32_t *geometry, int8_t *y, int8_t *scratch);

/* Steps of a stream at fixed places: int8 [streams][rows][channels]; the cursor, any number, counts modulo rows. */
typedef struct {
    int32_t streams, rows, channels;
    int32_t taps, dilation, outputs; /* (taps - 1) * dilation < rows */
    int32_t zero_point;
} edgec_ring_geometry;

/* ring_write_s8: y is the ring with its row `cursor` replaced by x int8 [streams][channels]. y may be ring. */
void edgec_ring_write_s8_dsp(const int8_t *ring, const int8_t *x, const int32_t *cursor, int8_t *y, int32_t streams,
                             int32_t rows, int32_t channels);

/* ring_read_s8: the newest `rows` rows of every stream, oldest first, from a ring of `length` rows. */
void edgec_ring_read_s8_dsp(const int8_t *ring, const int32_t *cursor, int8_t *y, int32_t streams, int32_t length,
                            int32_t channels, int32_t rows);

/* ring_rotate_s8: the rows of x, oldest first, where a ring with this cursor has them. */
void edgec_ring_rotate_s8_dsp(const int8_t *x, const int32_t *cursor, int8_t *y, int32_t streams, int32_t length,
                              int32_t channels);

/* causal_conv1d_s8: tap j reads row cursor - (taps - 1 - j) * dilation of the ring.
 *
 * w_packed, requantize   as for edgec_linear_s8_dsp, with k = taps * channels and n = outputs
 * geometry               the words of an edgec_ring_geometry
 * scratch                8*ceil(k/4) bytes, and 4*ceil(k/4) more where channels % 4 is not 0
 *
 * A stream is read before a byte of its output is written. */
void edgec_causal_conv1d_s8_dsp(const int8_t *ring, const int32_t *cursor, const uint32_t *w_packed,
                                const int32_t *requantize, const int32_t *geometry, int8_t *y, uint32_t *scratch);

/* causal_depthwise_s8, channels a multiple of 4, taps <= EDGEC_DEPTHWISE_TAPS; w_packed and requantize as for
 * edgec_depthwise_conv2d_s8_dsp. */
void edgec_causal_depthwise_s8_dsp(const int8_t *ring, const int32_t *cursor, const uint32_t *w_packed,
                                   const int32_t *requantize, const int32_t *geometry, int8_t *y);

/* Packs the right operand of a product for edgec_matmul_s8_dsp and edgec_attention_s8_dsp, b int8 [batches][...] of any
 * alignment. A word holds two k of two columns, lanes 256*b[odd] + (b[even] + 128): k = 4g, 4g+2, then 4g+1, 4g+3.
 *
 * rows      b [rows][heads][k]: two rows are a pair of columns; packed [ceil(rows/2)][heads][ceil(k/4)][2 words]
 * columns   b [k][heads][columns]; packed [ceil(k/4)][heads][ceil(columns/2)][2 words]
 * scratch   two rows (of heads * k bytes) or four (of heads * columns), used where packed == b: allowed where a pair of
 *           rows or a group of four takes as many bytes packed (k % 4 == 0, columns % 2 == 0) and, with more than one
 *           batch, a batch does too (rows % 2 == 0, k % 4 == 0)
 *
 * Four rows of b are packed whole before the next is read, so both may be called for blocks of four rows. */
void edgec_pack_pairs_rows_s8(const int8_t *b, int32_t batches, int32_t rows, int32_t heads, int32_t k, void *packed,
                              void *scratch);
void edgec_pack_pairs_columns_s8(const int8_t *b, int32_t batches, int32_t k, int32_t heads, int32_t columns,
                                 void *packed, void *scratch);

/* matmul_s8, narrow, b without a zero point: y[m][n] = requantize(sum over k of (a[m][k] - za) * b[k][n]).
 *
 * b_packed     words, by edgec_pack_pairs_rows_s8 (transposed: b is [n][k]) or edgec_pack_pairs_columns_s8, one head
 * requantize   za, 2*mult, zero point; shift 0
 * scratch      a panel of four rows: 32*ceil(k/4) bytes */
void edgec_matmul_s8_dsp(const int8_t *a, const void *b_packed, const int32_t *requantize, int8_t *y, int32_t batches,
                         int32_t m, int32_t k, int32_t n, int32_t transposed, uint32_t *scratch);

/* softmax_s8 of `rows` rows of n elements; table[255 - d] is the exponential of d. y may be x. */
void edgec_softmax_s8_dsp(const int8_t *x, const uint16_t *table, int8_t *y, int32_t rows, int32_t n);

/* masked_softmax_s8: row r takes row r % mask_rows of the mask, which is -1 where an element counts, else 0. */
void edgec_masked_softmax_s8_dsp(const int8_t *x, const int8_t *mask, const uint16_t *table, int8_t *y, int32_t rows,
                                 int32_t n, int32_t mask_rows);

/* Shapes and requantization of attention_s8: q [m][heads][depth], k [keys][heads][depth], v [keys][heads][width]. */
typedef struct {
    int32_t heads, keys, depth, width;
    int32_t q_zero_point, score_mult, score_zero_point, mix_mult, mix_zero_point; /* multipliers doubled */
} edgec_attention_geometry;

/* attention_s8 of any m queries with the same keys and values.
 *
 * k_packed, v_packed   words, by edgec_pack_pairs_rows_s8 and edgec_pack_pairs_columns_s8
 * geometry             the words of an edgec_attention_geometry
 * table                as for edgec_softmax_s8_dsp
 * scratch              16 * heads * (2*ceil(depth/4) + 1) + 32*ceil(keys/4) + 4*keys bytes
 *
 * Queries are taken four at a time; all heads of a block are read from q before a byte of it is written. */
void edgec_attention_s8_dsp(const int8_t *q, const void *k_packed, const void *v_packed, const int32_t *geometry,
                            const uint16_t *table, int8_t *y, int32_t m, uint32_t *scratch);

/* matmul_s8 of one row in each batch, narrow: b as it lies, [n][k] where `transposed`, else [k][n].
 *
 * requantize   za, zb, 2*mult, zero point; shift 0
 * scratch      8*ceil(k/4) bytes */
void edgec_matmul_row_s8_dsp(const int8_t *a, const int8_t *b, const int32_t *requantize, int8_t *y, int32_t batches,
                             int32_t k, int32_t n, int32_t transposed, uint32_t *scratch);

/* attention_s8 of one query: k and v as they lie.
 *
 * geometry   the words of an edgec_attention_geometry, then the zero points of k and v
 * scratch    8*ceil(depth/4) + 4*ceil(keys/2) + 4*ceil(keys/4) bytes */
void edgec_attention_row_s8_dsp(const int8_t *q, const int8_t *k, const int8_t *v, const int32_t *geometry,
                                const uint16_t *table, int8_t *y, uint32_t *scratch);

/* How windows lie along one axis of an image. */
typedef struct {
    int32_t size, outputs, stride, dilation;
    int32_t before;         /* padding before the first pixel */
    int32_t x_step, y_step; /* bytes from one pixel or output to the next */
} edgec_window_axis;

/* Windows of three by three taps. A kernel slides along one axis and takes lines across it one after the other. */
typedef struct {
    edgec_window_axis slide, cross;
    int32_t slides_down; /* whether `slide` runs over the rows of the image, and not over its columns */
    int32_t channels, x_zero_point, zero_point;
} edgec_depthwise_geometry;

/* depthwise_conv2d_s8 with 3x3 taps and one output for each channel, channels >= 4.
 *
 * x           int8 [height][width][channels], the whole image
 * records     uint32 [channels][7]: 16-bit taps {w00, w10} {w01, w11} {w02, w12} {w20, w21} {w22, slide.y_step}, with
 *             the first index across and the shift of the requantization multiplied in; bias << shift; 2*mult
 * geometry    the words of an edgec_depthwise_geometry, slide.y_step < 2^15, slide.stride 1 or 2, slide.dilation 1
 * y           output row first_row; `rows` rows are computed
 * panel       32 bytes for each of (slide.outputs - 1) * slide.stride + 3 pixels
 *
 * Output row r reads input rows r*stride - before to r*stride - before + 2*dilation, so far as there are any, and the
 * row after (or, without one, the last). Without slides_down rows are written in order, two at a time. */
void edgec_depthwise_3x3_s8_dsp(const int8_t *x, const uint32_t *records, const int32_t *geometry, int8_t *y,
                                int32_t first_row, int32_t rows, uint32_t *panel);

/* layer_norm_s8 and rms_norm_s8 of `rows` rows of `width` elements, 4 <= width <= 8192. y may be x.
 *
 * affine      int32 [width][2]: gain, offset
 * constants   epsilon, shift, width << before, -1 << before, later, 2^(31 - later), 1 about the mean or 0 about the zero
 *             point, which is the last word: see edgec/kernels/norm.py
 *
 * A row is summed whole before a byte of it is written; then elements are replaced in order, four at a time. */
void edgec_norm_s8_dsp(const int8_t *x, const int32_t *affine, const int32_t *constants, int8_t *y, int32_t rows,
                       int32_t width);

/* max_pool_s8 of any window, and avg_pool_s8 of one of at most 255 taps, narrow.
 *
 * x             int8 [height][width][channels], the whole image
 * multipliers   int32 [kernel_h * kernel_w][2]: 2*mult and shift for each number of counted taps, from 1
 * geometry      the words of an edgec_conv2d_geometry, outputs = channels, or of an edgec_avg_pool_geometry
 * y             output row first_row; `rows` rows are computed, in order
 *
 * Output row r reads the input rows of its taps: r*stride_h - top + i*dilation_h, so far as there are any. */
void edgec_max_pool_s8_dsp(const int8_t *x, const int32_t *geometry, int8_t *y, int32_t first_row, int32_t rows);

typedef struct {
    edgec_conv2d_geometry window;
    int32_t counted_top, counted_left, counted_bottom, counted_right; /* padding that counts as taps */
} edgec_avg_pool_geometry;

void edgec_avg_pool_s8_dsp(const int8_t *x, const int32_t *multipliers, const int32_t *geometry, int8_t *y,
                           int32_t first_row, int32_t rows);

/* table_s8 of n elements; the table begins with the entry of x = 0, that of -1 is its last. y may be x. */
void edgec_table_s8_dsp(const int8_t *x, const uint32_t *table, int8_t *y, int32_t n);

/* Sums and products of a [rows][width] and b; b_row_step is the distance of rows of b (0: one row for all), b_step that
 * of its elements: 1, or 0 with one for all of a row. y may be a, or b if it has the same shape.
 *
 * add_s8: constants are both multipliers (16 bits each, that of a below), the offset, the shift. The shift
 * EDGEC_ADD_SHIFT is fast.
 * mul_s8, narrow with shift 0: constants are both zero points, 2*mult, the zero point of y. */
#define EDGEC_ADD_SHIFT 14
void edgec_add_s8_dsp(const int8_t *a, const int8_t *b, const int32_t *constants, int8_t *y, int32_t rows,
                      int32_t width, int32_t b_row_step, int32_t b_step);
void edgec_mul_s8_dsp(const int8_t *a, const int8_t *b, const int32_t *constants, int8_t *y, int32_t rows,
                      int32_t width, int32_t b_row_step, int32_t b_step);

/* strided_copy_s8: geometry is the offset, then steps of three outer axes and of rows and columns of a plane, each as
 * {size, distance in x in bytes}; y is dense. Columns that lie side by side are copied by words, and where rows do, the
 * plane is transposed in blocks of four by four. */
void edgec_strided_copy_s8_dsp(const int8_t *x, const int32_t *geometry, int8_t *y);

/* concat_s8: y row = a row, b row of elements of any type; widths in bytes. */
void edgec_concat_s8_dsp(const void *a, const void *b, int8_t *y, int32_t rows, int32_t a_bytes, int32_t b_bytes);

/* take_s8: x [outer][axis][inner], y [outer][count][inner]; `fill` where an index is negative. */
void edgec_take_s8_dsp(const int8_t *x, const int32_t *index, int8_t *y, int32_t outer, int32_t axis, int32_t inner,
                       int32_t count, int32_t fill);

/* embedding_s8: `count` rows of the table int8 [rows][width]. */
void edgec_embedding_s8_dsp(const int32_t *index, const uint32_t *table, int8_t *y, int32_t count, int32_t rows,
                            int32_t width);

/* mean_s8 of x [outer][terms][inner]. constants: -terms * zero point of x, mult, shift, zero point, whether wide. */
void edgec_mean_s8_dsp(const int8_t *x, const int32_t *constants, int8_t *y, int32_t outer, int32_t terms,
                       int32_t inner);

/* int16 activations; pointers of any alignment.
 *
 * add_s16: as edgec_add_s8_dsp with steps in bytes; `bytes` is those of an element of a, of b << 2, of y << 4.
 *   constants: multipliers of a and b (30 bits), what a and b are multiplied by and what is added before that, an addend
 *   for the upper word of the sum of products, its shift, smallest and largest y
 * requantize_s16: constants are the same for one operand
 * layer_norm_s16: affine int32 [width][2] gain, offset; constants epsilon (31 bits in each of two words), point, shift.
 *   A row is summed whole before a byte of it is written
 * mean_s16: as edgec_mean_s8_dsp */
void edgec_add_s16_dsp(const void *a, const void *b, const int32_t *constants, void *y, int32_t rows, int32_t width,
                       int32_t b_row_step, int32_t b_step, int32_t bytes);
void edgec_requantize_s16_dsp(const void *x, const int32_t *constants, void *y, int32_t n, int32_t x_bytes,
                              int32_t y_bytes);
void edgec_layer_norm_s16_dsp(const int16_t *x, const int32_t *affine, const int32_t *constants, int8_t *y,
                              int32_t rows, int32_t width);
void edgec_mean_s16_dsp(const int16_t *x, const int32_t *constants, int8_t *y, int32_t outer, int32_t terms,
                        int32_t inner);

/* linear_s16: x int16 [m][k], y [m][n] of y_bytes an element, any m, k, n >= 1 and any alignment.
 *
 * w_packed     uint32 [ceil(n/2)][ceil(k/8)][8]: pairs of columns, see edgec/kernels/linear16.py
 * records      int32 [ceil(n/2)][10]: both biases in two words each, then mult, addend and shift of each
 * scratch      16*ceil(k/8) bytes
 *
 * A row is read whole before a byte of its results is written. */
void edgec_linear_s16_dsp(const void *x, const uint32_t *w_packed, const int32_t *records, void *y, int32_t m,
                          int32_t k, int32_t n, int32_t y_bytes, uint32_t *scratch);

/* mul_s16: as edgec_add_s16_dsp; constants: multiplier, what is added to a and to b, how often their product is
 * doubled, an addend for the upper word, its shift, smallest and largest y, and whether four elements may be taken
 * together: y is int16, a int16 without zero point or both int8, and only a product of two int8 is doubled. */
void edgec_mul_s16_dsp(const void *a, const void *b, const int32_t *constants, void *y, int32_t rows, int32_t width,
                       int32_t b_row_step, int32_t b_step, int32_t bytes);

/* quantize_f32, dequantize_f32: pointers to integers of any alignment. params: the bits of the float32 scale, of low and
 * high where floats become integers, then the zero point, which is 0 for integers of two bytes. */
void edgec_quantize_f32_dsp(const float *x, const int32_t *params, int8_t *y, int32_t n, int32_t y_bytes);
void edgec_dequantize_f32_dsp(const void *x, const int32_t *params, float *y, int32_t n, int32_t x_bytes);

/* log_mel_s8 of rings int16 [streams][rows][hop] of any alignment; hop and size are even. Constants as the operator has
 * them. Of a stream all is read before a byte of its results is written.
 *
 * geometry     the words of an edgec_log_mel_geometry
 * scratch      8 bytes for each of 2^stages points */
typedef struct {
    int32_t streams, rows, hop, size;
    int32_t bins, stages;
} edgec_log_mel_geometry;
void edgec_log_mel_s8_dsp(const int16_t *ring, const int32_t *cursor, const int16_t *window, const int32_t *twiddles,
                          const uint16_t *weights, const int32_t *edges, const int32_t *logs, const int32_t *params,
                          int8_t *y, const int32_t *geometry, uint32_t *scratch);

#ifdef __cplusplus
}
#endif

#endif
