/* What a Llama-like layer does between its matrix products, each in one pass over memory, forward and backward.
 *
 * Row-major float32. Rows are dealt to threads in one piece each; no sum depends on how many threads there are.
 */
#include "pointwise.h"

/* out = x * scale / rms(x); x, out [rows, size], scale [size]; inverse [rows] is 1 / rms(x), kept for the backward pass. */
void rms_norm(const float *x, const float *scale, float *out, float *inverse, long rows, long size, float eps, long threads)
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long i = 0; i < rows; i++) {
        const float *row = x + i * size;
        float *to = out + i * size, by = inverse[i] = inverse_rms(row, size, eps);
        for (long d = 0; d < size; d++) to[d] = row[d] * by * scale[d];
    }
}

/* of_scale [parts, size]: a sum for each of `parts` equal pieces of the rows. */
void rms_norm_backward(const float *x, const float *scale, const float *inverse, const float *gradient, float *of_x,
                       float *of_scale, long rows, long size, long parts, long threads)
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long part = 0; part < parts; part++) {
        float *sums = of_scale + part * size;
        memset(sums, 0, size * sizeof(float));
        for (long i = rows * part / parts; i < rows * (part + 1) / parts; i++) {
            const float *row = x + i * size, *of_row = gradient + i * size;
            float *to = of_x + i * size, by = inverse[i], along = 0;
            for (long d = 0; d < size; d++) along += of_row[d] * scale[d] * row[d];
            along *= by * by / size;
            for (long d = 0; d < size; d++) {
                sums[d] += of_row[d] * row[d] * by;
                to[d] = by * (of_row[d] * scale[d] - row[d] * along);
            }
        }
    }
}

/* x [rows, 2 * size] holds gates, then values: out [rows, size] = f(gate) * value, f(g) = g * sigmoid(a g + b g^3). */
void gated(const float *x, float *out, long rows, long size, float a, float b, long threads)
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long i = 0; i < rows; i++) gate(x + 2 * i * size, out + i * size, size, a, b);
}

void gated_backward(const float *x, const float *gradient, float *of_x, long rows, long size, float a, float b,
                    long threads)
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long i = 0; i < rows; i++) {
        const float *gate = x + 2 * i * size, *value = gate + size, *of_row = gradient + i * size;
        float *of_gate = of_x + 2 * i * size, *of_value = of_gate + size;
        for (long d = 0; d < size; d++) {
            float g = gate[d], share = 1.0f / (1.0f + exponential(-g * (a + b * g * g)));
            float slope = share + g * share * (1.0f - share) * (a + 3.0f * b * g * g);
            of_gate[d] = of_row[d] * value[d] * slope;
            of_value[d] = of_row[d] * g * share;
        }
    }
}

/* Rotary positions: of each head (x1, x2), two halves, (x1 c1 - x2 s1, x2 c2 + x1 s2); `back`: the transposed of that.
 * x, out: rows of `heads` heads of `size`, that many floats apart; cosine, sine [rows, size]. */
void rotate(const float *x, float *out, const float *cosine, const float *sine, long rows, long heads, long size,
            long x_stride, long out_stride, long back, long threads)
{
    long half = size / 2;
    float sign = back ? -1.0f : 1.0f;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long i = 0; i < rows; i++) {
        const float *c = cosine + i * size, *c_second = c + half;
        const float *s_first = sine + i * size + (back ? half : 0), *s_second = sine + i * size + (back ? 0 : half);
        for (long h = 0; h < heads; h++) {
            const float *first = x + i * x_stride + h * size, *second = first + half;
            float *to = out + i * out_stride + h * size, *to_second = to + half;
#pragma omp simd
            for (long d = 0; d < half; d++) {
                to[d] = first[d] * c[d] - sign * second[d] * s_first[d];
                to_second[d] = second[d] * c_second[d] + sign * first[d] * s_second[d];
            }
        }
    }
}
