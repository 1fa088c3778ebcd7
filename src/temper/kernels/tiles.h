/* What attention is made of, for one thread: products of a few rows, keys turned for them, the largest score. Every
 * number is one sum in the order of its terms, however many rows are done at once.
 */
#ifndef TILES
#define TILES
#include "vectors.h"

#define TILE (LANES == 16 ? 8 : 6) /* rows of sums at once: 2 vectors each, and what is read, fit the registers */
#define STEP (2 * LANES)           /* keys of a panel */

#if LANES == 16
#define COUNTED ((lanes){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
#else
#define COUNTED ((lanes){0, 1, 2, 3, 4, 5, 6, 7})
#endif

static long whole(long count, long step) { return (count + step - 1) / step * step; }

/* to[i] = (or, if it `adds`, +=) sum over k of left(i, k) right[k], of `wide` vectors, i < rows. left(i, k) is
 * left[i * apart + k], or, if it is `turned`, left[i + k * apart]. Rows of `to` are `across` apart, those of `right`
 * `stride`. */
INLINE void sum_tile(float *to, long across, const float *left, long apart, const float *right, long stride, long count,
                     const int rows, const int wide, const int turned, const int adds)
{
    vector sums[TILE][2];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
        for (int w = 0; w < wide; w++) sums[i][w] = adds ? ((const vector *)(to + i * across))[w] : (vector){0};
    for (long k = 0; k < count; k++) {
        vector one = ((const vector *)(right + k * stride))[0], two = ((const vector *)(right + k * stride))[wide - 1];
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            float here = turned ? left[i + k * apart] : left[i * apart + k];
            sums[i][0] += here * one;
            if (wide > 1) sums[i][1] += here * two;
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
        for (int w = 0; w < wide; w++) ((vector *)(to + i * across))[w] = sums[i][w];
}

INLINE void sum_rows(float *to, long across, const float *left, long apart, const float *right, long stride, long count,
                     long rows, const int wide, const int turned, const int adds)
{
    long i = 0, step = turned ? 1 : apart;
    for (; i + TILE <= rows; i += TILE)
        sum_tile(to + i * across, across, left + i * step, apart, right, stride, count, TILE, wide, turned, adds);
    for (; i + TILE / 2 <= rows; i += TILE / 2)
        sum_tile(to + i * across, across, left + i * step, apart, right, stride, count, TILE / 2, wide, turned, adds);
    for (; i + 2 <= rows; i += 2)
        sum_tile(to + i * across, across, left + i * step, apart, right, stride, count, 2, wide, turned, adds);
    for (; i < rows; i++)
        sum_tile(to + i * across, across, left + i * step, apart, right, stride, count, 1, wide, turned, adds);
}

/* A square of LANES × LANES numbers, turned. */
INLINE void turn_square(vector *square)
{
#if defined __GNUC__ && !defined __clang__
#pragma GCC unroll 4
    for (int apart = 1; apart < LANES; apart *= 2) { /* low, high: the lanes of a pair of rows that each of them takes */
        lanes other = (COUNTED & apart) != 0, low = (other & (LANES + (COUNTED ^ apart))) | (~other & COUNTED);
        lanes high = (other & (LANES + COUNTED)) | (~other & (COUNTED ^ apart));
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++)
            if (!(i & apart)) {
                vector one = square[i], two = square[i | apart];
                square[i] = __builtin_shuffle(one, two, low);
                square[i | apart] = __builtin_shuffle(one, two, high);
            }
    }
#else
    float *at = (float *)square;
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < i; j++) {
            float here = at[i * LANES + j];
            at[i * LANES + j] = at[j * LANES + i];
            at[j * LANES + i] = here;
        }
#endif
}

/* Panels of `count` keys, turned; what a panel has no key for is 0. */
static void turn(float *panels, const float *from, long stride, long count, long size)
{
    for (long k = 0; k < count; k += LANES)
        for (long d = 0; d < size; d += LANES) {
            vector square[LANES];
            long rows = count - k < LANES ? count - k : LANES;
            for (long i = 0; i < rows; i++) square[i] = *(const vector *)(from + (k + i) * stride + d);
            for (long i = rows; i < LANES; i++) square[i] = (vector){0};
            turn_square(square);
            float *to = panels + k / STEP * STEP * size + d * STEP + k % STEP;
            for (long i = 0; i < LANES; i++) *(vector *)(to + i * STEP) = square[i];
        }
}

INLINE vector larger(vector one, vector two)
{
    lanes first = one > two;
    return (vector)(((lanes)one & first) | ((lanes)two & ~first));
}

/* The largest of `count` numbers; up to a whole vector may be read beyond. */
static float largest(const float *x, long count)
{
    vector found = {0};
    float most = x[0];
    for (int j = 0; j < LANES; j++) found[j] = most;
    long k = 0;
    for (; k + LANES <= count; k += LANES) found = larger(found, *(const vector *)(x + k));
    for (; k < count; k++) most = x[k] > most ? x[k] : most;
    for (int j = 0; j < LANES; j++) most = found[j] > most ? found[j] : most;
    return most;
}
#endif
