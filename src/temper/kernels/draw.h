/* Draws of tokens from logits, as rollout/draw.py does where nothing is cut off. */
#include "products.h"

#define BLOCK 256 /* tokens of the vocabulary whose weights are summed together */

static double uniform(long key, long position)
{
    uint64_t x = (uint64_t)key + ((uint64_t)position + 1) * 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return (double)((x ^ (x >> 31)) >> 11) * 0x1p-53;
}

/* The token at which the running sum of the weights passes `wanted`, or the last with a weight. */
static long invert(const float *weights, long vocabulary, double wanted)
{
    double before = 0;
    long last = 0;
    for (long start = 0; start < vocabulary; start += BLOCK) {
        long count = at_most(BLOCK, vocabulary - start);
        double sum = sum_up(weights + start, count);
        if (before + sum > wanted) {
            double mass = before;
            for (long i = start; i < start + count; i++) {
                mass += weights[i];
                if (mass > wanted) return i;
                if (weights[i] > 0) last = i;
            }
            return last;
        }
        before += sum;
    }
    for (long i = 0; i < vocabulary; i++)
        if (weights[i] > 0) last = i;
    return last;
}

/* Turns a row's logits into weights; their total, and the token of the largest. */
static double weigh(float *logits, long vocabulary, float temperature, long *likeliest)
{
    float peak = -INFINITY;
    double total = 0;
    *likeliest = 0;
    for (long i = 0; i < vocabulary; i++) {
        if (temperature != 0 && temperature != 1) logits[i] /= temperature;
        if (logits[i] > peak) peak = logits[i], *likeliest = i;
    }
    for (long i = 0; i < vocabulary; i++) {
        float below = logits[i] - peak;
        logits[i] = below < -87.0f ? 0.0f : exponential(below);
    }
    for (long start = 0; start < vocabulary; start += BLOCK)
        total += sum_up(logits + start, at_most(BLOCK, vocabulary - start));
    return total;
}

/* A token drawn from weights, and its log-prob. */
static long pick(const float *weights, long vocabulary, float temperature, double chance, double total, long likeliest,
                 float *logprob)
{
    long token = temperature != 0 ? invert(weights, vocabulary, chance * total) : likeliest;
    *logprob = logf((float)(weights[token] / total));
    return token;
}

/* Turns a row's logits into weights; the token drawn and its log-prob. */
static long draw(float *logits, long vocabulary, float temperature, double chance, float *logprob)
{
    long likeliest;
    double total = weigh(logits, vocabulary, temperature, &likeliest);
    return pick(logits, vocabulary, temperature, chance, total, likeliest, logprob);
}
