/* A micro-batch through a whole stack of Llama-like layers, forward and backward: from what the first layer is given to
 * what the last one says, for packed rows of tokens that may share prefixes.
 *
 * Row-major float32. Tokens go through what is theirs alone in blocks that stay in the cache, from the norm before a
 * product to what is added after it. No sum depends on how many threads there are.
 */
#include "attend.h"
#include "layer.h"
#include "matrix.h"
#include "pointwise.h"

#define BLOCK 256 /* tokens */

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

static void add_rows(float *to, const float *from, long stride, long rows, long count)
{
    if (to)
        for (long i = 0; i < rows; i++) add(to, from + i * stride, count);
}

/* Panels of a layer's weights: of the transposed ones to go forward, of themselves to go back. */
struct laid {
    float *query, *key, *value, *out, *gate, *up, *down;
};

static void lay_weight(float **to, float **at, const float *weight, long outs, long ins, int back)
{
    *to = *at;
    if (back)
        lay(*at, weight, ins, ins, outs);
    else
        lay_turned(*at, weight, outs, ins);
    *at += panels(back ? ins : outs, back ? outs : ins);
}

static struct laid lay_layer(const struct trunk *t, const struct layer *l, float *at, int back)
{
    struct laid to;
    lay_weight(&to.query, &at, l->query, t->heads * t->size, t->width, back);
    lay_weight(&to.key, &at, l->key, t->key_heads * t->size, t->width, back);
    lay_weight(&to.value, &at, l->value, t->key_heads * t->size, t->width, back);
    lay_weight(&to.out, &at, l->out, t->width, t->heads * t->size, back);
    lay_weight(&to.gate, &at, l->gate, l->inner, t->width, back);
    lay_weight(&to.up, &at, l->up, l->inner, t->width, back);
    lay_weight(&to.down, &at, l->down, t->width, l->inner, back);
    return to;
}

static long laid_floats(const struct trunk *t)
{
    long heads = t->heads * t->size, inner = most_inner(t), w = t->width + PANEL, high = heads + PANEL;
    return 4 * high * w + 3 * (inner + PANEL) * w + 8 * PANEL * (w + high + inner);
}

static void linear(const float *x, long ins, const float *weight, const float *bias, float *to, long stride, long rows,
                   long outs)
{
    times(x, ins, weight, to, stride, rows, outs, ins);
    if (bias)
        for (long i = 0; i < rows; i++) add(to + i * stride, bias, outs);
}

/* Queries, keys and values of a block of tokens from `first` on. */
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

/* The rest of the layer for a block, from what attention has mixed; `to` is the block's own. */
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

static long block_at(long first, long count) { return count - first < BLOCK ? count - first : BLOCK; }

/* One layer, whose input stands in `k` and whose weights in `w`; in `k` afterwards what its backward pass needs. */
static void run_layer(const struct trunk *t, const struct layer *l, const struct laid *w, const struct kept *k,
                      const struct tokens *x, float *to, long threads)
{
    long first_key = t->heads * t->size, first_value = first_key + t->key_heads * t->size;
#pragma omp parallel for num_threads(threads)
    for (long first = 0; first < x->count; first += BLOCK) project(t, l, w, k, x, first, block_at(first, x->count));
    struct shape shape = shape_of(t, l, x);
    attend(&shape, k->mixed_in, k->mixed_in + first_key, k->mixed_in + first_value, k->mixed, k->logsum, threads);
#pragma omp parallel for num_threads(threads)
    for (long first = 0; first < x->count; first += BLOCK)
        conclude(t, l, w, k, to + first * t->width, first, block_at(first, x->count));
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
        struct laid w = lay_layer(t, t->layers + i, panels_here, 0);
        memcpy(k.input, i ? to : input, sizeof(float) * numbers);
        if (inputs) memcpy(inputs + i * numbers, k.input, sizeof(float) * numbers);
        run_layer(t, t->layers + i, &w, &k, x, to, threads);
        memory += keeps ? taken : 0;
    }
    free(panels_here);
}

/* -- backward -------------------------------------------------------------------------------------------------------- */

struct back {
    float *normed, *product, *slopes, *of_gates, *laid; /* of a block */
    float *of_mixed, *of_query, *of_key, *of_value;     /* of all tokens */
};

/* weight's gradient [outs, ins] += ofᵀ x; `laid` takes the panels of x. */
static void weigh(float *to, const float *of, long of_stride, const float *x, long ins, long rows, long outs, float *laid)
{
    lay(laid, x, ins, ins, rows);
    add_turned(of, of_stride, laid, to, ins, outs, ins, rows);
}

#define AT(field) ((float *)g->field) /* where a weight's gradient gathers */

/* `of` [rows, width]: the gradient of what the layer says; in its place that of what attention was added to. */
static void conclude_back(const struct trunk *t, const struct layer *l, const struct layer *g, const struct laid *w,
                          const struct kept *k, struct back *s, float *of, long first, long rows)
{
    long width = t->width, heads = t->heads * t->size, inner = l->inner;
    const float *middle = k->middle + first * width, *gates = k->gates + first * 2 * inner, *down = of, *from = middle;
    if (k->found) {
        for (long i = 0; i < rows; i++)
            norm_back(k->found + (first + i) * width, l->after_mlp, of + i * width, s->slopes + i * width, AT(after_mlp),
                      width, l->eps, 0);
        down = s->slopes;
    }
    add_rows(AT(down_bias), down, width, rows, width);
    times(down, width, w->down, s->product, inner, rows, inner, width);
    for (long i = 0; i < rows; i++)
        gate_back(gates + i * 2 * inner, s->product + i * inner, s->of_gates + i * 2 * inner, inner, l->a, l->b);
    weigh(AT(down), down, width, s->product, inner, rows, width, s->laid);
    if (l->before_mlp) {
        for (long i = 0; i < rows; i++) norm(middle + i * width, l->before_mlp, s->normed + i * width, width, l->eps);
        from = s->normed;
    }
    add_rows(AT(gate_bias), s->of_gates, 2 * inner, rows, inner);
    add_rows(AT(up_bias), s->of_gates + inner, 2 * inner, rows, inner);
    lay(s->laid, from, width, width, rows);
    add_turned(s->of_gates, 2 * inner, s->laid, AT(gate), width, inner, width, rows);
    add_turned(s->of_gates + inner, 2 * inner, s->laid, AT(up), width, inner, width, rows);
    times(s->of_gates, 2 * inner, w->gate, s->normed, width, rows, width, inner);
    add_times(s->of_gates + inner, 2 * inner, w->up, s->normed, width, rows, width, inner);
    for (long i = 0; i < rows; i++)
        if (l->before_mlp)
            norm_back(middle + i * width, l->before_mlp, s->normed + i * width, of + i * width, AT(before_mlp), width,
                      l->eps, 1);
        else
            add(of + i * width, s->normed + i * width, width);
    const float *said = of;
    if (k->said) {
        for (long i = 0; i < rows; i++)
            norm_back(k->said + (first + i) * width, l->after_attention, of + i * width, s->slopes + i * width,
                      AT(after_attention), width, l->eps, 0);
        said = s->slopes;
    }
    add_rows(AT(out_bias), said, width, rows, width);
    weigh(AT(out), said, width, k->mixed + first * heads, heads, rows, width, s->laid);
    times(said, width, w->out, s->of_mixed + first * heads, heads, rows, heads, width);
}

/* Gradients of one kind of heads, [rows, count heads], back through positions and norms. */
static void unturn(const struct trunk *t, const struct layer *l, const struct tokens *x, float *of, const float *raw,
                   const float *scale, float *of_scale, long count, long first, long rows)
{
    long size = t->size;
    for (long i = 0; i < rows; i++)
        for (long h = 0; h < count; h++) {
            float *head = of + (i * count + h) * size;
            long at = x->positions[first + i] * size;
            turn_head(head, l->cosine + at, l->sine + at, size, 1);
            if (raw) norm_back(raw + i * projected(t) + h * size, scale, head, head, of_scale, size, l->head_eps, 0);
        }
}

/* `of` [rows, width] += the gradient of what attention was given. */
static void project_back(const struct trunk *t, const struct layer *l, const struct layer *g, const struct laid *w,
                         const struct kept *k, const struct tokens *x, struct back *s, float *of, long first, long rows)
{
    long width = t->width, heads = t->heads * t->size, others = t->key_heads * t->size;
    float *of_query = s->of_query + first * heads, *of_key = s->of_key + first * others, *of_value = s->of_value + first * others;
    const float *input = k->input + first * width, *from = input, *raw = k->raw ? k->raw + first * projected(t) : NULL;
    unturn(t, l, x, of_query, raw, l->query_norm, AT(query_norm), t->heads, first, rows);
    unturn(t, l, x, of_key, raw ? raw + heads : NULL, l->key_norm, AT(key_norm), t->key_heads, first, rows);
    if (l->before_attention) {
        for (long i = 0; i < rows; i++) norm(input + i * width, l->before_attention, s->normed + i * width, width, l->eps);
        from = s->normed;
    }
    add_rows(AT(query_bias), of_query, heads, rows, heads);
    add_rows(AT(key_bias), of_key, others, rows, others);
    add_rows(AT(value_bias), of_value, others, rows, others);
    lay(s->laid, from, width, width, rows);
    add_turned(of_query, heads, s->laid, AT(query), width, heads, width, rows);
    add_turned(of_key, others, s->laid, AT(key), width, others, width, rows);
    add_turned(of_value, others, s->laid, AT(value), width, others, width, rows);
    times(of_query, heads, w->query, s->normed, width, rows, width, heads);
    add_times(of_key, others, w->key, s->normed, width, rows, width, others);
    add_times(of_value, others, w->value, s->normed, width, rows, width, others);
    for (long i = 0; i < rows; i++)
        if (l->before_attention)
            norm_back(input + i * width, l->before_attention, s->normed + i * width, of + i * width, AT(before_attention),
                      width, l->eps, 1);
        else
            add(of + i * width, s->normed + i * width, width);
}

static struct back reserve_back(const struct trunk *t, long tokens)
{
    long width = t->width, heads = t->heads * t->size, others = t->key_heads * t->size, inner = most_inner(t);
    long widest = inner > heads ? inner : heads;
    widest = (widest > width ? widest : width) + PANEL;
    long sizes[] = {BLOCK * width, BLOCK * inner, BLOCK * width, BLOCK * 2 * inner, BLOCK * widest,
                    tokens * (heads > width ? heads : width), tokens * heads, tokens * others, tokens * others};
    struct back s;
    float **places[] = {&s.normed, &s.product, &s.slopes, &s.of_gates, &s.laid, &s.of_mixed, &s.of_query,
                        &s.of_key, &s.of_value};
    long all = 0;
    for (int i = 0; i < 9; i++) all += sizes[i];
    float *at = room_for(all);
    for (int i = 0; i < 9; at += sizes[i++]) *places[i] = at;
    return s;
}

/* `of` [tokens, width]: the gradient of what the last layer says; in its place that of what the first was given.
 * `gradients`: like `t->layers`, where those of the weights gather. `memory` as the forward left it; or, where `inputs`
 * is not NULL, room for one layer, which is run again from what it was given. One thread. */
void trunk_backward(const struct trunk *t, const struct tokens *x, const struct layer *gradients, float *of, float *memory,
                    const float *inputs)
{
    long width = t->width, count = x->count, others = t->key_heads * t->size, first_key = t->heads * t->size;
    float *panels_here = room_for(laid_floats(t)), *end = memory + (inputs ? 0 : trunk_kept(t, count, 1));
    struct back s = reserve_back(t, count);
    for (long i = t->count - 1; i >= 0; i--) {
        const struct layer *l = t->layers + i, *g = gradients + i;
        struct kept k;
        if (!inputs) end -= divide(t, l, count, NULL, &k);
        divide(t, l, count, end, &k);
        if (inputs) {
            struct laid forward = lay_layer(t, l, panels_here, 0);
            memcpy(k.input, inputs + i * count * width, sizeof(float) * count * width);
            run_layer(t, l, &forward, &k, x, s.of_mixed, 1); /* what it says is not asked for */
        }
        struct laid w = lay_layer(t, l, panels_here, 1);
        for (long first = 0; first < count; first += BLOCK)
            conclude_back(t, l, g, &w, &k, &s, of + first * width, first, block_at(first, count));
        struct shape shape = shape_of(t, l, x);
        memset(s.of_key, 0, sizeof(float) * count * others);
        memset(s.of_value, 0, sizeof(float) * count * others);
        attend_backward(&shape, k.mixed_in, k.mixed_in + first_key, k.mixed_in + first_key + others, k.mixed, k.logsum,
                        s.of_mixed, s.of_query, s.of_key, s.of_value, 1);
        for (long first = 0; first < count; first += BLOCK)
            project_back(t, l, g, &w, &k, x, &s, of + first * width, first, block_at(first, count));
    }
    free(s.normed);
    free(panels_here);
}
