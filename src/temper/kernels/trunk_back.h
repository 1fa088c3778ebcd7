/* The backward pass of `trunk.c`, part of it: layer by layer, the MLP's half, attention, and what it is given.
 *
 * Of each half, first what is a token's own, in pieces that threads take; then the weights' gradients (`weigh.h`).
 */

/* What stands between the two, of a span of tokens, `width` of a token if nothing else is said. */
struct back {
    float *entry, *down, *product, *of_gates; /* gradients: of what the layer says, of the last product, its input [inner], gates */
    float *normed, *of_normed, *said;         /* what products are given; its gradient; that of attention's output */
    float *after_mlp, *before_mlp, *after_attention, *before_attention; /* inverse roots of norms, 1 a token */
    float *of_mixed, *of_query, *of_key, *of_value;                     /* of all tokens */
    long span;
};

#define AT(field) ((float *)g->field) /* where a weight's gradient gathers */

/* A layer, where its gradients gather, its weights, and what its forward kept. */
struct here {
    const struct trunk *t;
    const struct layer *l, *g;
    const struct tokens *x;
    struct laid w;
    struct kept k;
};

/* Of `rows` tokens from `first` on, `at` those of the span. `of` [tokens, width]: the gradient of what the layer says; in its
 * place that of what attention was added to. */
static void conclude_back(const struct here *e, const struct back *s, float *of, long first, long at, long rows)
{
    const struct layer *l = e->l;
    const struct kept *k = &e->k;
    long width = e->t->width, heads = e->t->heads * e->t->size, inner = l->inner;
    const float *middle = k->middle + first * width, *gates = k->gates + first * 2 * inner;
    float *down = s->down + at * width, *of_gates = s->of_gates + at * 2 * inner, *of_normed = s->of_normed + at * width;
    float *product = s->product + at * inner, *normed = s->normed + at * width, *said = s->said + at * width;
    of += first * width;
    if (k->found) {
        memcpy(s->entry + at * width, of, sizeof(float) * rows * width);
        for (long i = 0; i < rows; i++)
            s->after_mlp[at + i] = norm_back(k->found + (first + i) * width, l->after_mlp, of + i * width, down + i * width,
                                             width, l->eps, 0);
    } else
        memcpy(down, of, sizeof(float) * rows * width);
    times(down, width, e->w.down, product, inner, rows, inner, width);
    for (long i = 0; i < rows; i++)
        gate_back(gates + i * 2 * inner, product + i * inner, of_gates + i * 2 * inner, inner, l->a, l->b);
    if (l->before_mlp)
        for (long i = 0; i < rows; i++) norm(middle + i * width, l->before_mlp, normed + i * width, width, l->eps);
    times(of_gates, 2 * inner, e->w.gate, of_normed, width, rows, width, inner);
    add_times(of_gates + inner, 2 * inner, e->w.up, of_normed, width, rows, width, inner);
    for (long i = 0; i < rows; i++)
        if (l->before_mlp)
            s->before_mlp[at + i] = norm_back(middle + i * width, l->before_mlp, of_normed + i * width, of + i * width,
                                              width, l->eps, 1);
        else
            add(of + i * width, of_normed + i * width, width);
    if (k->said)
        for (long i = 0; i < rows; i++)
            s->after_attention[at + i] = norm_back(k->said + (first + i) * width, l->after_attention, of + i * width,
                                                   said + i * width, width, l->eps, 0);
    times(k->said ? said : of, width, e->w.out, s->of_mixed + first * heads, heads, rows, heads, width);
}

/* The gradients of the weights of that half, of a span of `tokens` from `first` on. */
static void conclude_sums(const struct here *e, const struct back *s, const float *of, long first, long tokens, long threads)
{
    const struct layer *l = e->l, *g = e->g;
    const struct kept *k = &e->k;
    long width = e->t->width, heads = e->t->heads * e->t->size, inner = l->inner;
    const float *middle = k->middle + first * width, *said = k->said ? s->said : of + first * width;
    struct sums sums = {0};
    struct left gates[] = {{s->of_gates, 2 * inner, inner, AT(gate)}, {s->of_gates + inner, 2 * inner, inner, AT(up)}};
    struct left down = {s->down, width, width, AT(down)}, out = {said, width, width, AT(out)};
    want_weights(&sums, l->before_mlp ? s->normed : middle, width, 2, gates);
    want_weights(&sums, s->product, inner, 1, &down);
    want_weights(&sums, k->mixed + first * heads, heads, 1, &out);
    want_row(&sums, s->entry, width, k->found ? k->found + first * width : NULL, s->after_mlp, AT(after_mlp), width);
    want_row(&sums, s->of_normed, width, middle, s->before_mlp, AT(before_mlp), width);
    want_row(&sums, of + first * width, width, k->said ? k->said + first * width : NULL, s->after_attention,
             AT(after_attention), width);
    want_row(&sums, s->down, width, NULL, NULL, AT(down_bias), width);
    want_row(&sums, s->of_gates, 2 * inner, NULL, NULL, AT(gate_bias), inner);
    want_row(&sums, s->of_gates + inner, 2 * inner, NULL, NULL, AT(up_bias), inner);
    want_row(&sums, said, width, NULL, NULL, AT(out_bias), width);
    add_sums(&sums, tokens, threads);
}

/* Gradients of one kind of heads, [rows, count heads], back through positions. */
static void unturn(const struct here *e, float *of, long count, long first, long rows)
{
    long size = e->t->size;
    for (long i = 0; i < rows; i++)
        for (long h = 0; h < count; h++) {
            long at = e->x->positions[first + i] * size;
            turn_head(of + (i * count + h) * size, e->l->cosine + at, e->l->sine + at, size, 1);
        }
}

/* `to` += the gradient of the scale of `count` heads' norm, of so many tokens. */
static void scale_heads(const struct here *e, const float *of, const float *raw, float *to, long count, long tokens)
{
    long size = e->t->size;
    for (long i = 0; to && i < tokens; i++)
        for (long h = 0; h < count; h++) {
            const float *x = raw + i * projected(e->t) + h * size;
            scale_back(of + (i * count + h) * size, x, inverse_rms(x, size, e->l->head_eps), to, size);
        }
}

static void unnorm(const struct here *e, float *of, const float *raw, const float *scale, long count, long rows)
{
    long size = e->t->size;
    for (long i = 0; i < rows; i++)
        for (long h = 0; h < count; h++) {
            float *head = of + (i * count + h) * size;
            norm_back(raw + i * projected(e->t) + h * size, scale, head, head, size, e->l->head_eps, 0);
        }
}

/* `of` += the gradient of what attention was given, of the tokens of a piece. */
static void project_back(const struct here *e, const struct back *s, float *of, long first, long at, long rows)
{
    const struct layer *l = e->l;
    long width = e->t->width, heads = e->t->heads * e->t->size, others = e->t->key_heads * e->t->size;
    float *of_query = s->of_query + first * heads, *of_key = s->of_key + first * others, *of_value = s->of_value + first * others;
    float *normed = s->normed + at * width, *of_normed = s->of_normed + at * width;
    const float *input = e->k.input + first * width, *raw = e->k.raw ? e->k.raw + first * projected(e->t) : NULL;
    of += first * width;
    if (raw) {
        unnorm(e, of_query, raw, l->query_norm, e->t->heads, rows);
        unnorm(e, of_key, raw + heads, l->key_norm, e->t->key_heads, rows);
    }
    if (l->before_attention)
        for (long i = 0; i < rows; i++) norm(input + i * width, l->before_attention, normed + i * width, width, l->eps);
    times(of_query, heads, e->w.query, of_normed, width, rows, width, heads);
    add_times(of_key, others, e->w.key, of_normed, width, rows, width, others);
    add_times(of_value, others, e->w.value, of_normed, width, rows, width, others);
    for (long i = 0; i < rows; i++)
        if (l->before_attention)
            s->before_attention[at + i] = norm_back(input + i * width, l->before_attention, of_normed + i * width,
                                                    of + i * width, width, l->eps, 1);
        else
            add(of + i * width, of_normed + i * width, width);
}

static void project_sums(const struct here *e, const struct back *s, long first, long tokens, long threads)
{
    const struct layer *l = e->l, *g = e->g;
    long width = e->t->width, heads = e->t->heads * e->t->size, others = e->t->key_heads * e->t->size;
    const float *input = e->k.input + first * width, *of_query = s->of_query + first * heads;
    const float *of_key = s->of_key + first * others, *of_value = s->of_value + first * others;
    struct sums sums = {0};
    struct left lefts[] = {{of_query, heads, heads, AT(query)}, {of_key, others, others, AT(key)},
                           {of_value, others, others, AT(value)}};
    want_weights(&sums, l->before_attention ? s->normed : input, width, 3, lefts);
    want_row(&sums, s->of_normed, width, input, s->before_attention, AT(before_attention), width);
    want_row(&sums, of_query, heads, NULL, NULL, AT(query_bias), heads);
    want_row(&sums, of_key, others, NULL, NULL, AT(key_bias), others);
    want_row(&sums, of_value, others, NULL, NULL, AT(value_bias), others);
    add_sums(&sums, tokens, threads);
}

/* The MLP's half of the layer, from its end to what attention has mixed. */
static void leave_mlp(const struct here *e, const struct back *s, float *of, long threads)
{
    for (long start = 0; start < e->x->count; start += s->span) {
        long tokens = e->x->count - start < s->span ? e->x->count - start : s->span, pieces = pieces_of(tokens, threads);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
        for (long i = 0; i < pieces; i++) {
            long at = cut(tokens, pieces, i);
            conclude_back(e, s, of, start + at, at, cut(tokens, pieces, i + 1) - at);
        }
        conclude_sums(e, s, of, start, tokens, threads);
    }
}

static void leave_projections(const struct here *e, const struct back *s, float *of, long threads)
{
    const struct trunk *t = e->t;
    long heads = t->heads * t->size, others = t->key_heads * t->size;
    for (long start = 0; start < e->x->count; start += s->span) {
        long tokens = e->x->count - start < s->span ? e->x->count - start : s->span, pieces = pieces_of(tokens, threads);
        const struct layer *g = e->g;
        float *of_query = s->of_query + start * heads, *of_key = s->of_key + start * others;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
        for (long i = 0; i < pieces; i++) {
            long at = cut(tokens, pieces, i), rows = cut(tokens, pieces, i + 1) - at;
            unturn(e, of_query + at * heads, t->heads, start + at, rows);
            unturn(e, of_key + at * others, t->key_heads, start + at, rows);
        }
        if (e->k.raw) {
            const float *raw = e->k.raw + start * projected(t);
#pragma omp parallel for num_threads(threads)
            for (int is_key = 0; is_key < 2; is_key++)
                if (is_key)
                    scale_heads(e, of_key, raw + heads, AT(key_norm), t->key_heads, tokens);
                else
                    scale_heads(e, of_query, raw, AT(query_norm), t->heads, tokens);
        }
#pragma omp parallel for num_threads(threads) schedule(dynamic)
        for (long i = 0; i < pieces; i++) {
            long at = cut(tokens, pieces, i);
            project_back(e, s, of, start + at, at, cut(tokens, pieces, i + 1) - at);
        }
        project_sums(e, s, start, tokens, threads);
    }
}

static struct back reserve_back(const struct trunk *t, long tokens, long threads)
{
    long width = t->width, heads = t->heads * t->size, others = t->key_heads * t->size, inner = most_inner(t);
    struct back s = {.span = threads > 1 ? SPAN : BLOCK};
    long here = tokens < s.span ? tokens : s.span, normed = 0;
    for (long i = 0; i < t->count; i++) normed |= t->layers[i].after_mlp || t->layers[i].after_attention;
    long after = normed ? here : 0;
    long sizes[] = {after * width, here * width, here * inner, here * 2 * inner, here * width, here * width, after * width,
                    here, here, here, here,
                    tokens * (heads > width ? heads : width), tokens * heads, tokens * others, tokens * others};
    float **places[] = {&s.entry, &s.down, &s.product, &s.of_gates, &s.normed, &s.of_normed, &s.said, &s.after_mlp,
                        &s.before_mlp, &s.after_attention, &s.before_attention, &s.of_mixed, &s.of_query, &s.of_key,
                        &s.of_value};
    long all = 0;
    for (int i = 0; i < 15; i++) all += sizes[i];
    float *at = room_for(all);
    for (int i = 0; i < 15; at += sizes[i++]) *places[i] = at;
    return s;
}

/* `of` [tokens, width]: the gradient of what the last layer says; in its place that of what the first was given.
 * `gradients`: like `t->layers`, where those of the weights gather. `memory` as the forward left it; or, where `inputs`
 * is not NULL, room for one layer, which is run again from what it was given. */
void trunk_backward(const struct trunk *t, const struct tokens *x, const struct layer *gradients, float *of, float *memory,
                    const float *inputs, long threads)
{
    long width = t->width, count = x->count, others = t->key_heads * t->size, first_key = t->heads * t->size;
    float *panels_here = room_for(laid_floats(t)), *end = memory + (inputs ? 0 : trunk_kept(t, count, 1));
    struct back s = reserve_back(t, count, threads);
    for (long i = t->count - 1; i >= 0; i--) {
        struct here e = {.t = t, .l = t->layers + i, .g = gradients + i, .x = x};
        if (!inputs) end -= divide(t, e.l, count, NULL, &e.k);
        divide(t, e.l, count, end, &e.k);
        if (inputs) {
            struct laid forward = lay_layer(t, e.l, panels_here, 0, threads);
            run_layer(t, e.l, &forward, &e.k, x, inputs + i * count * width, s.of_mixed, threads); /* what it says is not asked for */
        }
        e.w = lay_layer(t, e.l, panels_here, 1, threads);
        leave_mlp(&e, &s, of, threads);
        struct shape shape = shape_of(t, e.l, x);
        memset(s.of_key, 0, sizeof(float) * count * others);
        memset(s.of_value, 0, sizeof(float) * count * others);
        attend_backward(&shape, e.k.mixed_in, e.k.mixed_in + first_key, e.k.mixed_in + first_key + others, e.k.mixed,
                        e.k.logsum, s.of_mixed, s.of_query, s.of_key, s.of_value, threads);
        leave_projections(&e, &s, of, threads);
    }
    free(s.entry);
    free(panels_here);
}
