/* The hot loops of one C file, called as often as the argument says: `instructions.py` counts what a call takes.
 * Compiled once for each of STEP, TRUNK, ATTEND, HEAD and LAYERS, without OpenMP. Shapes are those of the default recipe's model. */
#include <stdio.h>
#include <stdlib.h>

enum { WIDTH = 128, INNER = 384, LAYER_COUNT = 4, HEADS = 4, SIZE = 32, VOCABULARY = 128, TOKENS = 526, STEPS = 16 };

static float *floats(long count, float size)
{
    static unsigned state = 1;
    float *made = malloc(sizeof(float) * count);
    for (long i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        made[i] = size * ((float)(state >> 8) / (1 << 23) - 1);
    }
    return made;
}

#if defined STEP || defined TRUNK
#include "layer.h"
#include <string.h>

static void make(struct layer *layers)
{
    memset(layers, 0, sizeof(struct layer) * LAYER_COUNT);
    for (int i = 0; i < LAYER_COUNT; i++) {
        struct layer *l = layers + i;
        l->before_attention = floats(WIDTH, 1), l->before_mlp = floats(WIDTH, 1);
        l->query = floats(WIDTH * WIDTH, 0.1f), l->key = floats(WIDTH * WIDTH, 0.1f), l->value = floats(WIDTH * WIDTH, 0.1f);
        l->out = floats(WIDTH * WIDTH, 0.1f), l->gate = floats(WIDTH * INNER, 0.1f), l->up = floats(WIDTH * INNER, 0.1f);
        l->down = floats(WIDTH * INNER, 0.1f), l->cosine = floats(64 * SIZE, 1), l->sine = floats(64 * SIZE, 1);
        l->inner = INNER, l->scale = 0.18f, l->eps = 1e-6f, l->a = 1;
    }
}
#endif

#if defined STEP
#include "step.c"

/* STEPS tokens of each of ROWS_HERE rows, without a shared prompt. */
static void run(long times, long rows)
{
    struct layer layers[LAYER_COUNT];
    float *keys[LAYER_COUNT], *values[LAYER_COUNT];
    make(layers);
    for (int i = 0; i < LAYER_COUNT; i++) {
        keys[i] = floats(rows * HEADS * STEPS * SIZE, 1), values[i] = floats(rows * HEADS * STEPS * SIZE, 1);
    }
    struct stack stack = {.layers = layers, .embedding = floats(VOCABULARY * WIDTH, 1), .norm = floats(WIDTH, 1),
                          .count = LAYER_COUNT, .width = WIDTH, .heads = HEADS, .key_heads = HEADS, .size = SIZE,
                          .vocabulary = VOCABULARY, .threads = 1, .laid = 1, .embedding_scale = 1, .eps = 1e-6f};
    stack.head = stack.embedding;
    long *numbers[8];
    for (int i = 0; i < 8; i++) numbers[i] = calloc(rows * STEPS + 1, sizeof(long));
    struct flight flight = {.keys = keys, .values = values, .tokens = numbers[0], .positions = numbers[1],
                            .row = numbers[2], .draw_keys = numbers[3], .limits = numbers[4], .stops = numbers[5],
                            .drawn = numbers[6], .all_tokens = numbers[7], .all_logprobs = floats(rows * STEPS, 0),
                            .logits = floats(rows * VOCABULARY, 0), .rows = rows, .columns = STEPS, .visible = STEPS,
                            .longest = STEPS, .temperature = 1};
    flight.scratch = floats(step_scratch(&stack, &flight), 0);
    for (long i = 0; i < rows; i++) numbers[2][i] = i, numbers[3][i] = 7919 * i, numbers[4][i] = STEPS + 1;
    while (times--) {
        flight.column = flight.step = 0;
        for (long i = 0; i < rows; i++) flight.positions[i] = 0, flight.tokens[i] = i, flight.drawn[i] = 0;
        step_decode(&stack, &flight, STEPS);
    }
}

#elif defined TRUNK
#include "trunk.c"

/* Forward and backward of a prompt of 14 tokens and its 16 replies of 32, through all layers. */
static void run(long times, long rows)
{
    struct layer layers[LAYER_COUNT], gradients[LAYER_COUNT];
    struct row table[17] = {{0, 14, 0, 0}};
    long positions[TOKENS];
    for (int i = 1; i < 17; i++) table[i] = (struct row){14 + 32 * (i - 1), 32, 0, 14};
    for (int i = 0; i < TOKENS; i++) positions[i] = i < 14 ? i : 14 + (i - 14) % 32;
    make(layers), make(gradients);
    struct trunk trunk = {layers, LAYER_COUNT, WIDTH, HEADS, HEADS, SIZE};
    struct tokens tokens = {table, positions, rows, TOKENS, 46};
    float *x = floats(TOKENS * WIDTH, 1), *to = floats(TOKENS * WIDTH, 0), *kept = floats(trunk_kept(&trunk, TOKENS, 1), 0);
    while (times--) {
        trunk_forward(&trunk, &tokens, x, to, kept, NULL, 1, 1);
        trunk_backward(&trunk, &tokens, gradients, to, kept, NULL, 1);
    }
}

#elif defined ATTEND
#include "attend.h"

/* Forward and backward of a prompt of 14 tokens and its 16 replies of 32. */
static void run(long times, long rows)
{
    struct row table[17] = {{0, 14, 0, 0}};
    for (int i = 1; i < 17; i++) table[i] = (struct row){14 + 32 * (i - 1), 32, 0, 14};
    struct shape shape = {table, rows, HEADS, 1, SIZE, WIDTH, WIDTH, WIDTH, 46, 0.18f};
    float *x[9];
    for (int i = 0; i < 9; i++) x[i] = floats(TOKENS * WIDTH, i < 7);
    while (times--) {
        attend(&shape, x[0], x[1], x[2], x[3], x[4], 1);
        attend_backward(&shape, x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7], x[8], 1);
    }
}

#elif defined HEAD
#include "head.c"

/* Log-probs of so many targets, forward and backward. */
static void run(long times, long rows)
{
    struct head head = {.weight = floats(VOCABULARY * WIDTH, 0.1f), .tokens = VOCABULARY, .width = WIDTH, .scale = 1};
    long *of = calloc(rows, sizeof(long));
    for (long i = 0; i < rows; i++) of[i] = 7 * i % VOCABULARY;
    struct targets targets = {floats(rows * WIDTH, 1), of, rows};
    float *said[3], *kept = floats(head_kept(&head, rows), 0), *forward = floats(head_forward_room(&head, rows, 1), 0);
    for (int i = 0; i < 3; i++) said[i] = floats(rows, 0);
    struct given given = {said[2], said[1], floats(rows, 1), floats(rows, 1), kept, 1};
    struct wanted wanted = {floats(rows * WIDTH, 0), floats(VOCABULARY * WIDTH, 0), NULL, 1};
    float *backward = floats(head_backward_room(&head, rows, &wanted), 0);
    while (times--) {
        head_forward(&head, &targets, kept, 1, forward, said[0], said[1], said[2], 1);
        head_backward(&head, &targets, &given, &wanted, backward, 1);
    }
}

#else
#include "layers.c"

/* Forward and backward of what stands between the products of a layer, for so many tokens. */
static void run(long times, long rows)
{
    float *x = floats(rows * 2 * INNER, 1), *to = floats(rows * 2 * INNER, 0), *back = floats(rows * 2 * INNER, 0);
    float *scale = floats(16 * INNER, 1), *inverse = floats(rows, 1);
    while (times--) {
        rms_norm(x, scale, to, inverse, rows, WIDTH, 1e-6f, 1);
        rms_norm_backward(x, scale, inverse, x, back, to, rows, WIDTH, 16, 1);
        gated(x, to, rows, INNER, 1, 0, 1);
        gated_backward(x, x, back, rows, INNER, 1, 0, 1);
        rotate(x, to, x, x, rows, HEADS, SIZE, WIDTH, WIDTH, 0, 1);
        rotate(x, to, x, x, rows, HEADS, SIZE, WIDTH, WIDTH, 1, 1);
    }
}
#endif

int main(int count, char **words)
{
    if (count != 3) return 2;
    run(atol(words[1]), atol(words[2]));
    return 0;
}
