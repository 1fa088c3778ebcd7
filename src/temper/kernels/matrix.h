/* Products of row-major float32 matrices for one thread: tiles of sums that stay in registers, the right matrix laid out
 * in panels beforehand. Every number is one sum in the order of its terms, whichever numbers stand beside it.
 */
#include "tiles.h"

#define HIGH (LANES == 16 ? 12 : 6) /* rows of a tile: HIGH * 2 vectors of sums, and what is read, fit the registers */
#define PANEL (2 * LANES)           /* columns of a tile */

/* Floats of `columns` columns of `size` numbers in panels. */
static long panels(long columns, long size) { return (columns + PANEL - 1) / PANEL * PANEL * size; }

/* Panels of a matrix [size, columns] whose rows are `stride` apart; what a panel has no column for is 0. */
static void lay(float *to, const float *from, long stride, long columns, long size)
{
    for (long j = 0; j < columns; j += PANEL, to += PANEL * size) {
        long wide = columns - j < PANEL ? columns - j : PANEL;
        for (long k = 0; k < size; k++) {
            memcpy(to + k * PANEL, from + k * stride + j, sizeof(float) * wide);
            if (wide < PANEL) memset(to + k * PANEL + wide, 0, sizeof(float) * (PANEL - wide));
        }
    }
}

/* Panels of the transposed of a matrix [columns, size] without gaps. */
static void lay_turned(float *to, const float *from, long columns, long size)
{
    long full = size / LANES * LANES;
    for (long j = 0; j < columns; j += PANEL, to += PANEL * size, from += PANEL * size) {
        long wide = columns - j < PANEL ? columns - j : PANEL;
        if (wide < PANEL) memset(to, 0, sizeof(float) * PANEL * size);
        turn(to, from, size, wide, full);
        for (long i = 0; i < wide; i++)
            for (long k = full; k < size; k++) to[k * PANEL + i] = from[i * size + k];
    }
}

INLINE lanes bits(const float *from)
{
    lanes here;
    memcpy(&here, from, sizeof here);
    return here;
}

/* A panel [size, PANEL] of numbers that bfloat16 has, in half the space: a word is a number of the first vector of a row and
 * one of the second. */
static void halve(float *to, const float *panel, long size)
{
    for (long k = 0; k < size; k++) {
        lanes both = ((bits(panel + k * PANEL) >> 16) & 0xffff) | (bits(panel + k * PANEL + LANES) & ~0xffff);
        memcpy(to + k * LANES, &both, sizeof both);
    }
}

/* to[i][0..PANEL) = (or, if it `adds`, +=) sum over k of left(i, k) panel[k], i < rows, which is known when compiled.
 * left(i, k) is left[i * apart + k], or, if it is `turned`, left[i + k * apart]. If it `asks`, the next panel is on its
 * way to the cache when it is done. A panel may be `halved`. */
INLINE void tile(const float *left, long apart, const float *panel, float *to, long stride, long columns, long size,
                 const int rows, const int turned, const int adds, const int asks, const int halved)
{
    const long wide = halved ? LANES : PANEL;
    vector sums[HIGH][2];
    if (adds && columns >= PANEL) /* a large matrix is not in the cache by the time it is needed */
        for (int i = 0; i < rows; i++) __builtin_prefetch(to + i * stride, 1), __builtin_prefetch(to + i * stride + LANES, 1);
    memset(sums, 0, sizeof(vector) * 2 * rows);
    for (long k = 0; k < size; k++) {
        const float *here = panel + k * wide;
        for (long line = 0; asks && line < wide; line += LINE) __builtin_prefetch(here + size * wide + line, 0, 2);
        lanes first = bits(here);
        vector one = (vector)(halved ? first << 16 : first);
        vector two = (vector)(halved ? first & ~0xffff : bits(here + LANES));
#pragma GCC unroll 12
        for (int i = 0; i < rows; i++) {
            float by = turned ? left[i + k * apart] : left[i * apart + k];
            sums[i][0] += by * one;
            sums[i][1] += by * two;
        }
    }
    if (columns >= PANEL) {
#pragma GCC unroll 12
        for (int i = 0; i < rows; i++)
            for (int half = 0; half < 2; half++) {
                vector *at = (vector *)(to + i * stride + half * LANES);
                *at = adds ? *at + sums[i][half] : sums[i][half];
            }
    } else
        for (int i = 0; i < rows; i++)
            for (long j = 0; j < columns; j++) {
                float sum = ((float *)sums[i])[j], *at = to + i * stride + j;
                *at = adds ? *at + sum : sum;
            }
}

/* Of all rows. If it `asks` and there is a tile of many, the first of them asks for the next panel. */
INLINE void strip(const float *left, long apart, const float *panel, float *to, long stride, long rows, long columns,
                  long size, const int turned, const int adds, const int asks, const int halved)
{
    long i = 0, step = turned ? 1 : apart;
    if (asks && rows >= HIGH) tile(left, apart, panel, to, stride, columns, size, HIGH, turned, adds, 1, halved), i = HIGH;
    for (; i + HIGH <= rows; i += HIGH)
        tile(left + i * step, apart, panel, to + i * stride, stride, columns, size, HIGH, turned, adds, 0, halved);
    for (; i + HIGH * 2 / 3 <= rows; i += HIGH * 2 / 3)
        tile(left + i * step, apart, panel, to + i * stride, stride, columns, size, HIGH * 2 / 3, turned, adds, 0, halved);
    for (; i + HIGH / 3 <= rows; i += HIGH / 3)
        tile(left + i * step, apart, panel, to + i * stride, stride, columns, size, HIGH / 3, turned, adds, 0, halved);
    for (; i + 2 <= rows; i += 2)
        tile(left + i * step, apart, panel, to + i * stride, stride, columns, size, 2, turned, adds, 0, halved);
    for (; i < rows; i++) tile(left + i * step, apart, panel, to + i * stride, stride, columns, size, 1, turned, adds, 0, halved);
}

/* to [rows, columns] = left [rows, size] · right [size, columns], of which `right` are the panels. */
static void times(const float *left, long apart, const float *right, float *to, long stride, long rows, long columns,
                  long size)
{
    for (long j = 0; j < columns; j += PANEL)
        strip(left, apart, right + j * size, to + j, stride, rows, columns - j, size, 0, 0, 0, 0);
}

static void add_times(const float *left, long apart, const float *right, float *to, long stride, long rows, long columns,
                      long size)
{
    for (long j = 0; j < columns; j += PANEL)
        strip(left, apart, right + j * size, to + j, stride, rows, columns - j, size, 0, 1, 0, 0);
}

/* to [rows, columns] += leftᵀ · right; left [size, rows], its rows `apart`. */
static void add_turned(const float *left, long apart, const float *right, float *to, long stride, long rows, long columns,
                       long size)
{
    for (long j = 0; j < columns; j += PANEL)
        strip(left, apart, right + j * size, to + j, stride, rows, columns - j, size, 1, 1, 0, 0);
}
