/* cache.cuh - the key-value cache as kernels take it, and rotary positions. */
#ifndef VIBE_CUDA_CACHE_CUH
#define VIBE_CUDA_CACHE_CUH

#include <cuda_bf16.h>

#include "engine/backend/ops.h"

struct cache {
    void *const *table;
    unsigned max_blocks, block_tokens;
    unsigned n_kv_heads, head_dim, layer;
    unsigned chunk; /* positions of a part of attend.cu: divides a block */
};

static inline unsigned chunk_of(const struct vibe_kv *kv)
{
    unsigned chunk = kv->block_tokens < 128 ? (unsigned)kv->block_tokens : 128;

    while (kv->block_tokens % chunk)
        chunk--;
    return chunk;
}

static inline struct cache cache_of(const struct vibe_kv *kv, size_t layer)
{
    struct cache cache = {kv->table,
                          (unsigned)kv->max_blocks,
                          (unsigned)kv->block_tokens,
                          (unsigned)kv->n_kv_heads,
                          (unsigned)kv->head_dim,
                          (unsigned)layer,
                          chunk_of(kv)};

    return cache;
}

/* Query heads that share a KV head. */
static inline unsigned group_of(const struct vibe_tensor *qkv,
                                const struct vibe_kv *kv)
{
    return (unsigned)((qkv->C / kv->head_dim - 2 * kv->n_kv_heads) /
                      kv->n_kv_heads);
}

/* Keys (part 0) or values (1) of a head from position pos on. */
template <typename T>
__device__ static inline T *kv_at(const struct cache &c, int seq, unsigned pos,
                                  unsigned part, unsigned head)
{
    T *block = (T *)c.table[(size_t)seq * c.max_blocks + pos / c.block_tokens];
    const size_t row = ((size_t)(c.layer * 2 + part) * c.n_kv_heads + head) *
                           c.block_tokens +
                       pos % c.block_tokens;

    return block + row * c.head_dim;
}

__device__ static inline void store(float *out, float v)
{
    *out = v;
}

__device__ static inline void store(__nv_bfloat16 *out, float v)
{
    *out = __float2bfloat16(v);
}

/* Sine and cosine of a * b, whose rounding error would be 2e-3 radians at
 * position 60,000: the part that the product loses turns a little further. */
__device__ static inline void turn(float *sine, float *cosine, float a, float b)
{
    const float angle = a * b;
    const float rest = fmaf(a, b, -angle);
    float s, c;

    sincosf(angle, &s, &c);
    *sine = fmaf(rest, c, s);
    *cosine = fmaf(-rest, s, c);
}

#endif /* VIBE_CUDA_CACHE_CUH */
