/* Attention of one token a row over runs of keys and values: rows that see the same runs look at them together.
 *
 * A number of a row is the same sum in the same order whoever looks with it.
 */
#include "products.h"
#include "tiles.h"

#define QUERIES 8 /* that look at a run together */

struct run {
    const float *keys, *values;
    long count, room; /* keys that are seen, and that lie there */
};

/* tanh(x / cap) * cap */
static inline float capped(float x, float cap)
{
    return cap - 2.0f * cap / (exponential(2.0f * x / cap) + 1.0f);
}

/* So many floats are on their way to the cache. */
static void ask(const float *from, long floats)
{
    for (long i = 0; i < floats; i += LINE) __builtin_prefetch(from + i);
}

/* Of queries [rows, size] and a run's keys to scores [rows, stride], by whole stripes where there is room: what stands
 * after the keys that are seen is no score. */
static void score(const float *queries, const struct run *run, float *scores, long rows, long size, long stride)
{
    long room = at_most(whole(run->count, LANES), run->room);
    for (long first = 0; first < room; first += LANES)
        stripe(queries, run->keys, scores, rows, first, at_most(first + LANES, room), size, stride, 0);
}

/* Scores to weights that are not divided by their sum, which is returned; 0 up to a whole vector. */
static float soften(float *scores, long count, float scale, float softcap)
{
    long room = whole(count, LANES);
    float peaks[LANES], peak = -INFINITY;
    for (int j = 0; j < LANES; j++) peaks[j] = -INFINITY;
    for (long k = 0; k < room; k += LANES)
        for (int j = 0; j < LANES; j++) {
            float here = scores[k + j] * scale;
            here = softcap > 0 ? capped(here, softcap) : here;
            scores[k + j] = here = k + j < count ? here : -INFINITY;
            peaks[j] = here > peaks[j] ? here : peaks[j];
        }
    for (int j = 0; j < LANES; j++) peak = peaks[j] > peak ? peaks[j] : peak;
    for (long k = 0; k < room; k += LANES)
        for (int j = 0; j < LANES; j++) {
            float here = exponential(scores[k + j] - peak);
            scores[k + j] = k + j < count ? here : 0;
        }
    return sum_up(scores, room);
}

/* out[i] += Σ_k weights[i][k] values[k] */
static void mix(float *out, const float *weights, long stride, const struct run *run, long rows, long size)
{
    const float *values = run->values;
    long d = 0;
    for (; d + STEP <= size; d += STEP)
        sum_rows(out + d, size, weights, stride, values + d, size, run->count, rows, 2, 0, 1);
    for (; d + LANES <= size; d += LANES)
        sum_rows(out + d, size, weights, stride, values + d, size, run->count, rows, 1, 0, 1);
    for (; d < size; d++)
        for (long k = 0; k < run->count; k++)
            for (long i = 0; i < rows; i++)
                out[i * size + d] = fmaf(weights[i * stride + k], values[k * size + d], out[i * size + d]);
}

/* out [rows, size] of queries, the same, of `parties` rows with as many queries each: what they see together are `shared`,
 * then each its own. scores: scratch [rows, stride], whose rows have room for a vector more than is seen. */
static void attend(const float *queries, float *out, long rows, long size, const struct run *shared, long shares,
                   const struct run *own, long parties, float *scores, long stride, float scale, float softcap)
{
    long each = rows / parties, all = 0;
    float totals[rows];
    for (long n = 0; n < shares; all += shared[n++].count) score(queries, shared + n, scores + all, rows, size, stride);
    for (long p = 0; p < parties; p++) {
        if (p + 1 < parties) ask(own[p + 1].keys, own[p + 1].count * size);
        ask(own[p].values, own[p].count * size);
        score(queries + p * each * size, own + p, scores + p * each * stride + all, each, size, stride);
    }
    for (long i = 0; i < rows; i++) totals[i] = soften(scores + i * stride, all + own->count, scale, softcap);
    memset(out, 0, rows * size * sizeof(float));
    for (long n = 0, at = 0; n < shares; at += shared[n++].count) mix(out, scores + at, stride, shared + n, rows, size);
    for (long p = 0; p < parties; p++)
        mix(out + p * each * size, scores + p * each * stride + all, stride, own + p, each, size);
    for (long i = 0; i < rows; i++)
        for (long d = 0; d < size; d++) out[i * size + d] /= totals[i];
}
