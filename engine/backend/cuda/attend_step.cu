/*
 * attend_step.cu - one new row of each sequence, on tensor cores: its rotary
 * position, its place in the cache, and attention to its past.
 *
 * A past is cut into parts by its length alone.  A block takes one part of one
 * KV head for all query heads that share it; its warps take tiles of 16
 * positions in turns, each with sums of its own, and need nothing of each
 * other until the end.  The block that finishes last puts the parts together.
 *
 * Nothing but the row itself is new: tiles are on their way before the kernel
 * ahead has ended.  Bound by reading keys and values; a short past by the
 * latency of what follows one another.
 */
#include "engine/backend/cuda/attend_tiles.cuh"
#include "engine/backend/cuda/device.h"
#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/reduce.cuh"

enum {
    WARPS = 8,
    THREADS = 32 * WARPS,
    TILE = 16,                    /* positions */
    HEADS = VIBE_CUDA_STEP_HEADS, /* query heads of a KV head, at most */
    PART = 128,     /* positions of a part, unless they are many */
    FLIGHT = 12,    /* of them, read at once */
    MAX_PARTS = 24, /* more take longer to put together */
    MAX_STAGES = 3, /* tiles of a warp that are held, where they fit */
};

static_assert(WARPS == HEADS, "a warp finishes a head");

struct step {
    struct cache cache;
    const float *qkv;
    float *y;
    size_t qkv_stride, y_stride; /* from row to row */
    bool is_split;               /* of y, see split.cuh */
    const int32_t *seq, *pos;
    const float *inv_freq;
    float scale; /* log2(e) / sqrt(head_dim) */
    unsigned group, n_stages;
    float *parts;   /* [B][n_kv_heads][gridDim.z] of them */
    unsigned *done; /* [B][n_kv_heads] */
};

/* What the warps of a block, or the parts of a past, add up to: for each head
 * a weighted sum of values, and top and weight of its scores. */
template <unsigned HD> struct partial {
    float sum[HEADS][HD + 4]; /* rows meet different banks */
    float top[HEADS], weight[HEADS];
};

#if __CUDA_ARCH__ >= 800

/* A warp's view: queries are columns lane / 4 of mma's b, scores and sums have
 * positions and channels as rows and queries 2 * (lane % 4), + 1 as columns. */
template <unsigned HD> struct queries {
    unsigned high[HD / 16][2], low[HD / 16][2];
    float sum[HD / 16][4];
    float top[2], weight[2];
};

/* Cosine and sine of every frequency at the row's position. */
template <unsigned HD>
__device__ static inline void make_turns(float2 *turns, const struct step &a,
                                         unsigned pos)
{
    const unsigned i = threadIdx.x;

    if (i < HD / 2)
        turn(&turns[i].y, &turns[i].x, (float)pos, a.inv_freq[i]);
}

/* The new key, rotated, and value: to the cache and to fresh. */
template <unsigned HD>
__device__ static inline void store_newest(__nv_bfloat16 (*fresh)[HD],
                                           const struct step &a,
                                           const float *row,
                                           const float2 *turns, int seq,
                                           unsigned pos, unsigned head)
{
    const unsigned n_heads = a.group * a.cache.n_kv_heads;
    const float *key = row + (n_heads + head) * HD;
    const float *value = key + a.cache.n_kv_heads * HD;
    const unsigned i = threadIdx.x;

    if (i < HD / 2) {
        const float lo = key[i], hi = key[i + HD / 2];

        fresh[0][i] = __float2bfloat16(lo * turns[i].x - hi * turns[i].y);
        fresh[0][i + HD / 2] = __float2bfloat16(hi * turns[i].x +
                                                lo * turns[i].y);
    } else if (i >= THREADS / 2 && i < THREADS / 2 + HD) {
        fresh[1][i - THREADS / 2] = __float2bfloat16(value[i - THREADS / 2]);
    }
    __syncthreads();
    if (i < 2 * HD / 8)
        *((uint4 *)kv_at<__nv_bfloat16>(a.cache, seq, pos, i / (HD / 8), head) +
          i % (HD / 8)) = ((const uint4 *)fresh)[i];
}

/* Rotate and scale the query of this lane, zeros past the group. */
template <unsigned HD>
__device__ static inline void load_q(queries<HD> &q, const struct step &a,
                                     const float *row, const float2 *turns,
                                     unsigned head)
{
    const unsigned lane = threadIdx.x % 32;
    const bool is_there = lane / 4 < a.group;
    const float *from = row + (head * a.group + (is_there ? lane / 4 : 0)) * HD;

#pragma unroll
    for (unsigned k = 0; k < HD / 32; k++)
#pragma unroll
        for (unsigned i = 0; i < 2; i++) {
            const unsigned c = k * 16 + i * 8 + lane % 4 * 2;
            const float2 lo = *(const float2 *)(from + c);
            const float2 hi = *(const float2 *)(from + c + HD / 2);
            const float2 t0 = turns[c], t1 = turns[c + 1];
            const float scale = is_there ? a.scale : 0.0f;

            split(q.high[k][i], q.low[k][i],
                  make_float2((lo.x * t0.x - hi.x * t0.y) * scale,
                              (lo.y * t1.x - hi.y * t1.y) * scale));
            split(q.high[k + HD / 32][i], q.low[k + HD / 32][i],
                  make_float2((hi.x * t0.x + lo.x * t0.y) * scale,
                              (hi.y * t1.x + lo.y * t1.y) * scale));
        }
#pragma unroll
    for (unsigned k = 0; k < HD / 16; k++)
#pragma unroll
        for (unsigned i = 0; i < 4; i++)
            q.sum[k][i] = 0.0f;
    q.top[0] = q.top[1] = -INFINITY;
    q.weight[0] = q.weight[1] = 0.0f;
}

/* Over the lanes that have the same columns. */
__device__ static inline float column_max(float v)
{
    for (int offset = 4; offset < 32; offset *= 2)
        v = fmaxf(v, __shfl_xor_sync(0xFFFFFFFFu, v, offset));
    return v;
}

__device__ static inline float column_sum(float v)
{
    for (int offset = 4; offset < 32; offset *= 2)
        v += __shfl_xor_sync(0xFFFFFFFFu, v, offset);
    return v;
}

template <unsigned HD>
__device__ static inline void score(float (&s)[4], const queries<HD> &q,
                                    __nv_bfloat16 *keys)
{
    const unsigned lane = threadIdx.x % 32;
    float sums[4][4] = {}; /* chains that do not wait for each other */

#pragma unroll
    for (unsigned k = 0; k < HD / 16; k++) {
        unsigned m[4];

        load_matrices(m, piece<HD>(keys, lane % 16, 2 * k + lane / 16));
        multiply(sums[k % 2], m, q.high[k]);
        multiply(sums[2 + k % 2], m, q.low[k]);
    }
#pragma unroll
    for (unsigned i = 0; i < 4; i++)
        s[i] = (sums[0][i] + sums[1][i]) + (sums[2][i] + sums[3][i]);
}

/* Add a tile of which n positions are seen. */
template <unsigned HD>
__device__ static inline void add_tile(queries<HD> &q, __nv_bfloat16 *keys,
                                       __nv_bfloat16 *values, unsigned n)
{
    const unsigned lane = threadIdx.x % 32;
    unsigned high[2], low[2];
    float s[4], factor[2];

    score<HD>(s, q, keys);
#pragma unroll
    for (unsigned e = 0; e < 2; e++) {
        float &v = s[e], &w = s[2 + e];
        float top;

        if (lane / 4 >= n)
            v = -INFINITY;
        if (lane / 4 + 8 >= n)
            w = -INFINITY;
        top = fmaxf(q.top[e], column_max(fmaxf(v, w)));
        factor[e] = exp2f(q.top[e] - top); /* 0 at first */
        q.top[e] = top;
        v = exp2f(v - top);
        w = exp2f(w - top);
        q.weight[e] = fmaf(q.weight[e], factor[e], v + w);
    }
    split(high[0], low[0], make_float2(s[0], s[1]));
    split(high[1], low[1], make_float2(s[2], s[3]));
#pragma unroll
    for (unsigned i = 0; i < 2; i++) {
        high[i] = transposed(high[i]);
        low[i] = transposed(low[i]);
    }
#pragma unroll
    for (unsigned k = 0; k < HD / 16; k++) {
        unsigned m[4];

        load_transposed(m, piece<HD>(values, lane / 16 * 8 + lane % 8,
                                     2 * k + lane / 8 % 2));
#pragma unroll
        for (unsigned i = 0; i < 4; i++)
            q.sum[k][i] *= factor[i % 2];
        multiply(q.sum[k], m, high);
        multiply(q.sum[k], m, low);
    }
}

template <unsigned HD>
__device__ static inline void leave(partial<HD> *to, const queries<HD> &q)
{
    const unsigned lane = threadIdx.x % 32;

#pragma unroll
    for (unsigned e = 0; e < 2; e++) {
        const unsigned head = lane % 4 * 2 + e;
        const float weight = column_sum(q.weight[e]);

#pragma unroll
        for (unsigned k = 0; k < HD / 16; k++) {
            to->sum[head][k * 16 + lane / 4] = q.sum[k][e];
            to->sum[head][k * 16 + lane / 4 + 8] = q.sum[k][2 + e];
        }
        if (lane < 4) {
            to->top[head] = q.top[e];
            to->weight[head] = weight;
        }
    }
}

/* Put n partials of a head together: a warp, four channels a lane.  Lane i
 * knows the factor of partial i. */
template <unsigned HD>
__device__ static inline float4 merge(const partial<HD> *from, unsigned n,
                                      unsigned head, float *top, float *weight)
{
    const unsigned lane = threadIdx.x % 32;
    const unsigned c = lane * 4 % HD;
    const partial<HD> *mine = &from[min(lane, n - 1)];
    const float next = lane < n ? __ldcg(&mine->top[head]) : -INFINITY;
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    float factor;

    static_assert(MAX_PARTS <= 32, "a lane for each");
    *top = vibe_warp_max(next);
    factor = exp2f(next - *top);
    *weight = vibe_warp_sum(factor * __ldcg(&mine->weight[head]));
    for (unsigned k0 = 0; k0 < n; k0 += FLIGHT) {
        float4 v[FLIGHT];

#pragma unroll
        for (unsigned k = 0; k < FLIGHT; k++) /* the last one stands in */
            v[k] = __ldcg(
                (const float4 *)&from[min(k0 + k, n - 1)].sum[head][c]);
#pragma unroll
        for (unsigned k = 0; k < FLIGHT; k++) {
            /* 0 past the last: no lane below 32 has more */
            const float f = __shfl_sync(0xFFFFFFFFu, factor, k0 + k);

            sum.x = fmaf(v[k].x, f, sum.x);
            sum.y = fmaf(v[k].y, f, sum.y);
            sum.z = fmaf(v[k].z, f, sum.z);
            sum.w = fmaf(v[k].w, f, sum.w);
        }
    }
    return sum;
}

/* The same of what the warps have left, which is in shared memory. */
template <unsigned HD>
__device__ static inline float4 merge_warps(const partial<HD> *from,
                                            unsigned head, float *top,
                                            float *weight)
{
    const unsigned c = threadIdx.x % 32 * 4 % HD;
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);

    *top = -INFINITY;
    *weight = 0.0f;
#pragma unroll
    for (unsigned k = 0; k < WARPS; k++)
        *top = fmaxf(*top, from[k].top[head]);
#pragma unroll
    for (unsigned k = 0; k < WARPS; k++) {
        const float4 v = *(const float4 *)&from[k].sum[head][c];
        const float f = exp2f(from[k].top[head] - *top);

        *weight = fmaf(from[k].weight[head], f, *weight);
        sum.x = fmaf(v.x, f, sum.x);
        sum.y = fmaf(v.y, f, sum.y);
        sum.z = fmaf(v.z, f, sum.z);
        sum.w = fmaf(v.w, f, sum.w);
    }
    return sum;
}

__device__ static inline void finish(float *y, float4 sum, float weight,
                                     bool is_split)
{
    *(float4 *)y = kept(make_float4(sum.x / weight, sum.y / weight,
                                    sum.z / weight, sum.w / weight),
                        is_split);
}

/* Tiles of a part, and where a warp keeps those that it is working on. */
template <unsigned HD> struct walk {
    int seq;
    unsigned head, pos;  /* of the newest position */
    unsigned end;        /* of the part, in tiles */
    __nv_bfloat16 *ring; /* [n_stages][2][TILE][HD] */
};

template <unsigned HD>
__device__ static inline void fetch(const struct step &a, const walk<HD> &w,
                                    unsigned tile, unsigned stage)
{
    const size_t values = (size_t)a.cache.n_kv_heads * a.cache.block_tokens *
                          HD; /* behind keys */

    if (tile < w.end) {
        const __nv_bfloat16 *rows = kv_at<__nv_bfloat16>(
            a.cache, w.seq, tile * TILE, 0, w.head);
        const int n = (int)w.pos - (int)(tile * TILE);

        for (unsigned part = 0; part < 2; part++)
            fetch_rows<HD, TILE>(w.ring + (stage * 2 + part) * TILE * HD,
                                 rows + part * values, n, threadIdx.x % 32, 32);
    }
    copies_end();
}

/* Wait for the oldest of n tiles. */
__device__ static inline void wait_for_tile(unsigned n)
{
    static_assert(MAX_STAGES == 3, "cases of n");
    if (n == 3)
        copies_wait<2>();
    else if (n == 2)
        copies_wait<1>();
    else
        copies_wait<0>();
    __syncwarp();
}

/* Add the tiles from first on, every WARPS-th, fetched as far as the ring
 * goes; fresh is the newest position's. */
template <unsigned HD>
__device__ static inline void add_tiles(queries<HD> &q, const struct step &a,
                                        const walk<HD> &w, unsigned first,
                                        const __nv_bfloat16 (*fresh)[HD])
{
    const unsigned lane = threadIdx.x % 32;
    unsigned stage = 0;

    for (unsigned tile = first; tile < w.end; tile += WARPS) {
        __nv_bfloat16 *keys = w.ring + stage * 2 * TILE * HD;
        __nv_bfloat16 *values = keys + TILE * HD;

        wait_for_tile(a.n_stages);
        if (tile == w.pos / TILE && lane < HD / 8) {
            *(uint4 *)piece<HD>(keys, w.pos % TILE,
                                lane) = ((const uint4 *)fresh[0])[lane];
            *(uint4 *)piece<HD>(values, w.pos % TILE,
                                lane) = ((const uint4 *)fresh[1])[lane];
        }
        __syncwarp();
        add_tile<HD>(q, keys, values, w.pos + 1 - tile * TILE);
        __syncwarp();
        fetch<HD>(a, w, tile + a.n_stages * WARPS, stage);
        stage = stage + 1 < a.n_stages ? stage + 1 : 0;
    }
    copies_wait<0>();
}

#endif

/* Grid (KV heads, B, parts), of which a short past leaves most alone. */
template <unsigned HD>
__global__ __launch_bounds__(THREADS) void step_kernel(
    const __grid_constant__ struct step a)
{
#if __CUDA_ARCH__ >= 800
    extern __shared__ uint4 ring[];
    __shared__ float2 turns[HD / 2];
    __shared__ __align__(16) __nv_bfloat16 fresh[2][HD];
    const unsigned warp = threadIdx.x / 32;
    const unsigned head = blockIdx.x;
    const unsigned b = blockIdx.y;
    const unsigned pos = (unsigned)a.pos[b];
    const unsigned n_tiles = pos / TILE + 1;
    const unsigned n_parts = min(gridDim.z, pos / PART + 1);
    const unsigned first = blockIdx.z * n_tiles / n_parts + warp;
    const walk<HD> w = {
        a.seq[b], head, pos, (blockIdx.z + 1) * n_tiles / n_parts,
        (__nv_bfloat16 *)ring + warp * a.n_stages * 2 * TILE * HD};
    const float *row = a.qkv + b * a.qkv_stride;
    float *y = a.y + b * a.y_stride + (head * a.group + warp) * HD +
               threadIdx.x % 32 * 4 % HD;
    const size_t at = (size_t)b * gridDim.x + head;
    partial<HD> *left = (partial<HD> *)ring;
    partial<HD> *parts = (partial<HD> *)a.parts + at * gridDim.z;
    queries<HD> q;
    float4 sum;
    float top, weight;

    let_next_start();
    if (blockIdx.z >= n_parts)
        return;
    for (unsigned i = 0; i < a.n_stages; i++)
        fetch<HD>(a, w, first + i * WARPS, i);
    make_turns<HD>(turns, a, pos);
    wait_for_inputs();
    __syncthreads();
    load_q<HD>(q, a, row, turns, head);
    if (blockIdx.z == n_parts - 1)
        store_newest<HD>(fresh, a, row, turns, w.seq, pos, head);
    add_tiles<HD>(q, a, w, first, fresh);

    __syncthreads(); /* the ring becomes what the warps leave */
    leave<HD>(&left[warp], q);
    __syncthreads();
    sum = merge_warps<HD>(left, warp, &top, &weight);
    if (n_parts == 1) {
        if (warp < a.group && threadIdx.x % 32 < HD / 4)
            finish(y, sum, weight, a.is_split);
        return;
    }
    if (threadIdx.x % 32 < HD / 4)
        *(float4 *)&parts[blockIdx.z].sum[warp][threadIdx.x % 32 * 4] = sum;
    parts[blockIdx.z].top[warp] = top;
    parts[blockIdx.z].weight[warp] = weight;
    if (!vibe_is_last_block(a.done + at, n_parts))
        return;
    sum = merge<HD>(parts, n_parts, warp, &top, &weight);
    if (warp < a.group && threadIdx.x % 32 < HD / 4)
        finish(y, sum, weight, a.is_split);
#endif
}

/* As many parts as keep all multiprocessors busy with one row. */
static unsigned parts_of(const struct vibe_cuda *cuda, const struct vibe_kv *kv)
{
    const unsigned n = (unsigned)cuda->n_sm / (unsigned)kv->n_kv_heads;
    const unsigned most = (unsigned)(kv->max_blocks * kv->block_tokens) / PART;

    return max(1u, min(min(n, (unsigned)MAX_PARTS), most));
}

size_t vibe_cuda_attend_step_scratch(const struct vibe_cuda *cuda,
                                     const struct vibe_tensor *qkv,
                                     const struct vibe_kv *kv)
{
    return qkv->B * kv->n_kv_heads * parts_of(cuda, kv) *
           (kv->head_dim == 64 ? sizeof(struct partial<64>)
                               : sizeof(struct partial<128>));
}

template <unsigned HD>
static cudaError_t launch_step(const struct vibe_cuda *cuda, struct step *a,
                               dim3 grid)
{
    const size_t stage = WARPS * 2 * TILE * HD * sizeof(__nv_bfloat16);
    const size_t spare = 4 << 10; /* for static shared memory */
    size_t shared;
    int room = 0;
    cudaError_t rc = cudaDeviceGetAttribute(
        &room, cudaDevAttrMaxSharedMemoryPerBlockOptin, cuda->device);

    static_assert(sizeof(struct partial<HD>) * WARPS <=
                      WARPS * 2 * TILE * HD * sizeof(__nv_bfloat16),
                  "what the warps leave");
    a->n_stages = MAX_STAGES;
    while (a->n_stages > 1 && a->n_stages * stage + spare > (size_t)room)
        a->n_stages--;
    shared = a->n_stages * stage;
    if (rc == cudaSuccess)
        rc = cudaFuncSetAttribute((const void *)step_kernel<HD>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  (int)shared);
    if (rc != cudaSuccess)
        return rc;
    return launch_waiting((const void *)step_kernel<HD>, grid, THREADS, shared,
                          cuda->compute, a);
}

cudaError_t vibe_cuda_attend_step(const struct vibe_cuda *cuda,
                                  const struct vibe_tensor *y,
                                  const struct vibe_tensor *qkv,
                                  const struct vibe_kv *kv, size_t layer,
                                  const struct vibe_rows *rows,
                                  const float *inv_freq, float *scratch)
{
    const dim3 grid((unsigned)kv->n_kv_heads, (unsigned)qkv->B,
                    parts_of(cuda, kv));
    struct step a = {cache_of(kv, layer),
                     (const float *)qkv->data,
                     (float *)y->data,
                     qkv->stride_b,
                     y->stride_b,
                     y->is_for_products != 0,
                     rows->seq,
                     rows->pos,
                     inv_freq,
                     1.44269504f / sqrtf((float)kv->head_dim),
                     group_of(qkv, kv),
                     1,
                     scratch,
                     cuda->done};

    if (kv->head_dim == 64)
        return launch_step<64>(cuda, &a, grid);
    return launch_step<128>(cuda, &a, grid);
}
