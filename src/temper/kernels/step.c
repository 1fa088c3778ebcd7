/* Decode steps of a whole stack of Llama-like layers for a few rows, from token ids to the tokens drawn next.
 *
 * Row-major float32; weights [out, in] where they lie, or laid for `linear`. A number of a row is the same sum in the
 * same order however many rows there are, whichever they are, and however many threads.
 */
#include <stdlib.h>
#include "draw.h"
#include "layer.h"
#include "look.h"
#include "matrix.h"

#define EXPONENTIAL 8    /* weights that one number through an exponential takes the time of */
#define NEVER -1e30f
#define MOST_SHARED 3    /* runs that a row shares */
#define HALVED 2         /* `laid`: in panels of half the space */

struct stack {
    const struct layer *layers;
    const float *embedding, *norm, *head, *head_bias;
    const long *spare; /* ids that are no token */
    long count, width, heads, key_heads, size, vocabulary, spares, threads, laid;
    float embedding_scale, eps, softcap;
};

/* Keys and values [runs, key_heads, tokens, size] of each layer, and the run that each row looks at. */
struct shared {
    const float *const *keys, *const *values;
    const long *run, *lengths;
    long tokens, start;
};

struct flight {
    const struct shared *shared;
    float *const *keys, *const *values; /* each layer's own [rows, key_heads, columns, size] */
    long *tokens, *positions;           /* [rows]: fed next, and where */
    const long *row, *draw_keys, *limits, *stops;
    long *drawn;
    long *all_tokens; /* [all rows, longest], as all_logprobs; column `step` is written next */
    float *all_logprobs, *logits, *scratch;
    long shares, rows, columns, column, visible, longest, step, stop_count; /* visible: at most, of runs and own */
    float temperature;
};

/* -- between them ------------------------------------------------------------------------------------------------ */

/* A product of rows with a weight: to [rows, outs] = x wᵀ + bias; bias may be NULL. The weight is panels of wᵀ where the
 * stack's weights are laid. */
struct product {
    const float *weight, *bias;
    float *to;
    long outs;
};

#define MOST_PRODUCTS 3 /* of the same rows */

static long panels_of(long outs) { return (outs + PANEL - 1) / PANEL; }

/* A panel's columns of a product, from `first` on. */
static void panel_of(const struct stack *stack, const float *x, const struct product *p, long rows, long first, long size)
{
    long end = at_most(first + PANEL, p->outs);
    if (stack->laid == HALVED)
        strip(x, size, p->weight + first * size / 2, p->to + first, p->outs, rows, p->outs - first, size, 0, 0, 1, 1);
    else if (stack->laid)
        strip(x, size, p->weight + first * size, p->to + first, p->outs, rows, p->outs - first, size, 0, 0, 1, 0);
    else
        for (long o = first; o < end; o += LANES)
            stripe(x, p->weight, p->to, rows, o, at_most(o + LANES, end), size, p->outs, p->outs * size >= FAR);
    for (long row = 0; p->bias && row < rows; row++)
        for (long o = first; o < end; o++) p->to[row * p->outs + o] += p->bias[o];
}

/* Products of the same rows, whose panels threads share out together. */
static void linear(const struct stack *stack, const float *x, const struct product *all, long count, long rows, long size)
{
    long threads = stack->threads, starts[MOST_PRODUCTS + 1] = {0};
    for (long i = 0; i < count; i++) starts[i + 1] = starts[i] + panels_of(all[i].outs);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && starts[count] * PANEL * size >= LARGE)
    for (long part = 0; part < starts[count]; part++) {
        long i = 0;
        while (part >= starts[i + 1]) i++;
        panel_of(stack, x, all + i, rows, (part - starts[i]) * PANEL, size);
    }
}

/* A weight [outs, size] as `linear` takes it of a stack whose weights are `laid`: `step_laid` floats. */
void step_lay(const float *weight, float *to, long outs, long size, long laid, long threads)
{
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && outs * size >= LARGE)
    for (long o = 0; o < outs; o += PANEL) {
        float *whole = laid == HALVED ? malloc(PANEL * size * sizeof(float)) : to + o * size;
        lay_turned(whole, weight + o * size, at_most(PANEL, outs - o), size);
        if (laid == HALVED) halve(to + o * size / 2, whole, size), free(whole);
    }
}

long step_laid(long outs, long size, long laid) { return laid == HALVED ? panels(outs, size) / 2 : panels(outs, size); }

/* Whether bfloat16 has all of these numbers. */
long step_fits_half(const int *numbers, long count, long threads)
{
    int rest = 0;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(| : rest) if (threads > 1 && count >= LARGE)
    for (long i = 0; i < count; i++) rest |= numbers[i] & 0xffff;
    return !rest;
}

static void norm(const float *x, const float *scale, float *to, long size, float eps)
{
    float by = 1.0f / sqrtf(dot(x, x, size) / size + eps);
    for (long d = 0; d < size; d++) to[d] = x[d] * by * scale[d];
}

static void rotate(float *head, const float *cosine, const float *sine, long size)
{
    long half = size / 2;
    for (long d = 0; d < half; d++) {
        float first = head[d], second = head[d + half];
        head[d] = first * cosine[d] - second * sine[d];
        head[d + half] = second * cosine[d + half] + first * sine[d + half];
    }
}

static void gate(const float *gates, float *values, long size, float a, float b, long threads)
{
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && size >= LARGE / EXPONENTIAL)
    for (long d = 0; d < size; d++) {
        float g = gates[d];
        values[d] *= g / (1.0f + exponential(-g * (a + b * g * g)));
    }
}

/* -- attention --------------------------------------------------------------------------------------------------- */

/* Room for the scores of one query. */
static long stride_of(const struct flight *flight) { return flight->visible + LANES; }

/* Floats that a thread attends with. */
static long looked(const struct stack *stack, const struct flight *flight)
{
    long group = stack->heads / stack->key_heads, queries = group > QUERIES ? group : QUERIES;
    return queries * (stride_of(flight) + 2 * stack->size);
}

/* A run of the wave that `row` looks at. */
static struct run shared_run(const struct stack *stack, const struct layer *layer, const struct flight *flight, long number,
                             const struct shared *shared, long row, long head)
{
    long size = stack->size, run = shared->run[row], length = shared->lengths[run];
    long first = layer->window ? flight->positions[row] - layer->window + 1 - shared->start : 0;
    first = first < 0 ? 0 : at_most(first, length);
    long at = ((run * stack->key_heads + head) * shared->tokens + first) * size;
    return (struct run){shared->keys[number] + at, shared->values[number] + at, length - first, shared->tokens - first};
}

/* The tokens that are its own; the new key and value are among them already. */
static struct run own_run(const struct stack *stack, const struct layer *layer, const struct flight *flight, long number,
                          long row, long head)
{
    long first = layer->window && flight->column >= layer->window ? flight->column - layer->window + 1 : 0;
    long at = ((row * stack->key_heads + head) * flight->columns + first) * stack->size;
    return (struct run){flight->keys[number] + at, flight->values[number] + at, flight->column + 1 - first,
                        flight->columns - first};
}

/* How many of the rows from `row` on, `most` at most, look together: at the same runs, from where they begin. */
static long party_at(const struct layer *layer, const struct flight *flight, long row, long most)
{
    long rows = 1;
    for (; rows < most && !layer->window; rows++)
        for (long n = 0; n < flight->shares; n++)
            if (flight->shared[n].run[row + rows] != flight->shared[n].run[row]) return rows;
    return rows;
}

/* Queries of `rows` rows that share a key head; `scratch` is for copies of them side by side, then for scores. */
static void attend_party(const struct stack *stack, const struct layer *layer, const struct flight *flight, long number,
                         long row, long rows, long head, const float *query, float *out, float *scratch)
{
    long group = stack->heads / stack->key_heads, one = group * stack->size, wide = stack->heads * stack->size;
    struct run shared[MOST_SHARED], own[QUERIES];
    for (long n = 0; n < flight->shares; n++)
        shared[n] = shared_run(stack, layer, flight, number, flight->shared + n, row, head);
    for (long i = 0; i < rows; i++) own[i] = own_run(stack, layer, flight, number, row + i, head);
    const float *from = query + row * wide + head * one;
    float *asked = scratch, *mixed = asked + rows * one, *scores = mixed + rows * one;
    for (long i = 0; i < rows; i++) memcpy(asked + i * one, from + i * wide, one * sizeof(float));
    attend(asked, mixed, rows * group, stack->size, shared, flight->shares, own, rows, scores, stride_of(flight), layer->scale,
           layer->softcap);
    for (long i = 0; i < rows; i++)
        memcpy(out + (row + i) * wide + head * one, mixed + i * one, one * sizeof(float));
}

/* Of all rows: query, out [rows, heads, size]; scratch: `looked` floats for each thread. */
static void attend_rows(const struct stack *stack, const struct layer *layer, const struct flight *flight, long number,
                        const float *query, float *out, float *scratch)
{
    long rows = flight->rows, all = rows * stack->key_heads, threads = stack->threads;
    long most = QUERIES * stack->key_heads / stack->heads, work = rows * stack->heads * stack->size * flight->visible;
#pragma omp parallel for num_threads(threads) if (threads > 1 && work >= LARGE)
    for (long thread = 0; thread < threads; thread++)
        for (long i = all * thread / threads, end = all * (thread + 1) / threads, taken; i < end; i += taken) {
            long head = i / rows, row = i % rows, left = at_most(end - i, rows - row);
            taken = party_at(layer, flight, row, at_most(most, left));
            attend_party(stack, layer, flight, number, row, taken, head, query, out, scratch + thread * looked(stack, flight));
        }
}

/* -- a step ------------------------------------------------------------------------------------------------------ */

struct scratch {
    float *hidden, *normed, *query, *key, *value, *mixed, *gates, *inner, *look;
};

/* Positions into queries and keys [rows, ...]; keys and values into the rows' own runs. */
static void place(const struct stack *stack, const struct layer *layer, const struct flight *flight, long number,
                  struct scratch *s)
{
    long size = stack->size;
    for (long row = 0; row < flight->rows; row++) {
        const float *cosine = layer->cosine + flight->positions[row] * size, *sine = layer->sine + flight->positions[row] * size;
        for (long h = 0; h < stack->heads; h++) {
            float *head = s->query + (row * stack->heads + h) * size;
            if (layer->query_norm) norm(head, layer->query_norm, head, size, layer->head_eps);
            rotate(head, cosine, sine, size);
        }
        for (long h = 0; h < stack->key_heads; h++) {
            long from = (row * stack->key_heads + h) * size;
            long at = ((row * stack->key_heads + h) * flight->columns + flight->column) * size;
            float *key = flight->keys[number] + at;
            memcpy(key, s->key + from, size * sizeof(float));
            if (layer->key_norm) norm(key, layer->key_norm, key, size, layer->head_eps);
            rotate(key, cosine, sine, size);
            memcpy(flight->values[number] + at, s->value + from, size * sizeof(float));
        }
    }
}

/* hidden += after(normed), row by row */
static void add(float *hidden, float *normed, const float *after, long rows, long width, float eps)
{
    for (long row = 0; row < rows; row++) {
        float *from = normed + row * width, *to = hidden + row * width;
        if (after) norm(from, after, from, width, eps);
        for (long d = 0; d < width; d++) to[d] += from[d];
    }
}

static void norm_rows(const float *hidden, const float *scale, float *to, long rows, long width, float eps)
{
    for (long row = 0; row < rows; row++) {
        if (scale)
            norm(hidden + row * width, scale, to + row * width, width, eps);
        else
            memcpy(to + row * width, hidden + row * width, width * sizeof(float));
    }
}

static void run_layer(const struct stack *stack, const struct flight *flight, long number, struct scratch *s)
{
    const struct layer *layer = stack->layers + number;
    long rows = flight->rows, width = stack->width, inner = layer->inner;
    long queries = stack->heads * stack->size, keys = stack->key_heads * stack->size;
    norm_rows(s->hidden, layer->before_attention, s->normed, rows, width, layer->eps);
    struct product projections[] = {{layer->query, layer->query_bias, s->query, queries},
                                    {layer->key, layer->key_bias, s->key, keys},
                                    {layer->value, layer->value_bias, s->value, keys}};
    struct product sides[] = {{layer->gate, layer->gate_bias, s->gates, inner}, {layer->up, layer->up_bias, s->inner, inner}};
    struct product out = {layer->out, layer->out_bias, s->normed, width};
    struct product down = {layer->down, layer->down_bias, s->normed, width};
    linear(stack, s->normed, projections, 3, rows, width);
    place(stack, layer, flight, number, s);
    attend_rows(stack, layer, flight, number, s->query, s->mixed, s->look);
    linear(stack, s->mixed, &out, 1, rows, queries);
    add(s->hidden, s->normed, layer->after_attention, rows, width, layer->eps);
    norm_rows(s->hidden, layer->before_mlp, s->normed, rows, width, layer->eps);
    linear(stack, s->normed, sides, 2, rows, width);
    gate(s->gates, s->inner, rows * inner, layer->a, layer->b, stack->threads);
    linear(stack, s->inner, &down, 1, rows, inner);
    add(s->hidden, s->normed, layer->after_mlp, rows, width, layer->eps);
}

/* Where the parts of flight->scratch lie; how many floats they take is returned. */
static long divide(const struct stack *stack, const struct flight *flight, struct scratch *s)
{
    long inner = 0, queries = stack->heads * stack->size, keys = stack->key_heads * stack->size, all = 0;
    for (long n = 0; n < stack->count; n++) inner = stack->layers[n].inner > inner ? stack->layers[n].inner : inner;
    long sizes[] = {stack->width, stack->width, queries, keys, keys, queries, inner, inner};
    float **places[] = {&s->hidden, &s->normed, &s->query, &s->key, &s->value, &s->mixed, &s->gates, &s->inner};
    for (int i = 0; i < 8; all += sizes[i++] * flight->rows) *places[i] = flight->scratch + all;
    s->look = flight->scratch + all;
    return all + stack->threads * looked(stack, flight);
}

/* Floats of flight->scratch. */
long step_scratch(const struct stack *stack, const struct flight *flight)
{
    struct scratch s;
    return divide(stack, flight, &s);
}

/* flight->logits [rows, vocabulary] after the tokens that are fed. */
static void forward(const struct stack *stack, const struct flight *flight)
{
    long rows = flight->rows, width = stack->width, vocabulary = stack->vocabulary;
    struct scratch s;
    divide(stack, flight, &s);
    for (long row = 0; row < rows; row++)
        for (long d = 0; d < width; d++)
            s.hidden[row * width + d] = stack->embedding[flight->tokens[row] * width + d] * stack->embedding_scale;
    for (long n = 0; n < stack->count; n++) run_layer(stack, flight, n, &s);
    norm_rows(s.hidden, stack->norm, s.normed, rows, width, stack->eps);
    linear(stack, s.normed, &(struct product){stack->head, stack->head_bias, flight->logits, vocabulary}, 1, rows, width);
    if (stack->softcap > 0)
        for (long i = 0; i < rows * vocabulary; i++) flight->logits[i] = capped(flight->logits[i], stack->softcap);
    for (long row = 0; row < rows; row++)
        for (long i = 0; i < stack->spares; i++) flight->logits[row * vocabulary + stack->spare[i]] = NEVER;
}

/* -- drawing ------------------------------------------------------------------------------------------------------ */

/* One step's draws; how many rows end with them. */
static long draw_rows(const struct stack *stack, struct flight *flight)
{
    long ended = 0, threads = stack->threads, work = flight->rows * stack->vocabulary * EXPONENTIAL;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(+ : ended) if (threads > 1 && work >= LARGE)
    for (long row = 0; row < flight->rows; row++) {
        long at = flight->row[row] * flight->longest + flight->step;
        double chance = uniform(flight->draw_keys[row], flight->drawn[row]++);
        long token = draw(flight->logits + row * stack->vocabulary, stack->vocabulary, flight->temperature, chance,
                          flight->all_logprobs + at);
        flight->all_tokens[at] = flight->tokens[row] = token;
        long ends = flight->limits[row] <= flight->step + 1;
        for (long i = 0; i < flight->stop_count; i++) ends |= token == flight->stops[i];
        ended += ends;
    }
    flight->step++;
    return ended;
}

static void advance(struct flight *flight)
{
    for (long row = 0; row < flight->rows; row++) flight->positions[row]++;
    flight->column++;
}

/* Logits of one step; nothing is drawn. */
void step_forward(const struct stack *stack, struct flight *flight)
{
    forward(stack, flight);
    advance(flight);
}

/* Steps with their draws, until a row ends or there have been `steps`; how many there were. */
long step_decode(const struct stack *stack, struct flight *flight, long steps)
{
    for (long taken = 1;; taken++) {
        forward(stack, flight);
        advance(flight);
        if (draw_rows(stack, flight) || taken == steps) return taken;
    }
}

/* Draws of `count` requests that share rows: request i draws from the logits of row `of[i]`, which are weights after
 * it. Flight's `row`, `draw_keys` and `drawn` are the requests'; what they draw goes to `to`, too. */
void step_draw(const struct stack *stack, struct flight *flight, const long *of, long count, long *to)
{
    long vocabulary = stack->vocabulary;
    double *totals = malloc(flight->rows * sizeof *totals);
    long *likeliest = malloc(flight->rows * sizeof *likeliest);
    for (long row = 0; row < flight->rows; row++)
        totals[row] = weigh(flight->logits + row * vocabulary, vocabulary, flight->temperature, likeliest + row);
    for (long i = 0; i < count; i++) {
        const float *weights = flight->logits + of[i] * vocabulary;
        long at = flight->row[i] * flight->longest + flight->step;
        double chance = uniform(flight->draw_keys[i], flight->drawn[i]++);
        to[i] = flight->all_tokens[at] = pick(weights, vocabulary, flight->temperature, chance, totals[of[i]],
                                              likeliest[of[i]], flight->all_logprobs + at);
    }
    free(totals), free(likeliest);
}
