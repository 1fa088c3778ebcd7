/* What a Llama-like layer does to one token, or to one of its heads, between its products: forward and backward. */
#ifndef POINTWISE
#define POINTWISE
#include "vectors.h"

static float inverse_rms(const float *x, long size, float eps)
{
    float squares = 0;
    for (long d = 0; d < size; d++) squares += x[d] * x[d];
    return 1.0f / sqrtf(squares / size + eps);
}

static void norm(const float *x, const float *scale, float *to, long size, float eps)
{
    float by = inverse_rms(x, size, eps);
    for (long d = 0; d < size; d++) to[d] = x[d] * by * scale[d];
}

/* of_x (+)= the gradient of x, which may be `gradient`, if it does not add. The inverse root is returned. */
INLINE float norm_back(const float *x, const float *scale, const float *gradient, float *of_x, long size, float eps,
                       const int adds)
{
    float by = inverse_rms(x, size, eps), along = 0;
    for (long d = 0; d < size; d++) along += gradient[d] * scale[d] * x[d];
    along *= by * by / size;
    for (long d = 0; d < size; d++) {
        float here = by * (gradient[d] * scale[d] - x[d] * along);
        of_x[d] = adds ? of_x[d] + here : here;
    }
    return by;
}

/* of_scale += the gradient of the scale of a norm whose inverse root was `by`. */
static void scale_back(const float *gradient, const float *x, float by, float *of_scale, long size)
{
    for (long d = 0; d < size; d++) of_scale[d] += gradient[d] * x[d] * by;
}

/* Of a head (x1, x2), two halves, (x1 c1 - x2 s1, x2 c2 + x1 s2), or the transposed of that. */
static void turn_head(float *head, const float *cosine, const float *sine, long size, int back)
{
    long half = size / 2;
    const float *first_sine = back ? sine + half : sine, *second_sine = back ? sine : sine + half;
    float sign = back ? -1.0f : 1.0f;
    for (long d = 0; d < half; d++) {
        float one = head[d], two = head[d + half];
        head[d] = one * cosine[d] - sign * two * first_sine[d];
        head[d + half] = two * cosine[d + half] + sign * one * second_sine[d];
    }
}

static void gate(const float *gates, float *to, long size, float a, float b)
{
    for (long d = 0; d < size; d++) {
        float g = gates[d];
        to[d] = g / (1.0f + exponential(-g * (a + b * g * g))) * gates[size + d];
    }
}

/* Gates and values, whose product's gradient is `of`, to their gradients `to`; `of` to that product. */
static void gate_back(const float *gates, float *of, float *to, long size, float a, float b)
{
    for (long d = 0; d < size; d++) {
        float g = gates[d], value = gates[size + d], here = of[d];
        float share = 1.0f / (1.0f + exponential(-g * (a + b * g * g)));
        float slope = share + g * share * (1.0f - share) * (a + 3.0f * b * g * g);
        to[d] = here * value * slope;
        to[size + d] = here * g * share;
        of[d] = g * share * value;
    }
}
#endif
