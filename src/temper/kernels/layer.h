/* A Llama-like layer: where its weights lie, [out, in], and its numbers. */
#ifndef LAYER
#define LAYER
struct layer {
    const float *before_attention, *query, *query_bias, *key, *key_bias, *value, *value_bias, *query_norm, *key_norm;
    const float *out, *out_bias, *after_attention, *before_mlp, *gate, *gate_bias, *up, *up_bias, *down, *down_bias;
    const float *after_mlp, *cosine, *sine; /* cosine, sine: [positions, size]; what is not there is NULL */
    long window, inner;                     /* window 0: none */
    float scale, softcap, eps, head_eps, a, b;
};
#endif
