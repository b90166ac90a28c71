/*
 * Rotary positions and attention over the blocks of a cache.
 *
 * A step of many short rows (T = 1) is split: one block takes CHUNK positions
 * of one sequence and one KV head for all query heads that share it, so keys
 * and values are read once; the block that finishes last adds up the parts in
 * the order of the chunks.  A prompt has rows enough: one block walks through
 * all chunks of its row.  Where a sequence ends is read on the device.
 */
#include <cuda_bf16.h>

#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/reduce.cuh"

enum {
    THREADS = 128,
    CHUNK = 128, /* positions of a part, at most */
    GROUP = 8,   /* query heads that one pass takes */
    LANES = 8,   /* lanes that share a position's dot product */
    PARTS = 2,   /* floats beside the sums of a part: its top and weight */
};

/* A cache as kernels take it. */
struct cache {
    void *const *table;
    unsigned max_blocks, block_tokens;
    unsigned n_kv_heads, head_dim, layer;
    unsigned chunk; /* positions of a part: divides a block */
};

static unsigned chunk_of(const struct vibe_kv *kv)
{
    unsigned chunk = min((unsigned)CHUNK, (unsigned)kv->block_tokens);

    while (kv->block_tokens % chunk)
        chunk--;
    return chunk;
}

static struct cache cache_of(const struct vibe_kv *kv, size_t layer)
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

/* Keys (part 0) or values (1) of a head from position pos on. */
template <typename T>
__device__ static inline T *kv_at(struct cache c, int seq, unsigned pos,
                                  unsigned part, unsigned head)
{
    T *block = (T *)c.table[(size_t)seq * c.max_blocks + pos / c.block_tokens];
    const size_t row = ((size_t)(c.layer * 2 + part) * c.n_kv_heads + head) *
                           c.block_tokens +
                       pos % c.block_tokens;

    return block + row * c.head_dim;
}

__device__ static inline float widen(float v)
{
    return v;
}

__device__ static inline float widen(__nv_bfloat16 v)
{
    return __bfloat162float(v);
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

/* One block per row; a thread rotates pairs (i, i + half) or copies values. */
template <typename T>
__global__ void rope(float *qkv, size_t stride_b, size_t stride_t, unsigned n_t,
                     unsigned n_heads, struct cache cache, const int32_t *seq,
                     const int32_t *pos, const float *inv_freq)
{
    const unsigned b = blockIdx.x / n_t;
    const unsigned t = blockIdx.x % n_t;
    const unsigned hd = cache.head_dim;
    const unsigned half = hd / 2;
    const unsigned n_q = n_heads * half;
    const unsigned n_k = cache.n_kv_heads * half;
    const unsigned at = (unsigned)pos[b] + t;
    float *row = qkv + b * stride_b + t * stride_t;

    for (unsigned i = threadIdx.x; i < n_q + n_k; i += blockDim.x) {
        const unsigned head = i / half;
        const unsigned k = i % half;
        float *x = row + head * hd + k;
        float sine, cosine;
        float lo, hi;

        turn(&sine, &cosine, (float)at, inv_freq[k]);
        lo = x[0] * cosine - x[half] * sine;
        hi = x[half] * cosine + x[0] * sine;
        if (i < n_q) {
            x[0] = lo;
            x[half] = hi;
        } else {
            T *key = kv_at<T>(cache, seq[b], at, 0, head - n_heads);

            store(key + k, lo);
            store(key + k + half, hi);
        }
    }
    for (unsigned i = threadIdx.x; i < 2 * n_k; i += blockDim.x)
        store(kv_at<T>(cache, seq[b], at, 1, i / hd) + i % hd,
              row[(n_heads + cache.n_kv_heads) * hd + i]);
}

cudaError_t vibe_cuda_rope(cudaStream_t stream, const struct vibe_tensor *qkv,
                           const struct vibe_kv *kv, size_t layer,
                           const struct vibe_rows *rows, const float *inv_freq)
{
    const unsigned blocks = (unsigned)(qkv->B * qkv->T);
    const unsigned n_heads = (unsigned)(qkv->C / kv->head_dim -
                                        2 * kv->n_kv_heads);
    const struct cache cache = cache_of(kv, layer);

    if (kv->dtype == VIBE_F32)
        rope<float><<<blocks, 512, 0, stream>>>(
            (float *)qkv->data, qkv->stride_b, qkv->stride_t, (unsigned)qkv->T,
            n_heads, cache, rows->seq, rows->pos, inv_freq);
    else
        rope<__nv_bfloat16><<<blocks, 512, 0, stream>>>(
            (float *)qkv->data, qkv->stride_b, qkv->stride_t, (unsigned)qkv->T,
            n_heads, cache, rows->seq, rows->pos, inv_freq);
    return cudaGetLastError();
}

/* What a block keeps of one chunk, for up to GROUP query heads. */
struct tile {
    float score[GROUP][CHUNK];       /* scores, then weights relative to top */
    float top[GROUP], weight[GROUP]; /* maximum of scores, sum of weights */
};

/* A sum over part of a row's past: weights are relative to top. */
struct partial {
    float top, weight, sum;
};

__device__ static inline struct partial nothing(void)
{
    const struct partial none = {-INFINITY, 0.0f, 0.0f};

    return none;
}

/* Append what comes after; the only way parts are put together, so a row has
 * the same bits however its chunks were shared out. */
__device__ static inline void append(struct partial *all, struct partial next)
{
    const float top = fmaxf(all->top, next.top);
    const float before = expf(all->top - top); /* 0 for nothing */
    const float after = expf(next.top - top);

    all->weight = fmaf(next.weight, after, all->weight * before);
    all->sum = fmaf(next.sum, after, all->sum * before);
    all->top = top;
}

/*
 * Scores of n positions from first on: LANES lanes share a position, each
 * takes every LANES-th channel.  q [n_heads][hd] is in shared memory, scaled.
 */
template <typename T>
__device__ static void score_chunk(struct tile *tile, const float *q,
                                   unsigned n_heads, struct cache cache,
                                   int seq, unsigned head, unsigned first,
                                   unsigned n)
{
    const unsigned hd = cache.head_dim;
    const unsigned lane = threadIdx.x % LANES;
    const T *keys = kv_at<T>(cache, seq, first, 0, head);

    for (unsigned p0 = 0; p0 < n; p0 += THREADS / LANES) {
        const unsigned p = p0 + threadIdx.x / LANES;
        float dot[GROUP] = {0.0f};

        if (p < n)
            for (unsigned c = lane; c < hd; c += LANES) {
                const float k = widen(keys[(size_t)p * hd + c]);

                for (unsigned g = 0; g < GROUP; g++)
                    if (g < n_heads)
                        dot[g] = fmaf(q[g * hd + c], k, dot[g]);
            }
        for (unsigned g = 0; g < GROUP; g++) {
            for (int offset = LANES / 2; offset > 0; offset /= 2)
                dot[g] += __shfl_xor_sync(0xFFFFFFFFu, dot[g], offset);
            if (g < n_heads && p < n && lane == 0)
                tile->score[g][p] = dot[g];
        }
    }
    __syncthreads();
}

/* Turn scores into weights relative to their maximum; warp g does head g,
 * g + n_warps, ... */
__device__ static void soften(struct tile *tile, unsigned n_heads, unsigned n)
{
    const unsigned lane = threadIdx.x % 32;

    for (unsigned g = threadIdx.x / 32; g < n_heads; g += THREADS / 32) {
        float top = -INFINITY;
        float sum = 0.0f;

        for (unsigned p = lane; p < n; p += 32)
            top = fmaxf(top, tile->score[g][p]);
        top = vibe_warp_max(top);
        for (unsigned p = lane; p < n; p += 32) {
            const float e = expf(tile->score[g][p] - top);

            tile->score[g][p] = e;
            sum += e;
        }
        sum = vibe_warp_sum(sum);
        if (lane == 0) {
            tile->top[g] = top;
            tile->weight[g] = sum;
        }
    }
    __syncthreads();
}

/* sum[g] = weights * values of channel c. */
template <typename T>
__device__ static void add_values(float *sum, const struct tile *tile,
                                  unsigned n_heads, struct cache cache, int seq,
                                  unsigned head, unsigned first, unsigned n,
                                  unsigned c)
{
    const unsigned hd = cache.head_dim;
    const T *values = kv_at<T>(cache, seq, first, 1, head) + c;

    for (unsigned g = 0; g < GROUP; g++)
        sum[g] = 0.0f;
    for (unsigned p = 0; p < n; p++) {
        const float v = widen(values[(size_t)p * hd]);

        for (unsigned g = 0; g < GROUP; g++)
            if (g < n_heads)
                sum[g] = fmaf(tile->score[g][p], v, sum[g]);
    }
}

/* q of n_heads heads, scaled by 1 / sqrt(head_dim), to shared memory. */
__device__ static void load_q(float *q, const float *from, unsigned n,
                              float scale)
{
    for (unsigned i = threadIdx.x; i < n; i += THREADS)
        q[i] = from[i] * scale;
    __syncthreads();
}

/*
 * Put the parts of one row and KV head together; heads of the group one after
 * another, one thread per channel.
 */
__device__ static void combine(float *y, const float *parts, unsigned n_parts,
                               size_t part_stride, unsigned n_heads,
                               unsigned hd)
{
    for (unsigned i = threadIdx.x; i < n_heads * hd; i += THREADS) {
        const float *part = parts + (size_t)(i / hd) * (hd + PARTS);
        struct partial all = nothing();

        for (unsigned k = 0; k < n_parts; k++, part += part_stride) {
            const struct partial next = {part[hd], part[hd + 1], part[i % hd]};

            append(&all, next);
        }
        y[i] = all.sum / all.weight;
    }
}

/* Whether this block is the last of n to arrive; resets the counter. */
__device__ static bool is_last(unsigned *done, unsigned n)
{
    __shared__ bool last;

    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        last = atomicAdd(done, 1) == n - 1;
        if (last)
            *done = 0;
    }
    __syncthreads();
    __threadfence();
    return last;
}

/*
 * Split attention: grid (chunk slots, KV heads, rows).  Shared memory holds q
 * of the group, scores and nothing else; bound by reading keys and values.
 */
template <typename T>
__global__ void attention_split(float *y, size_t y_stride, const float *qkv,
                                size_t qkv_stride, unsigned group,
                                struct cache cache, const int32_t *seq,
                                const int32_t *pos, float scale, float *parts,
                                unsigned max_chunks, unsigned *done)
{
    extern __shared__ float q[];
    __shared__ struct tile tile;
    const unsigned hd = cache.head_dim;
    const unsigned head = blockIdx.y;
    const unsigned row = blockIdx.z;
    const unsigned length = (unsigned)pos[row] + 1;
    const unsigned n_chunks = (length + cache.chunk - 1) / cache.chunk;
    const size_t part_stride = (size_t)group * (hd + PARTS);
    float *mine = parts + ((size_t)row * cache.n_kv_heads + head) * max_chunks *
                              part_stride;

    if (blockIdx.x >= n_chunks)
        return;
    load_q(q, qkv + row * qkv_stride + head * group * hd, group * hd, scale);
    for (unsigned k = blockIdx.x; k < n_chunks; k += gridDim.x) {
        const unsigned first = k * cache.chunk;
        const unsigned n = min(cache.chunk, length - first);
        float *part = mine + k * part_stride;

        for (unsigned g0 = 0; g0 < group; g0 += GROUP) {
            const unsigned n_heads = min(GROUP, group - g0);

            score_chunk<T>(&tile, q + g0 * hd, n_heads, cache, seq[row], head,
                           first, n);
            soften(&tile, n_heads, n);
            for (unsigned c = threadIdx.x; c < hd; c += THREADS) {
                float sum[GROUP];

                add_values<T>(sum, &tile, n_heads, cache, seq[row], head, first,
                              n, c);
                for (unsigned g = 0; g < n_heads; g++)
                    part[(g0 + g) * (hd + PARTS) + c] = sum[g];
            }
            if (threadIdx.x < n_heads) {
                float *end = part + (g0 + threadIdx.x) * (hd + PARTS) + hd;

                end[0] = tile.top[threadIdx.x];
                end[1] = tile.weight[threadIdx.x];
            }
            __syncthreads();
        }
    }
    if (is_last(done + row * cache.n_kv_heads + head, min(n_chunks, gridDim.x)))
        combine(y + row * y_stride + head * group * hd, mine, n_chunks,
                part_stride, group, hd);
}

/* A prompt: grid (rows, KV heads); a block walks through its row's past. */
template <typename T>
__global__ void attention_walk(float *y, size_t y_stride_b, size_t y_stride_t,
                               const float *qkv, size_t stride_b,
                               size_t stride_t, unsigned n_t, unsigned group,
                               struct cache cache, const int32_t *seq,
                               const int32_t *pos, float scale)
{
    extern __shared__ float q[];
    __shared__ struct tile tile;
    const unsigned hd = cache.head_dim;
    const unsigned head = blockIdx.y;
    const unsigned b = blockIdx.x / n_t;
    const unsigned t = blockIdx.x % n_t;
    const unsigned length = (unsigned)pos[b] + t + 1;
    float *out = y + b * y_stride_b + t * y_stride_t + head * group * hd;

    load_q(q, qkv + b * stride_b + t * stride_t + head * group * hd, group * hd,
           scale);
    for (unsigned g0 = 0; g0 < group; g0 += GROUP) {
        const unsigned n_heads = min(GROUP, group - g0);

        /* one channel per thread in each round; wide heads take more */
        for (unsigned c0 = 0; c0 < hd; c0 += THREADS) {
            const unsigned c = c0 + threadIdx.x;
            struct partial all[GROUP];

            for (unsigned g = 0; g < GROUP; g++)
                all[g] = nothing();
            for (unsigned first = 0; first < length; first += cache.chunk) {
                const unsigned n = min(cache.chunk, length - first);
                float sum[GROUP] = {0.0f};

                score_chunk<T>(&tile, q + g0 * hd, n_heads, cache, seq[b], head,
                               first, n);
                soften(&tile, n_heads, n);
                if (c < hd)
                    add_values<T>(sum, &tile, n_heads, cache, seq[b], head,
                                  first, n, c);
                for (unsigned g = 0; g < GROUP; g++)
                    if (g < n_heads) {
                        const struct partial next = {tile.top[g],
                                                     tile.weight[g], sum[g]};

                        append(&all[g], next);
                    }
                __syncthreads();
            }
            for (unsigned g = 0; g < GROUP; g++)
                if (g < n_heads && c < hd)
                    out[(g0 + g) * hd + c] = all[g].sum / all[g].weight;
        }
    }
}

static unsigned chunks_of(const struct vibe_kv *kv)
{
    return (unsigned)(kv->max_blocks * kv->block_tokens) / chunk_of(kv);
}

static unsigned group_of(const struct vibe_tensor *qkv,
                         const struct vibe_kv *kv)
{
    return (unsigned)((qkv->C / kv->head_dim - 2 * kv->n_kv_heads) /
                      kv->n_kv_heads);
}

size_t vibe_cuda_attention_scratch(const struct vibe_tensor *qkv,
                                   const struct vibe_kv *kv)
{
    if (qkv->T > 1)
        return 0;
    return qkv->B * kv->n_kv_heads * chunks_of(kv) * group_of(qkv, kv) *
           (kv->head_dim + PARTS) * sizeof(float);
}

template <typename T>
static void launch(cudaStream_t stream, const struct vibe_tensor *y,
                   const struct vibe_tensor *qkv, const struct vibe_kv *kv,
                   size_t layer, const struct vibe_rows *rows, float *scratch,
                   unsigned *done, int n_sm)
{
    const unsigned group = group_of(qkv, kv);
    const unsigned heads = (unsigned)kv->n_kv_heads;
    const unsigned n_rows = (unsigned)(qkv->B * qkv->T);
    const size_t shared = group * kv->head_dim * sizeof(float);
    const float scale = 1.0f / sqrtf((float)kv->head_dim);

    if (qkv->T > 1) {
        attention_walk<T><<<dim3(n_rows, heads), THREADS, shared, stream>>>(
            (float *)y->data, y->stride_b, y->stride_t,
            (const float *)qkv->data, qkv->stride_b, qkv->stride_t,
            (unsigned)qkv->T, group, cache_of(kv, layer), rows->seq, rows->pos,
            scale);
    } else {
        const unsigned chunks = chunks_of(kv);
        const unsigned slots = min(
            chunks, max(4u, 4u * (unsigned)n_sm / (n_rows * heads)));

        attention_split<T>
            <<<dim3(slots, heads, n_rows), THREADS, shared, stream>>>(
                (float *)y->data, y->stride_b, (const float *)qkv->data,
                qkv->stride_b, group, cache_of(kv, layer), rows->seq, rows->pos,
                scale, scratch, chunks, done);
    }
}

cudaError_t vibe_cuda_attention(cudaStream_t stream,
                                const struct vibe_tensor *y,
                                const struct vibe_tensor *qkv,
                                const struct vibe_kv *kv, size_t layer,
                                const struct vibe_rows *rows, float *scratch,
                                unsigned *done, int n_sm)
{
    if (kv->dtype == VIBE_F32)
        launch<float>(stream, y, qkv, kv, layer, rows, scratch, done, n_sm);
    else
        launch<__nv_bfloat16>(stream, y, qkv, kv, layer, rows, scratch, done,
                              n_sm);
    return cudaGetLastError();
}
