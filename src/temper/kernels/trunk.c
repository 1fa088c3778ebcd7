/* A micro-batch through a whole stack of Llama-like layers, forward and backward: from what the first layer is given to
 * what the last one says, for packed rows of tokens that may share prefixes.
 *
 * Row-major float32. Tokens go through what is theirs alone in pieces that stay in the cache, from the norm before a
 * product to what is added after it. Threads take a piece each; no sum depends on how they are cut, or on how many there are.
 */
#include "attend.h"
#include "layer.h"
#include "weigh.h"

#define SPAN (8 * BLOCK) /* tokens that threads share out in the backward pass, before their weights' gradients are summed */

struct trunk {
    const struct layer *layers;
    long count, width, heads, key_heads, size;
};

struct tokens {
    const struct row *rows;
    const long *positions;
    long rows_count, count, most; /* most: keys of a row */
};

/* What a layer's forward leaves for its backward, [tokens, ...] each; what there is no norm for is NULL. */
struct kept {
    float *input, *raw, *mixed_in, *mixed, *logsum, *said, *middle, *gates, *found;
};

static long projected(const struct trunk *t) { return (t->heads + 2 * t->key_heads) * t->size; }

/* Where they lie from `at` on; how many floats they take is returned. */
static long divide(const struct trunk *t, const struct layer *l, long tokens, float *at, struct kept *to)
{
    long sizes[] = {t->width, l->query_norm ? projected(t) : 0, projected(t), t->heads * t->size, t->heads,
                    l->after_attention ? t->width : 0, t->width, 2 * l->inner, l->after_mlp ? t->width : 0};
    float **places[] = {&to->input, &to->raw, &to->mixed_in, &to->mixed, &to->logsum, &to->said, &to->middle, &to->gates,
                        &to->found};
    long all = 0;
    for (int i = 0; i < 9; all += sizes[i++] * tokens) *places[i] = sizes[i] ? at + all : NULL;
    return all;
}

/* Floats that are kept of all layers, or of the one that takes most. */
long trunk_kept(const struct trunk *t, long tokens, long all)
{
    struct kept kept;
    long sum = 0, most = 0;
    for (long i = 0; i < t->count; i++) {
        long one = divide(t, t->layers + i, tokens, NULL, &kept);
        sum += one;
        most = one > most ? one : most;
    }
    return all ? sum : most;
}

static float *room_for(long count)
{
    void *made = NULL;
    if (posix_memalign(&made, 64, sizeof(float) * (count + 16))) abort();
    return made;
}

static long most_inner(const struct trunk *t)
{
    long most = 0;
    for (long i = 0; i < t->count; i++) most = t->layers[i].inner > most ? t->layers[i].inner : most;
    return most;
}

/* -- forward --------------------------------------------------------------------------------------------------------- */

static void add(float *to, const float *from, long count)
{
    for (long d = 0; d < count; d++) to[d] += from[d];
}

/* Panels of a layer's weights: of the transposed ones to go forward, of themselves to go back. */
struct laid {
    float *query, *key, *value, *out, *gate, *up, *down;
};

#define WEIGHTS 7

static long laid_floats(const struct trunk *t)
{
    long heads = t->heads * t->size, inner = most_inner(t), w = t->width + PANEL, high = heads + PANEL;
    return 4 * high * w + 3 * (inner + PANEL) * w + 8 * PANEL * (w + high + inner);
}

static struct laid lay_layer(const struct trunk *t, const struct layer *l, float *at, int back, long threads)
{
    long heads = t->heads * t->size, others = t->key_heads * t->size, width = t->width, starts[WEIGHTS + 1] = {0};
    const float *weights[] = {l->query, l->key, l->value, l->out, l->gate, l->up, l->down};
    long outs[] = {heads, others, others, width, l->inner, l->inner, width};
    long ins[] = {width, width, width, heads, width, width, l->inner};
    struct laid to;
    float **places[] = {&to.query, &to.key, &to.value, &to.out, &to.gate, &to.up, &to.down};
    for (int i = 0; i < WEIGHTS; i++) {
        long columns = back ? ins[i] : outs[i];
        starts[i + 1] = starts[i] + (columns + PANEL - 1) / PANEL;
        *places[i] = at;
        at += panels(columns, back ? outs[i] : ins[i]);
    }
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long part = 0; part < starts[WEIGHTS]; part++) {
        int i = 0;
        while (part >= starts[i + 1]) i++;
        long from = (part - starts[i]) * PANEL, size = back ? outs[i] : ins[i], left = (back ? ins[i] : outs[i]) - from;
        long columns = left < PANEL ? left : PANEL;
        if (back)
            lay(*places[i] + from * size, weights[i] + from, ins[i], columns, size);
        else
            lay_turned(*places[i] + from * size, weights[i] + from * size, columns, size);
    }
    return to;
}

static void linear(const float *x, long ins, const float *weight, const float *bias, float *to, long stride, long rows,
                   long outs)
{
    times(x, ins, weight, to, stride, rows, outs, ins);
    if (bias)
        for (long i = 0; i < rows; i++) add(to + i * stride, bias, outs);
}

/* Queries, keys and values of a piece of tokens from `first` on. */
static void project(const struct trunk *t, const struct layer *l, const struct laid *w, const struct kept *k,
                    const struct tokens *x, long first, long rows)
{
    long width = t->width, heads = t->heads * t->size, others = t->key_heads * t->size, all = projected(t), size = t->size;
    float *normed = room_for(rows * width), *to = (k->raw ? k->raw : k->mixed_in) + first * all;
    const float *from = k->input + first * width;
    if (l->before_attention) {
        for (long i = 0; i < rows; i++) norm(from + i * width, l->before_attention, normed + i * width, width, l->eps);
        from = normed;
    }
    linear(from, width, w->query, l->query_bias, to, all, rows, heads);
    linear(from, width, w->key, l->key_bias, to + heads, all, rows, others);
    linear(from, width, w->value, l->value_bias, to + heads + others, all, rows, others);
    for (long i = 0; i < rows; i++) {
        float *row = k->mixed_in + (first + i) * all;
        long at = x->positions[first + i] * size;
        if (k->raw) memcpy(row, to + i * all, sizeof(float) * all);
        for (long h = 0; h < t->heads + t->key_heads; h++) {
            float *head = row + h * size;
            const float *scale = h < t->heads ? l->query_norm : l->key_norm;
            if (k->raw) norm(head, scale, head, size, l->head_eps);
            turn_head(head, l->cosine + at, l->sine + at, size, 0);
        }
    }
    free(normed);
}

/* The rest of the layer for a piece, from what attention has mixed; `to` is the piece's own. */
static void conclude(const struct trunk *t, const struct layer *l, const struct laid *w, const struct kept *k, float *to,
                     long first, long rows)
{
    long width = t->width, heads = t->heads * t->size, inner = l->inner;
    float *normed = room_for(rows * width), *product = room_for(rows * inner);
    const float *input = k->input + first * width;
    float *middle = k->middle + first * width, *gates = k->gates + first * 2 * inner;
    float *said = k->said ? k->said + first * width : middle, *found = k->found ? k->found + first * width : to;
    linear(k->mixed + first * heads, heads, w->out, l->out_bias, said, width, rows, width);
    for (long i = 0; i < rows; i++) {
        if (k->said) norm(said + i * width, l->after_attention, middle + i * width, width, l->eps);
        add(middle + i * width, input + i * width, width);
    }
    const float *from = middle;
    if (l->before_mlp) {
        for (long i = 0; i < rows; i++) norm(middle + i * width, l->before_mlp, normed + i * width, width, l->eps);
        from = normed;
    }
    linear(from, width, w->gate, l->gate_bias, gates, 2 * inner, rows, inner);
    linear(from, width, w->up, l->up_bias, gates + inner, 2 * inner, rows, inner);
    for (long i = 0; i < rows; i++) gate(gates + i * 2 * inner, product + i * inner, inner, l->a, l->b);
    linear(product, inner, w->down, l->down_bias, found, width, rows, width);
    for (long i = 0; i < rows; i++) {
        if (k->found) norm(found + i * width, l->after_mlp, to + i * width, width, l->eps);
        add(to + i * width, middle + i * width, width);
    }
    free(product);
    free(normed);
}

static struct shape shape_of(const struct trunk *t, const struct layer *l, const struct tokens *x)
{
    long all = projected(t);
    return (struct shape){x->rows, x->rows_count, t->key_heads, t->heads / t->key_heads, t->size, all, all, all, x->most,
                          l->scale};
}

/* How many pieces so many tokens are cut into for `threads`, as many for each; and where piece `i` begins. */
static long pieces_of(long count, long threads)
{
    long most = threads * (threads > 1 ? BLOCK / 2 : BLOCK);
    return threads * ((count + most - 1) / most);
}

static long cut(long count, long pieces, long i)
{
    long at = (count + HIGH - 1) / HIGH * i / pieces * HIGH;
    return at < count ? at : count;
}

/* One layer, which is given `from`, and whose weights are in `w`; in `k` afterwards what its backward pass needs. */
static void run_layer(const struct trunk *t, const struct layer *l, const struct laid *w, const struct kept *k,
                      const struct tokens *x, const float *from, float *to, long threads)
{
    long first_key = t->heads * t->size, first_value = first_key + t->key_heads * t->size, width = t->width;
    long count = x->count, pieces = pieces_of(count, threads);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (long i = 0; i < pieces; i++) {
        long first = cut(count, pieces, i), rows = cut(count, pieces, i + 1) - first;
        memcpy(k->input + first * width, from + first * width, sizeof(float) * rows * width);
        project(t, l, w, k, x, first, rows);
    }
    struct shape shape = shape_of(t, l, x);
    attend(&shape, k->mixed_in, k->mixed_in + first_key, k->mixed_in + first_value, k->mixed, k->logsum, threads);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (long i = 0; i < pieces; i++) {
        long first = cut(count, pieces, i);
        conclude(t, l, w, k, to + first * width, first, cut(count, pieces, i + 1) - first);
    }
}

/* to [tokens, width] from input, the same. `memory` holds afterwards, if it `keeps`, what the backward pass needs of all
 * layers (`trunk_kept` floats), else of the last one. Where `inputs` is not NULL, what each layer was given goes there. */
void trunk_forward(const struct trunk *t, const struct tokens *x, const float *input, float *to, float *memory,
                   float *inputs, long keeps, long threads)
{
    long numbers = x->count * t->width;
    float *panels_here = room_for(laid_floats(t));
    for (long i = 0; i < t->count; i++) {
        struct kept k;
        long taken = divide(t, t->layers + i, x->count, memory, &k);
        struct laid w = lay_layer(t, t->layers + i, panels_here, 0, threads);
        const float *from = i ? to : input;
        if (inputs) memcpy(inputs + i * numbers, from, sizeof(float) * numbers);
        run_layer(t, t->layers + i, &w, &k, x, from, to, threads);
        memory += keeps ? taken : 0;
    }
    free(panels_here);
}

#include "trunk_back.h"
