/* What follows the backward passes of an update, each in one pass over memory: gradients are added up, weights moved.
 *
 * Threads take blocks of numbers; each number is computed by itself, so no bit depends on how many threads there are.
 */
#include <math.h>
#include <string.h>

#define AROUND 4096 /* floats in the pages that Linux brings in together, without more ado */
#define BLOCK 4096 /* floats that stay in the first cache while parts are added to them */

/* sums[t] += parts[0][t], then parts[1][t] and so on: `count` parts of `tensors` tensors, part after part in `parts`. */
void add_up(float *const *sums, const float *const *parts, const long *sizes, long tensors, long count, long threads)
{
#pragma omp parallel num_threads(threads)
    for (long t = 0; t < tensors; t++) {
#pragma omp for schedule(static) nowait
        for (long start = 0; start < sizes[t]; start += BLOCK) {
            long size = sizes[t] - start < BLOCK ? sizes[t] - start : BLOCK;
            float *restrict sum = sums[t] + start;
            for (long k = 0; k < count; k++) {
                const float *restrict part = parts[k * tensors + t] + start;
                for (long i = 0; i < size; i++) sum[i] += part[i];
            }
        }
    }
}

/* All to 0. Of memory that is shared with a forked process a read brings in the pages around it, a write one page. */
void blank(float *const *all, const long *sizes, long count)
{
    for (long t = 0; t < count; t++) {
        for (long i = 0; i < sizes[t]; i += AROUND) (void)*(volatile const float *)(all[t] + i);
        memset(all[t], 0, sizes[t] * sizeof(float));
    }
}

struct moved {
    float *weight, *mean, *square;
    const float *gradient;
    long size;
    float kept, step, root; /* 1 - rate * decay; rate / (1 - beta1^n); sqrt(1 - beta2^n) */
};

/* AdamW (1711.05101) as torch has it: gradients times `share`, moments gathered by `beta1` and `beta2`. */
void adamw(const struct moved *all, long count, float share, double beta1, double beta2, float epsilon, long threads)
{
    float new = 1 - beta1, old_square = beta2, new_square = 1 - beta2;
#pragma omp parallel num_threads(threads)
    for (long t = 0; t < count; t++) {
        struct moved one = all[t];
#pragma omp for schedule(static) nowait
        for (long start = 0; start < one.size; start += BLOCK) {
            long end = start + BLOCK < one.size ? start + BLOCK : one.size;
            float *restrict weight = one.weight, *restrict mean = one.mean, *restrict square = one.square;
            const float *restrict gradient = one.gradient;
            for (long i = start; i < end; i++) {
                float by = gradient[i] * share;
                float m = new < 0.5f ? mean[i] + new * (by - mean[i]) : by + (new - 1) * (by - mean[i]);
                float s = square[i] * old_square + new_square * by * by;
                mean[i] = m;
                square[i] = s;
                weight[i] = weight[i] * one.kept - one.step * m / (sqrtf(s) / one.root + epsilon);
            }
        }
    }
}
