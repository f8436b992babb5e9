/* SPDX-License-Identifier: Apache-2.0 */
/* Two models, one arena: 16 floats a step on stdin, the step's output and the class probabilities on stdout (int8). */
#include <math.h>
#include <stdalign.h>
#include <stdio.h>

#include "classifier.h"
#include "recurrent_16_64_32.h"

#define LARGER(a, b) ((a) > (b) ? (a) : (b))

/* The models never run at the same time, so the larger arena serves both; the state is the recurrent model's own. */
alignas(8) static unsigned char arena[LARGER(RECURRENT_16_64_32_ARENA_BYTES, CLASSIFIER_ARENA_BYTES)];
alignas(8) static unsigned char state[RECURRENT_16_64_32_STATE_BYTES];

static int8_t quantized(float real, float scale, int zero_point) {
    float q = rintf(real / scale) + (float)zero_point;
    return (int8_t)(q < -128.0f ? -128.0f : q > 127.0f ? 127.0f : q);
}

int main(void) {
    recurrent_16_64_32_model step;
    classifier_model head;
    if (recurrent_16_64_32_init(&step, arena, sizeof arena, state, sizeof state) != EDGEC_OK) return 1;
    if (classifier_init(&head, arena, sizeof arena, NULL, 0) != EDGEC_OK) return 1;

    float x[RECURRENT_16_64_32_X_BYTES];
    while (fread(x, sizeof x, 1, stdin) == 1) {
        int8_t *input = recurrent_16_64_32_x(&step);
        for (int i = 0; i < RECURRENT_16_64_32_X_BYTES; ++i)
            input[i] = quantized(x[i], RECURRENT_16_64_32_X_SCALE, RECURRENT_16_64_32_X_ZERO_POINT);
        if (recurrent_16_64_32_run(&step) != EDGEC_OK) return 1;

        /* Out of the arena before the other model takes it. */
        float y[RECURRENT_16_64_32_Y_BYTES];
        const int8_t *output = recurrent_16_64_32_y(&step);
        fwrite(output, 1, sizeof y / sizeof y[0], stdout);
        for (int i = 0; i < RECURRENT_16_64_32_Y_BYTES; ++i)
            y[i] = RECURRENT_16_64_32_Y_SCALE * (float)(output[i] - RECURRENT_16_64_32_Y_ZERO_POINT);

        int8_t *features = classifier_features(&head);
        for (int i = 0; i < CLASSIFIER_FEATURES_BYTES; ++i)
            features[i] = quantized(y[i], CLASSIFIER_FEATURES_SCALE, CLASSIFIER_FEATURES_ZERO_POINT);
        if (classifier_run(&head) != EDGEC_OK) return 1;
        fwrite(classifier_probabilities(&head), 1, CLASSIFIER_PROBABILITIES_BYTES, stdout);
    }
    return 0;
}
