/* Gradients of a layer's weights, biases and scales: sums over tokens, in their order, a BLOCK of them at a time.
 *
 * What a thread adds up are some columns of one of them; no sum depends on how many threads there are.
 */
#include "matrix.h"
#include "pointwise.h"

#define BLOCK 256     /* tokens */
#define COLUMNS 256   /* of a bias or a scale, that are added up at once */
#define MOST_SUMS 32  /* of half a layer */

struct left {
    const float *of; /* [tokens, outs], rows `stride` apart: the gradient of what a weight gave */
    long stride, outs;
    float *to; /* the weight's gradient [outs, columns] */
};

/* What comes of `right` [tokens, columns]: gradients of weights that it goes into (lefts), or of the scale of a norm
 * whose input it is (`by` its inverse roots), or, without a right, of a bias (to += the sum of rows of `of`). */
struct sum {
    const float *right, *by;
    long columns, count;
    struct left lefts[3];
};

struct sums {
    long count;
    struct sum each[MOST_SUMS];
};

/* Those that are asked for; of the others `to` is NULL. */
static void want_weights(struct sums *s, const float *right, long columns, long count, const struct left *lefts)
{
    struct sum *to = s->each + s->count;
    *to = (struct sum){.right = right, .columns = columns};
    for (long i = 0; i < count; i++)
        if (lefts[i].to) to->lefts[to->count++] = lefts[i];
    s->count += to->count > 0;
}

/* Nothing where `to` is NULL: it is not asked for, or there is no such scale or bias. */
static void want_row(struct sums *s, const float *of, long stride, const float *x, const float *by, float *to, long columns)
{
    if (to) s->each[s->count++] = (struct sum){.right = x, .by = by, .columns = columns, .lefts = {{of, stride, 0, to}}};
}

/* Columns from..from + PANEL of some weights' gradients. */
static void add_panel(const struct sum *s, long from, long tokens)
{
    float panel[BLOCK * PANEL] __attribute__((aligned(64)));
    long columns = s->columns - from < PANEL ? s->columns - from : PANEL;
    for (long first = 0; first < tokens; first += BLOCK) {
        long rows = tokens - first < BLOCK ? tokens - first : BLOCK;
        lay(panel, s->right + first * s->columns + from, s->columns, columns, rows);
        for (const struct left *l = s->lefts; l < s->lefts + s->count; l++)
            strip(l->of + first * l->stride, l->stride, panel, l->to + from, s->columns, l->outs, columns, rows, 1, 1, 0, 0);
    }
}

static void add_columns(const struct sum *s, long from, long tokens)
{
    const struct left *l = s->lefts;
    long columns = s->columns - from < COLUMNS ? s->columns - from : COLUMNS;
    for (long i = 0; i < tokens; i++) {
        const float *of = l->of + i * l->stride + from;
        if (s->right)
            scale_back(of, s->right + i * s->columns + from, s->by[i], l->to + from, columns);
        else
            for (long d = 0; d < columns; d++) l->to[from + d] += of[d];
    }
}

/* All of them, of so many tokens. */
static void add_sums(const struct sums *s, long tokens, long threads)
{
    long starts[MOST_SUMS + 1] = {0};
    for (long i = 0; i < s->count; i++) {
        long wide = s->each[i].count ? PANEL : COLUMNS;
        starts[i + 1] = starts[i] + (s->each[i].columns + wide - 1) / wide;
    }
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (long part = 0; part < starts[s->count]; part++) {
        long i = 0;
        while (part >= starts[i + 1]) i++;
        if (s->each[i].count)
            add_panel(s->each + i, (part - starts[i]) * PANEL, tokens);
        else
            add_columns(s->each + i, (part - starts[i]) * COLUMNS, tokens);
    }
}
