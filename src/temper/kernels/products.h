/* Products of rows with weights that lie [out, in]: a number is the same sum in the same order however many rows there
 * are, whichever they are, and however many threads.
 */
#ifndef PRODUCTS
#define PRODUCTS
#include "vectors.h"

#define ROWS (LANES / 4) /* of a block of a product: LANES sums and what is read fit the registers */
#define LARGE (1L << 17) /* weights of a product that a second thread pays for */
#define FAR (1L << 17)   /* weights of a product that are still read from memory when their turn comes */

#ifdef __AVX__
#define KEEP(x) __asm__("" : "+v"(x)) /* in a register: compilers read it again for each use, and reading is what limits */
#else
#define KEEP(x)
#endif

static long at_most(long a, long b) { return a < b ? a : b; }

/* Which lanes of two vectors are added to which when halves of that many lanes are: of the first vector, then the second. */
#if LANES == 16
#define LOW_8 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23
#define HIGH_8 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31
#define LOW_4 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27
#define HIGH_4 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31
#define LOW_2 0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29
#define HIGH_2 2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31
#define LOW_1 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define HIGH_1 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#else
#define LOW_4 0, 1, 2, 3, 8, 9, 10, 11
#define HIGH_4 4, 5, 6, 7, 12, 13, 14, 15
#define LOW_2 0, 1, 4, 5, 8, 9, 12, 13
#define HIGH_2 2, 3, 6, 7, 10, 11, 14, 15
#define LOW_1 0, 2, 4, 6, 8, 10, 12, 14
#define HIGH_1 1, 3, 5, 7, 9, 11, 13, 15
#endif
#define FOLD(half)                                                                                 \
    for (int i = 0; i < half; i++)                                                                 \
        v[i] = __builtin_shuffle(v[2 * i], v[2 * i + 1], (lanes){LOW_##half}) +                    \
               __builtin_shuffle(v[2 * i], v[2 * i + 1], (lanes){HIGH_##half})

/* The sums of the lanes of LANES vectors. */
static inline __attribute__((always_inline)) vector sums_of(vector *v)
{
#if LANES == 16
#pragma GCC unroll 8
    FOLD(8);
#endif
#pragma GCC unroll 4
    FOLD(4);
#pragma GCC unroll 2
    FOLD(2);
#pragma GCC unroll 1
    FOLD(1);
    return v[0];
}

/* Of one, in the same order. */
static inline __attribute__((always_inline)) float sum_of(vector v)
{
    float lane[LANES];
    memcpy(lane, &v, sizeof v);
#pragma GCC unroll 4
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) lane[i] += lane[i + half];
    return lane[0];
}

static inline float dot(const float *a, const float *b, long size)
{
    vector sum = {0};
    long i = 0;
    for (; i + LANES <= size; i += LANES) sum += *(const vector *)(a + i) * *(const vector *)(b + i);
    float total = sum_of(sum);
    for (; i < size; i++) total = fmaf(a[i], b[i], total);
    return total;
}

static float sum_up(const float *x, long count)
{
    vector sum = {0};
    long i = 0;
    for (; i + LANES <= count; i += LANES) sum += *(const vector *)(x + i);
    float total = sum_of(sum);
    for (; i < count; i++) total += x[i];
    return total;
}

/* to[r * stride + o] = x[r] · w[o] for r < rows, o < outs, both known when compiled; rows * outs = LANES. If it
 * `asks`, as is known then too, the weights that follow LANES outs further on are on their way when it is done. */
static inline __attribute__((always_inline)) void block(const float *x, const float *w, float *to, long size, long stride,
                                                        const int rows, const int outs, const int asks)
{
    vector sums[LANES] = {{0}};
    long i = 0;
    for (; i + LANES <= size; i += LANES) {
        vector here[ROWS];
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            here[r] = *(const vector *)(x + r * size + i);
            KEEP(here[r]);
        }
#pragma GCC unroll 16
        for (int o = 0; o < outs; o++) {
            vector weights = *(const vector *)(w + o * size + i);
            KEEP(weights);
            if (asks) __builtin_prefetch(w + (o + LANES) * size + i, 0, 2);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) sums[r * outs + o] += here[r] * weights;
        }
    }
    vector total = sums_of(sums);
    for (; i < size; i++)
        for (int r = 0; r < rows; r++)
            for (int o = 0; o < outs; o++) {
                float *one = (float *)&total + r * outs + o;
                *one = fmaf(x[r * size + i], w[o * size + i], *one);
            }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) memcpy(to + r * stride, (float *)&total + r * outs, outs * sizeof(float));
}

/* to[r * stride + o] = x[r] · w[o] for r < rows, first <= o < end, at most LANES of them. */
static void stripe(const float *x, const float *w, float *to, long rows, long first, long end, long size, long stride, int far)
{
    const int wide = LANES / ROWS; /* outs of a block; the first blocks of rows ask for the next weights in turns */
    long r = 0, turns = at_most(rows / ROWS, ROWS);
    if (end - first == LANES) {
        for (; r + ROWS <= rows; r += ROWS)
            for (int part = 0; part < ROWS; part++) {
                const float *from = w + (first + part * wide) * size;
                float *into = to + r * stride + first + part * wide;
                if (far && r / ROWS == part % turns)
                    block(x + r * size, from, into, size, stride, ROWS, wide, 1);
                else
                    block(x + r * size, from, into, size, stride, ROWS, wide, 0);
            }
        for (; r < rows; r++)
            if (far && r == 0)
                block(x, w + first * size, to + first, size, stride, 1, LANES, 1);
            else
                block(x + r * size, w + first * size, to + r * stride + first, size, stride, 1, LANES, 0);
    }
    for (; r < rows; r++)
        for (long o = first; o < end; o++) to[r * stride + o] = dot(x + r * size, w + o * size, size);
}
#endif
