/* Attention of packed rows of tokens, forward and backward: each query sees its row's prefix and, causally, its row.
 *
 * Row-major float32. A token's heads lie side by side, the tokens of query, key and value `*_stride` floats apart; all
 * else is [tokens, heads, size] without gaps, logsum [tokens, heads]. `size` is a multiple of LANES.
 * Queries are done in batches: of one row, or of several short rows with one prefix. Every number is the same sum in the
 * same order whichever rows stand beside, and however many threads there are: one thread computes all that belongs to a
 * key head and to rows that see tokens of one another.
 */
#include "families.h"
#include "tiles.h"

#define BATCH (4 * TILE) /* queries */
#define PARTS 4          /* of the rows that a thread takes, or fewer larger ones: some are done sooner */

struct shape {
    const struct row *rows;
    long count, key_heads, group, size, query_stride, key_stride, value_stride, most; /* most: keys of a row */
    float scale;
};

/* Queries of one row that are done with others, from the row's `from` on. `at`: the number of the first among all;
 * `panels`: where those of the row begin. */
struct piece {
    const struct row *row;
    long from, count, at, panels;
};

struct batch {
    struct piece pieces[BATCH];
    long pieces_count, count;
    const struct row *before; /* the last row of the batch before; NULL if there was none */
};

/* Keys or values of one head. */
struct side {
    float *prefix, *own; /* turned: panels [size, STEP] */
    float *plain;        /* the prefix without gaps */
};

struct scratch {
    struct side keys, values;
    float *weights, *slopes;         /* [BATCH, room] */
    float *query, *gradient, *mixed; /* [BATCH, size] */
    long room;
};

static struct scratch reserve(const struct shape *s)
{
    struct scratch x;
    x.room = whole(s->most, STEP) + 2 * STEP;
    long keys = (x.room > BATCH * STEP ? x.room : BATCH * STEP) * s->size, scores = BATCH * x.room;
    long rows = BATCH * s->size;
    long sizes[] = {keys, keys, keys, keys, keys, keys, scores, scores, rows, rows, rows};
    float **places[] = {&x.keys.prefix, &x.keys.own, &x.keys.plain, &x.values.prefix, &x.values.own, &x.values.plain,
                        &x.weights, &x.slopes, &x.query, &x.gradient, &x.mixed};
    void *made = NULL;
    if (posix_memalign(&made, 64, sizeof(float) * (6 * keys + 2 * scores + 3 * rows))) abort();
    float *at = made;
    for (int i = 0; i < 11; at += sizes[i++]) *places[i] = at;
    return x;
}

/* -- products ------------------------------------------------------------------------------------------------------ */

/* scores[i][k] = tile[i] · key k of the panels. */
static void score(float *scores, long room, const float *tile, const float *panels, long rows, long keys, long size)
{
    for (long k = 0; k < keys; k += STEP, panels += STEP * size)
        if (keys - k > LANES)
            sum_rows(scores + k, room, tile, size, panels, STEP, size, rows, 2, 0, 0);
        else
            sum_rows(scores + k, room, tile, size, panels, STEP, size, rows, 1, 0, 0);
}

/* out[i] += sum over k of weights[i][k] from[k]. */
static void mix(float *out, const float *weights, long room, const float *from, long stride, long rows, long keys,
                long size)
{
    long d = 0;
    for (; d + STEP <= size; d += STEP)
        sum_rows(out + d, size, weights, room, from + d, stride, keys, rows, 2, 0, 1);
    if (d < size) sum_rows(out + d, size, weights, room, from + d, stride, keys, rows, 1, 0, 1);
}

/* to[k] += sum over i of weights[i][k] tile[i]. */
static void spread(float *to, long stride, const float *weights, long room, const float *tile, long rows, long keys,
                   long size)
{
    long d = 0;
    for (; d + STEP <= size; d += STEP)
        sum_rows(to + d, stride, weights, room, tile + d, size, rows, keys, 2, 1, 1);
    if (d < size) sum_rows(to + d, stride, weights, room, tile + d, size, rows, keys, 1, 1, 1);
}

/* -- batches ------------------------------------------------------------------------------------------------------- */

static void gather(float *to, const float *from, long stride, long count, long size)
{
    for (long i = 0; i < count; i++) memcpy(to + i * size, from + i * stride, sizeof(float) * size);
}

/* Adds to `b` what of `row` from `from` on there is room for. */
static void add_piece(struct batch *b, const struct row *row, long from, long size)
{
    long left = row->own_count - from, count = left < BATCH ? left : BATCH, panels = 0;
    if (b->pieces_count) {
        const struct piece *last = b->pieces + b->pieces_count - 1;
        panels = last->panels + whole(last->row->own_count, STEP) * size;
    }
    b->pieces[b->pieces_count++] = (struct piece){row, from, count, b->count, panels};
    b->count += count;
}

/* The batch after `b`, which is empty at first, of the rows from `row` to `end`: some of a row's queries, or all of
 * several rows with one prefix. 0 if there is none. */
static int next_batch(struct batch *b, const struct row *row, const struct row *end, long size)
{
    long from = 0;
    if (b->count) {
        const struct piece *last = b->pieces + b->pieces_count - 1;
        b->before = last->row;
        from = last->from + last->count < last->row->own_count ? last->from + last->count : 0;
        row = last->row + !from;
    }
    b->pieces_count = b->count = 0;
    while (row < end && !row->own_count) row++;
    if (row == end) return 0;
    add_piece(b, row, from, size);
    if (from || row->own_count > BATCH) return 1;
    for (row++; row < end && same_prefix(row, row - 1) && b->count + row->own_count <= BATCH; row++)
        if (row->own_count) add_piece(b, row, 0, size);
    return 1;
}

/* Whether a batch is the first one with its prefix. */
static int begins(const struct batch *b)
{
    return !b->before || !same_prefix(b->pieces->row, b->before);
}

/* Panels of what a batch looks at, as far as they are not those of the one before. */
static void turn_batch(const struct side *to, const struct batch *b, const float *from, long stride, long size)
{
    const struct row *row = b->pieces->row;
    if (begins(b)) turn(to->prefix, from + row->prefix * stride, stride, row->prefix_count, size);
    if (b->pieces->from) return;
    for (const struct piece *p = b->pieces; p < b->pieces + b->pieces_count; p++)
        turn(to->own + p->panels, from + p->row->own * stride, stride, p->row->own_count, size);
}

static void gather_prefix(const struct side *to, const struct batch *b, const float *from, long stride, long size)
{
    const struct row *row = b->pieces->row;
    if (begins(b)) gather(to->plain, from + row->prefix * stride, stride, row->prefix_count, size);
}

/* -- both ways ----------------------------------------------------------------------------------------------------- */

static void gather_batch(float *to, const struct batch *b, const float *from, long stride, long size)
{
    for (const struct piece *p = b->pieces; p < b->pieces + b->pieces_count; p++)
        gather(to + p->at * size, from + (p->row->own + p->from) * stride, stride, p->count, size);
}

static void put_batch(float *to, long stride, const struct batch *b, const float *from, long size)
{
    for (const struct piece *p = b->pieces; p < b->pieces + b->pieces_count; p++)
        for (long i = 0; i < p->count; i++)
            memcpy(to + (p->row->own + p->from + i) * stride, from + (p->at + i) * size, sizeof(float) * size);
}

/* Products of all queries with the keys that they see, and with some after those. */
static void score_batch(float *scores, long room, const struct batch *b, const float *tile, const struct side *with,
                        long size)
{
    long prefix = b->pieces->row->prefix_count;
    score(scores, room, tile, with->prefix, b->count, prefix, size);
    for (const struct piece *p = b->pieces; p < b->pieces + b->pieces_count; p++)
        for (long i = 0; i < p->count; i += TILE) {
            long rows = p->count - i < TILE ? p->count - i : TILE, at = p->at + i;
            const float *panels = with->own + p->panels;
            score(scores + at * room + prefix, room, tile + at * size, panels, rows, p->from + i + rows, size);
        }
}

/* out = the sums of what all queries see: of the plain prefix, and of rows that are `stride` apart. */
static void mix_batch(float *out, const struct batch *b, const float *weights, long room, const float *plain,
                      const float *from, long stride, long size)
{
    long prefix = b->pieces->row->prefix_count;
    memset(out, 0, sizeof(float) * b->count * size);
    mix(out, weights, room, plain, size, b->count, prefix, size);
    for (const struct piece *p = b->pieces; p < b->pieces + b->pieces_count; p++)
        for (long i = 0; i < p->count; i += TILE) {
            long rows = p->count - i < TILE ? p->count - i : TILE, at = p->at + i;
            const float *own = from + p->row->own * stride;
            mix(out + at * size, weights + at * room + prefix, room, own, stride, rows, p->from + i + rows, size);
        }
}

/* to += what all queries give to the keys that they see. */
static void spread_batch(float *to, const struct batch *b, const float *weights, long room, const float *tile,
                         long stride, long size)
{
    long before = b->pieces->row->prefix, prefix = b->pieces->row->prefix_count;
    spread(to + before * stride, stride, weights, room, tile, b->count, prefix, size);
    for (const struct piece *p = b->pieces; p < b->pieces + b->pieces_count; p++)
        for (long k = 0, end = p->from + p->count; k < end; k += TILE) { /* queries before a key do not see it */
            long keys = end - k < TILE ? end - k : TILE, i = k > p->from ? k - p->from : 0, at = p->at + i;
            float *own = to + (p->row->own + k) * stride;
            spread(own, stride, weights + at * room + prefix + k, room, tile + at * size, p->count - i, keys, size);
        }
}

/* -- forward ------------------------------------------------------------------------------------------------------- */

/* Scores to powers over the first `count` keys, 0 up to `end`. The softmax's logsum is returned, what powers are to be
 * multiplied by is put in `inverse`. */
static float soften(float *scores, long count, long end, float scale, float *inverse)
{
    float peak = largest(scores, count), sum = 0;
    long filled = whole(count, LANES); /* by whole vectors: what is left of a short row would take as long as the rest */
    for (long k = 0; k < filled; k++) scores[k] = exponential((scores[k] - peak) * scale);
    for (long k = count; k < filled || k < end; k++) scores[k] = 0;
    for (long k = 0; k < filled; k++) sum += scores[k];
    *inverse = 1 / sum;
    return peak * scale + logf(sum);
}

static void soften_batch(const struct batch *b, float *scores, long room, float *logsum, long heads, float scale,
                         float *inverse)
{
    for (const struct piece *p = b->pieces; p < b->pieces + b->pieces_count; p++)
        for (long i = 0; i < p->count; i++) {
            long at = p->at + i, seen = p->row->prefix_count + p->from, token = p->row->own + p->from + i;
            logsum[token * heads] = soften(scores + at * room, seen + i + 1, seen + p->count, scale, inverse + at);
        }
}

/* The rows from `row` to `end` through key head `h`. */
INLINE void attend_rows(const struct shape *s, struct scratch x, const struct row *row, const struct row *end, long h,
                        const float *query, const float *key, const float *value, float *out, float *logsum)
{
    long size = s->size, heads = s->key_heads * s->group, stride = heads * size;
    struct batch b = {.count = 0};
    const float *values = value + h * size;
    while (next_batch(&b, row, end, size)) {
        turn_batch(&x.keys, &b, key + h * size, s->key_stride, size);
        gather_prefix(&x.values, &b, values, s->value_stride, size);
        for (long head = h * s->group; head < (h + 1) * s->group; head++) {
            float inverse[BATCH];
            gather_batch(x.query, &b, query + head * size, s->query_stride, size);
            score_batch(x.weights, x.room, &b, x.query, &x.keys, size);
            soften_batch(&b, x.weights, x.room, logsum + head, heads, s->scale, inverse);
            mix_batch(x.mixed, &b, x.weights, x.room, x.values.plain, values, s->value_stride, size);
            for (long i = 0; i < b.count; i++)
                for (long d = 0; d < size; d++) x.mixed[i * size + d] *= inverse[i];
            put_batch(out + head * size, stride, &b, x.mixed, size);
        }
    }
}

static struct parts parts_for(const struct shape *s, long threads)
{
    return deal_rows(s->rows, s->count, threads > 1 ? PARTS * threads : 1);
}

void attend(const struct shape *s, const float *query, const float *key, const float *value, float *out, float *logsum,
            long threads)
{
    struct parts p = parts_for(s, threads);
#pragma omp parallel num_threads(threads)
    {
        struct scratch x = reserve(s);
#pragma omp for schedule(dynamic)
        for (long i = 0; i < p.count * s->key_heads; i++) {
            const long *at = p.starts + i % p.count;
            attend_rows(s, x, p.rows + at[0], p.rows + at[1], i / p.count, query, key, value, out, logsum);
        }
        free(x.keys.prefix);
    }
    free(p.starts);
    free(p.rows);
}

/* -- backward ------------------------------------------------------------------------------------------------------ */

/* Scores of one query to its weights again, by their logsum; `slopes` to the gradients of the scores. Over the first
 * `count` keys, 0 up to `end`. */
static void slope(float *scores, float *slopes, float logsum, float along, long count, long end, float scale)
{
    long filled = whole(count, LANES);
    for (long k = 0; k < filled; k++) {
        float here = exponential(scores[k] * scale - logsum);
        scores[k] = here;
        slopes[k] = here * (slopes[k] - along) * scale;
    }
    for (long k = count; k < filled || k < end; k++) scores[k] = slopes[k] = 0;
}

static void slope_batch(const struct batch *b, const struct scratch *x, const float *logsum, long heads,
                        const float *out, long stride, long size, float scale)
{
    for (const struct piece *p = b->pieces; p < b->pieces + b->pieces_count; p++)
        for (long i = 0; i < p->count; i++) {
            long at = p->at + i, token = p->row->own + p->from + i, seen = p->row->prefix_count + p->from;
            float along = 0, *weights = x->weights + at * x->room, *slopes = x->slopes + at * x->room;
            for (long d = 0; d < size; d++) along += out[token * stride + d] * x->gradient[at * size + d];
            slope(weights, slopes, logsum[token * heads], along, seen + i + 1, seen + p->count, scale);
        }
}

/* What the backward pass is given, and what it finds: of_query like query, of_key and of_value like key and value, all
 * three without gaps. */
struct slopes {
    const float *query, *key, *value, *out, *logsum, *gradient;
    float *of_query, *of_key, *of_value;
};

INLINE void leave_rows(const struct shape *s, struct scratch x, const struct row *row, const struct row *end, long h,
                       const struct slopes *a)
{
    long size = s->size, heads = s->key_heads * s->group, stride = heads * size, key_stride = s->key_heads * size;
    struct batch b = {.count = 0};
    const float *keys = a->key + h * size;
    while (next_batch(&b, row, end, size)) {
        turn_batch(&x.keys, &b, keys, s->key_stride, size);
        turn_batch(&x.values, &b, a->value + h * size, s->value_stride, size);
        gather_prefix(&x.keys, &b, keys, s->key_stride, size);
        for (long head = h * s->group; head < (h + 1) * s->group; head++) {
            gather_batch(x.query, &b, a->query + head * size, s->query_stride, size);
            gather_batch(x.gradient, &b, a->gradient + head * size, stride, size);
            score_batch(x.weights, x.room, &b, x.query, &x.keys, size);
            score_batch(x.slopes, x.room, &b, x.gradient, &x.values, size);
            slope_batch(&b, &x, a->logsum + head, heads, a->out + head * size, stride, size, s->scale);
            spread_batch(a->of_value + h * size, &b, x.weights, x.room, x.gradient, key_stride, size);
            spread_batch(a->of_key + h * size, &b, x.slopes, x.room, x.query, key_stride, size);
            mix_batch(x.mixed, &b, x.slopes, x.room, x.keys.plain, keys, s->key_stride, size);
            put_batch(a->of_query + head * size, stride, &b, x.mixed, size);
        }
    }
}

/* `of_key` and `of_value` are 0 at first. */
void attend_backward(const struct shape *s, const float *query, const float *key, const float *value, const float *out,
                     const float *logsum, const float *gradient, float *of_query, float *of_key, float *of_value,
                     long threads)
{
    struct slopes a = {query, key, value, out, logsum, gradient, of_query, of_key, of_value};
    struct parts p = parts_for(s, threads);
#pragma omp parallel num_threads(threads)
    {
        struct scratch x = reserve(s);
#pragma omp for schedule(dynamic)
        for (long i = 0; i < p.count * s->key_heads; i++) {
            const long *at = p.starts + i % p.count;
            leave_rows(s, x, p.rows + at[0], p.rows + at[1], i / p.count, &a);
        }
        free(x.keys.prefix);
    }
    free(p.starts);
    free(p.rows);
}
