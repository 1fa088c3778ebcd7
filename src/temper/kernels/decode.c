/* One decode step of attention for rows that each look at their own keys and values, begun from what they saw before.
 *
 * For every row and head: write the new key and value at `column`, score the query against columns begin..column,
 * and mix the values with softmax weights that go on from (mixed, logsum), the part of the softmax over shared keys.
 * Row-major float32: query, mixed, out [rows, key_heads * group, size]; logsum [rows, key_heads * group];
 * key, value [rows, key_heads, size]; keys, values [rows, key_heads, columns, size]; scores: scratch [columns].
 */
#include "exponential.h"

#define LINE 64 /* bytes of a cache line */

static void prefetch(const float *keys, const float *values, long floats)
{
    for (long i = 0; i < floats; i += LINE / (long)sizeof(float)) {
        __builtin_prefetch(keys + i);
        __builtin_prefetch(values + i);
    }
}

static void attend_one(const float *query, const float *keys, const float *values, const float *mixed, float logsum,
                       float *out, float *scores, long begin, long end, long size, float scale)
{
    float peak = logsum, total;
    for (long t = begin; t < end; t++) {
        float score = 0;
        for (long d = 0; d < size; d++) score += query[d] * keys[t * size + d];
        scores[t] = score * scale;
        peak = scores[t] > peak ? scores[t] : peak;
    }
    float before = exponential(logsum - peak);
    total = before;
    for (long t = begin; t < end; t++) {
        scores[t] = exponential(scores[t] - peak);
        total += scores[t];
    }
    for (long d = 0; d < size; d++) out[d] = mixed[d] * before;
    for (long t = begin; t < end; t++)
        for (long d = 0; d < size; d++) out[d] += scores[t] * values[t * size + d];
    for (long d = 0; d < size; d++) out[d] /= total;
}

void attend_own(const float *query, const float *key, const float *value, float *keys, float *values,
                const float *mixed, const float *logsum, float *out, float *scores, long rows, long key_heads,
                long group, long size, long columns, long column, long begin, float scale)
{
    for (long i = 0; i < rows * key_heads; i++) {
        float *row_keys = keys + i * columns * size, *row_values = values + i * columns * size;
        memcpy(row_keys + column * size, key + i * size, size * sizeof(float));
        memcpy(row_values + column * size, value + i * size, size * sizeof(float));
        if (i + 1 < rows * key_heads)
            prefetch(row_keys + (columns + begin) * size, row_values + (columns + begin) * size, (column + 1 - begin) * size);
        for (long g = 0; g < group; g++) {
            long at = i * group + g;
            attend_one(query + at * size, row_keys, row_values, mixed + at * size, logsum[at], out + at * size, scores,
                       begin, column + 1, size, scale);
        }
    }
}
