/* cache.cuh - the key-value cache as kernels take it, and rotary positions. */
#ifndef VIBE_CUDA_CACHE_CUH
#define VIBE_CUDA_CACHE_CUH

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include "engine/backend/ops.h"
#include "engine/base/float8.h"

typedef __nv_fp8_storage_t e4m3; /* a byte */

template <typename T> constexpr bool is_f8 = false;
template <> constexpr bool is_f8<e4m3> = true;

struct cache {
    void *const *table;
    unsigned max_blocks, block_tokens;
    unsigned n_kv_heads, head_dim, layer;
    unsigned block_log; /* of block_tokens, where it is a power of two */
    unsigned chunk;     /* positions of a part of attend.cu: divides a block */
    size_t head_bytes;  /* of the keys or values of a head in a block */
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
                          (unsigned)__builtin_ctzll(kv->block_tokens),
                          chunk_of(kv),
                          vibe_kv_head_bytes(kv)};

    return cache;
}

/* Query heads that share a KV head. */
static inline unsigned group_of(const struct vibe_tensor *qkv,
                                const struct vibe_kv *kv)
{
    return (unsigned)((qkv->C / kv->head_dim - 2 * kv->n_kv_heads) /
                      kv->n_kv_heads);
}

/* Keys (part 0) or values (1) of a head in the block of position pos. */
__device__ static inline char *part_at(const struct cache &c, int seq,
                                       unsigned pos, unsigned part,
                                       unsigned head)
{
    char *block = (char *)c
                      .table[(size_t)seq * c.max_blocks + pos / c.block_tokens];

    return block +
           ((size_t)(c.layer * 2 + part) * c.n_kv_heads + head) * c.head_bytes;
}

/* The same from position pos on. */
template <typename T>
__device__ static inline T *kv_at(const struct cache &c, int seq, unsigned pos,
                                  unsigned part, unsigned head)
{
    return (T *)part_at(c, seq, pos, part, head) +
           pos % c.block_tokens * c.head_dim;
}

/* The exponents of e4m3 rows from position pos on. */
__device__ static inline unsigned char *exponents_at(const struct cache &c,
                                                     int seq, unsigned pos,
                                                     unsigned part,
                                                     unsigned head)
{
    return (unsigned char *)part_at(c, seq, pos, part, head) +
           c.block_tokens * c.head_dim + pos % c.block_tokens;
}

__device__ static inline void store(float *out, float v)
{
    *out = v;
}

__device__ static inline void store(__nv_bfloat16 *out, float v)
{
    *out = __float2bfloat16(v);
}

/* 2 ^ (exponent - 127). */
__device__ static inline float power_of_two(unsigned exponent)
{
    return __uint_as_float(exponent << 23);
}

/* vibe_f8_exponent, and a number as its row keeps it. */
__device__ static inline unsigned exponent_of(float top)
{
    const unsigned e = (__float_as_uint(top) + 0x1FFFFF) >> 23;

    return min(max(e, VIBE_F8_LEAST + 8u) - 8, (unsigned)VIBE_F8_MOST);
}

__device__ static inline e4m3 to_e4m3(float v, unsigned exponent)
{
    return __nv_cvt_float_to_fp8(v * power_of_two(254 - exponent),
                                 __NV_SATFINITE, __NV_E4M3);
}

/* vibe_f8_row by a warp. */
__device__ static inline void store_row(e4m3 *codes, unsigned char *exponent,
                                        const float *in, unsigned n)
{
    float top = 0.0f;
    unsigned e;

    for (unsigned i = threadIdx.x % 32; i < n; i += 32)
        top = fmaxf(top, fabsf(in[i]));
    for (int offset = 16; offset > 0; offset /= 2)
        top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, offset));
    e = exponent_of(top);
    for (unsigned i = threadIdx.x % 32; i < n; i += 32)
        codes[i] = to_e4m3(in[i], e);
    if (threadIdx.x % 32 == 0)
        *exponent = (unsigned char)e;
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
