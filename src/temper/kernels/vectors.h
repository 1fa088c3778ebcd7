/* Vectors as wide as the processor's registers. */
#ifndef VECTORS
#define VECTORS
#include "exponential.h"

#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif

#define LINE 16 /* floats of a cache line */

typedef float vector __attribute__((vector_size(LANES * 4), aligned(4)));
typedef int lanes __attribute__((vector_size(LANES * 4)));
#define INLINE static inline __attribute__((always_inline))
#endif
