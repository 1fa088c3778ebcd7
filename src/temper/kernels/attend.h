/* Attention of packed rows of tokens, forward and backward: each query sees its row's prefix and, causally, its row.
 *
 * Row-major float32. A token's heads lie side by side, the tokens of query, key and value `*_stride` floats apart; all
 * else is [tokens, heads, size] without gaps, logsum [tokens, heads]. `size` is a multiple of LANES.
 * Every number is the same sum in the same order whichever rows stand beside, and however many threads there are: one
 * thread computes all that belongs to a key head.
 */
#include <stdlib.h>
#include "vectors.h"

#define TILE (LANES / 2) /* queries at once: TILE * 2 sums fit the registers */
#define STEP (2 * LANES) /* keys at once */

struct row {
    long own, own_count, prefix, prefix_count; /* first tokens, and how many */
};

struct shape {
    const struct row *rows;
    long count, key_heads, group, size, query_stride, key_stride, value_stride, most; /* most: keys of a row */
    float scale;
};

struct scratch {
    float *keys, *values; /* [size, room], turned: keys side by side */
    float *weights, *slopes; /* [TILE, room] */
    float *query, *gradient; /* [TILE, size] */
    long room;
};

static struct scratch reserve(const struct shape *s)
{
    struct scratch x;
    x.room = (s->most + STEP - 1) / STEP * STEP;
    float *at = x.keys = malloc(sizeof(float) * (x.room * (2 * s->size + 2 * TILE) + 2 * TILE * s->size));
    if (!at) abort();
    x.values = at += x.room * s->size;
    x.weights = at += x.room * s->size;
    x.slopes = at += x.room * TILE;
    x.query = at += x.room * TILE;
    x.gradient = at + TILE * s->size;
    return x;
}

/* Columns first..first+count of `turned` [size, room] from rows of `from`. */
static void turn(float *turned, long room, const float *from, long stride, long first, long count, long size)
{
    for (long k = 0; k < count; k++)
        for (long d = 0; d < size; d++) turned[d * room + first + k] = from[k * stride + d];
}

static void turn_row(float *turned, long room, const float *from, long stride, const struct row *row, int known, long size)
{
    if (!known) turn(turned, room, from + row->prefix * stride, stride, 0, row->prefix_count, size);
    long keys = row->prefix_count + row->own_count, end = (keys + STEP - 1) / STEP * STEP;
    turn(turned, room, from + row->own * stride, stride, row->prefix_count, row->own_count, size);
    for (long d = 0; d < size; d++)
        for (long k = keys; k < end; k++) turned[d * room + k] = 0;
}

/* `count` rows of a tile, the others 0. */
static void load(float *tile, const float *from, long stride, long count, long size)
{
    memset(tile, 0, sizeof(float) * TILE * size);
    for (long i = 0; i < count; i++) memcpy(tile + i * size, from + i * stride, sizeof(float) * size);
}

/* scores[i][k] = tile[i] · column k of turned. */
static void score(float *scores, const float *tile, const float *turned, long room, long keys, long size)
{
    for (long k = 0; k < keys; k += STEP) {
        vector sums[TILE][2];
        memset(sums, 0, sizeof sums);
        for (long d = 0; d < size; d++) {
            const vector *column = (const vector *)(turned + d * room + k);
            vector one = column[0], two = column[1];
#pragma GCC unroll 8
            for (int i = 0; i < TILE; i++) {
                sums[i][0] += tile[i * size + d] * one;
                sums[i][1] += tile[i * size + d] * two;
            }
        }
        for (int i = 0; i < TILE; i++) memcpy(scores + i * room + k, sums[i], sizeof sums[i]);
    }
}

/* out[i] += Σ_k weights[i][k] from[k], of `wide` vectors. */
INLINE void mix_part(float *out, const float *weights, long room, const float *from, long stride, long count, long size, int wide)
{
    vector sums[TILE][2];
    for (int i = 0; i < TILE; i++)
        for (int w = 0; w < wide; w++) sums[i][w] = ((const vector *)(out + i * size))[w];
    for (long k = 0; k < count; k++)
        for (int w = 0; w < wide; w++) {
            vector value = ((const vector *)(from + k * stride))[w];
#pragma GCC unroll 8
            for (int i = 0; i < TILE; i++) sums[i][w] += weights[i * room + k] * value;
        }
    for (int i = 0; i < TILE; i++)
        for (int w = 0; w < wide; w++) ((vector *)(out + i * size))[w] = sums[i][w];
}

static void mix(float *out, const float *weights, long room, const float *from, long stride, long count, long size)
{
    long d = 0;
    for (; d + STEP <= size; d += STEP) mix_part(out + d, weights, room, from + d, stride, count, size, 2);
    if (d < size) mix_part(out + d, weights, room, from + d, stride, count, size, 1);
}

/* The same over a row's keys that the tile may see. */
static void mix_row(float *out, const float *weights, long room, const float *from, long stride, const struct row *row, long seen, long size)
{
    memset(out, 0, sizeof(float) * TILE * size);
    mix(out, weights, room, from + row->prefix * stride, stride, row->prefix_count, size);
    mix(out, weights + row->prefix_count, room, from + row->own * stride, stride, seen - row->prefix_count, size);
}

/* to[k] += Σ_i weights[i][k] tile[i]. */
static void spread(float *to, long stride, const float *weights, long room, const float *tile, long count, long size)
{
    for (long d = 0; d < size; d += LANES) {
        vector rows[TILE];
        for (int i = 0; i < TILE; i++) memcpy(&rows[i], tile + i * size + d, sizeof rows[i]);
        for (long k = 0; k < count; k++) {
            vector sum = *(const vector *)(to + k * stride + d);
#pragma GCC unroll 8
            for (int i = 0; i < TILE; i++) sum += weights[i * room + k] * rows[i];
            *(vector *)(to + k * stride + d) = sum;
        }
    }
}

static void spread_row(float *to, long stride, const float *weights, long room, const float *tile, const struct row *row, long seen, long size)
{
    spread(to + row->prefix * stride, stride, weights, room, tile, row->prefix_count, size);
    spread(to + row->own * stride, stride, weights + row->prefix_count, room, tile, seen - row->prefix_count, size);
}

/* Scores to softmax weights over the first `count` keys, 0 up to `end`; the log of their sum. */
static float soften(float *weights, long count, long end, float scale)
{
    float peak = weights[0], total = 0;
    for (long k = 0; k < count; k++) peak = weights[k] > peak ? weights[k] : peak;
    for (long k = 0; k < count; k++) {
        weights[k] = exponential((weights[k] - peak) * scale);
        total += weights[k];
    }
    float inverse = 1 / total;
    for (long k = 0; k < count; k++) weights[k] *= inverse;
    for (long k = count; k < end; k++) weights[k] = 0;
    return peak * scale + logf(total);
}

static int same_prefix(const struct row *row)
{
    return row->prefix_count && row[-1].prefix == row->prefix && row[-1].prefix_count == row->prefix_count;
}

void attend(const struct shape *s, const float *query, const float *key, const float *value, float *out, float *logsum, long threads)
{
    long size = s->size, heads = s->key_heads * s->group;
#pragma omp parallel for num_threads(threads)
    for (long h = 0; h < s->key_heads; h++) {
        struct scratch x = reserve(s);
        for (long r = 0; r < s->count; r++) {
            const struct row *row = s->rows + r;
            turn_row(x.keys, x.room, key + h * size, s->key_stride, row, r && same_prefix(row), size);
            for (long head = h * s->group; head < (h + 1) * s->group; head++)
                for (long first = 0; first < row->own_count; first += TILE) {
                    long count = row->own_count - first < TILE ? row->own_count - first : TILE, token = row->own + first;
                    long seen = row->prefix_count + first + count;
                    load(x.query, query + token * s->query_stride + head * size, s->query_stride, count, size);
                    score(x.weights, x.query, x.keys, x.room, seen, size);
                    for (long i = 0; i < count; i++)
                        logsum[(token + i) * heads + head] = soften(x.weights + i * x.room, seen - count + i + 1, seen, s->scale);
                    mix_row(x.query, x.weights, x.room, value + h * size, s->value_stride, row, seen, size);
                    for (long i = 0; i < count; i++)
                        memcpy(out + ((token + i) * heads + head) * size, x.query + i * size, sizeof(float) * size);
                }
        }
        free(x.keys);
    }
}

/* Weights again from their logsum; slopes to the gradients of the scores. `seen` keys in all, the last `count` causal.
 * By whole vectors: what is left of a short row would take as long as the rest, one by one. */
static void slope(const struct scratch *x, const float *logsum, long heads, const float *out, long out_stride, long seen, long count, long size, float scale)
{
    for (long i = 0; i < count; i++) {
        float *weights = x->weights + i * x->room, *slopes = x->slopes + i * x->room, along = 0;
        long end = seen - count + i + 1;
        for (long d = 0; d < size; d++) along += out[i * out_stride + d] * x->gradient[i * size + d];
        for (long k = 0; k < seen; k += LANES)
            for (int j = 0; j < LANES; j++) {
                float here = exponential(weights[k + j] * scale - logsum[i * heads]);
                here = k + j < end ? here : 0;
                weights[k + j] = here;
                slopes[k + j] = here * (slopes[k + j] - along) * scale;
            }
    }
    for (long i = count; i < TILE; i++) {
        memset(x->weights + i * x->room, 0, sizeof(float) * seen);
        memset(x->slopes + i * x->room, 0, sizeof(float) * seen);
    }
}

/* of_query like query, of_key and of_value like key and value: all three without gaps, the last two 0 at first. */
void attend_backward(const struct shape *s, const float *query, const float *key, const float *value, const float *out, const float *logsum, const float *gradient, float *of_query, float *of_key, float *of_value, long threads)
{
    long size = s->size, heads = s->key_heads * s->group, stride = heads * size, key_stride = s->key_heads * size;
#pragma omp parallel for num_threads(threads)
    for (long h = 0; h < s->key_heads; h++) {
        struct scratch x = reserve(s);
        for (long r = 0; r < s->count; r++) {
            const struct row *row = s->rows + r;
            int known = r && same_prefix(row);
            turn_row(x.keys, x.room, key + h * size, s->key_stride, row, known, size);
            turn_row(x.values, x.room, value + h * size, s->value_stride, row, known, size);
            for (long head = h * s->group; head < (h + 1) * s->group; head++)
                for (long first = 0; first < row->own_count; first += TILE) {
                    long count = row->own_count - first < TILE ? row->own_count - first : TILE, token = row->own + first;
                    long seen = row->prefix_count + first + count, at = token * stride + head * size;
                    load(x.query, query + token * s->query_stride + head * size, s->query_stride, count, size);
                    load(x.gradient, gradient + at, stride, count, size);
                    score(x.weights, x.query, x.keys, x.room, seen, size);
                    score(x.slopes, x.gradient, x.values, x.room, seen, size);
                    slope(&x, logsum + token * heads + head, heads, out + at, stride, seen, count, size, s->scale);
                    spread_row(of_value + h * size, key_stride, x.weights, x.room, x.gradient, row, seen, size);
                    spread_row(of_key + h * size, key_stride, x.slopes, x.room, x.query, row, seen, size);
                    mix_row(x.query, x.slopes, x.room, key + h * size, s->key_stride, row, seen, size);
                    for (long i = 0; i < count; i++) memcpy(of_query + at + i * stride, x.query + i * size, sizeof(float) * size);
                }
        }
        free(x.keys);
    }
}
