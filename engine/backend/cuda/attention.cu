/*
 * Rotary positions and attention over the blocks of a cache.
 *
 * A past is taken in chunks that do not depend on who asks: a chunk gives each
 * query its top score, the sum of its weights and the weighted sum of values;
 * chunks are put together one after another.  A step of many short rows
 * (T = 1) is split: one block takes a chunk of one sequence and one KV head for
 * all query heads that share it, and the block that finishes last puts the
 * parts together.  In a prompt one block walks through the past of a few
 * consecutive rows.  Both do the same arithmetic, so a row has the same bits
 * either way.  Where a sequence ends is read on the device.
 */
#include <cuda_bf16.h>

#include "engine/backend/cuda/kernels.h"
#include "engine/backend/cuda/reduce.cuh"

enum {
    THREADS = 256,
    WARPS = THREADS / 32,
    CHUNK = 128,             /* positions of a part, at most */
    LANES = 8,               /* lanes that share a position's dot product */
    SLOTS = THREADS / LANES, /* positions of a round */
    ROUNDS = CHUNK / SLOTS,
    TILE = LANES,  /* queries of a pass: each lane ends up with one of them */
    BATCH = 32,    /* queries whose weights fit a block */
    HALF = 4,      /* queries whose sums are exchanged at once */
    REGION = 4096, /* floats of dynamic shared memory, at least */
    PIECE = 128,   /* parts that are put together at once */
    FLIGHT = 8,    /* reads of parts in flight */
};

static_assert(HALF * THREADS * 4 <= REGION, "sums of a block");
static_assert(TILE * PIECE * 4 <= REGION, "factors of a piece");
static_assert(WARPS == TILE, "a warp for the factors of each head");

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

/* Load 4 channels or 1. */
__device__ static inline void read(float (&to)[4], const float *from)
{
    const float4 v = *(const float4 *)from;

    to[0] = v.x;
    to[1] = v.y;
    to[2] = v.z;
    to[3] = v.w;
}

__device__ static inline void read(float (&to)[4], const __nv_bfloat16 *from)
{
    const uint2 v = *(const uint2 *)from;

    to[0] = __uint_as_float(v.x << 16);
    to[1] = __uint_as_float(v.x & 0xFFFF0000u);
    to[2] = __uint_as_float(v.y << 16);
    to[3] = __uint_as_float(v.y & 0xFFFF0000u);
}

template <typename T>
__device__ static inline void read(float (&to)[1], const T *from)
{
    to[0] = widen(*from);
}

/* Load what another block has written: past the cache that may be stale. */
__device__ static inline void read_fresh(float (&to)[4], const float *from)
{
    const float4 v = __ldcg((const float4 *)from);

    to[0] = v.x;
    to[1] = v.y;
    to[2] = v.z;
    to[3] = v.w;
}

__device__ static inline void read_fresh(float (&to)[1], const float *from)
{
    to[0] = __ldcg(from);
}

/* Queries of one KV head: query i is head i % group of row i / group. */
struct queries {
    const float *q;
    float *y; /* not where q is: q is read again after y is begun */
    size_t q_stride, y_stride; /* between rows */
    unsigned n, group;
    unsigned length; /* positions that row 0 sees; row r sees r more */
    float scale;
    int seq;
    unsigned head; /* KV head */
};

/* What a block keeps of one chunk, for up to BATCH queries. */
struct tiles {
    float4 weight[BATCH / TILE][CHUNK][TILE / 4]; /* relative to top */
    float top[BATCH / TILE][WARPS][TILE];         /* of each warp's scores */
    float sum[BATCH / TILE][WARPS][TILE];         /* of each warp's weights */
    float before[BATCH], after[BATCH];       /* factors that append the chunk */
    float all_top[BATCH], all_weight[BATCH]; /* of the chunks so far */
    float *out[BATCH];  /* where sums go: a part or y; NULL when unseen */
    bool is_end[BATCH]; /* no chunk comes after for the query */
};

/* What a chunk adds up to for a query: weight is relative to top. */
struct partial {
    float top, weight;
};

/*
 * The factors that append what comes after, and the top of both; chunks are
 * put together only as total = fmaf(next, after, total * before), in order, for
 * weights and sums alike, beginning with a top of -INFINITY and zeros.
 */
__device__ static inline float factors(float *before, float *after, float top,
                                       float next)
{
    const float both = fmaxf(top, next);

    *before = expf(top - both); /* 0 for nothing */
    *after = expf(next - both);
    return both;
}

/* How many positions from `first` on query i sees: none or fewer for rows
 * that end before. */
__device__ static inline int seen_by(struct queries qs, unsigned i,
                                     unsigned first)
{
    return (int)(qs.length + i / qs.group) - (int)first;
}

/* Queries i0 .. i0 + n - 1, scaled, to shared memory, a warp per query; zeros
 * fill a tile. */
__device__ static void load_q(float *to, struct queries qs, unsigned i0,
                              unsigned n, unsigned hd)
{
    const unsigned padded = (n + TILE - 1) / TILE * TILE;

    for (unsigned i = threadIdx.x / 32; i < padded; i += WARPS) {
        const unsigned all = i0 + i;
        const float *from = qs.q + all / qs.group * qs.q_stride +
                            all % qs.group * hd;

        for (unsigned c = threadIdx.x % 32; c < hd; c += 32)
            to[i * hd + c] = i < n ? from[c] * qs.scale : 0.0f;
    }
    __syncthreads();
}

/*
 * Add up dots over LANES lanes in a fixed tree, so that lane i ends with those
 * of query i in dot[0]: each step hands half of the queries over.
 */
template <unsigned R>
__device__ static inline void gather(float (&dot)[TILE][R])
{
#pragma unroll
    for (unsigned half = LANES / 2; half > 0; half /= 2) {
        const bool upper = threadIdx.x & half;

#pragma unroll
        for (unsigned g = 0; g < half; g++)
#pragma unroll
            for (unsigned u = 0; u < R; u++) {
                const float low = dot[g][u];
                const float high = dot[g + half][u];

                dot[g][u] = (upper ? high : low) +
                            __shfl_xor_sync(0xFFFFFFFFu, upper ? low : high,
                                            half);
            }
    }
}

/* Scores of a tile for R rounds of positions p = u * SLOTS + slot < n; a
 * lane takes every LANES-th vector of V channels. */
template <typename T, unsigned V, unsigned R>
__device__ static inline void score(float (&dot)[TILE][R], const float *q,
                                    const T *keys, unsigned n, unsigned hd)
{
    const unsigned slot = threadIdx.x / LANES;

    for (unsigned g = 0; g < TILE; g++)
        for (unsigned u = 0; u < R; u++)
            dot[g][u] = 0.0f;
#pragma unroll 2
    for (unsigned c = threadIdx.x % LANES * V; c < hd; c += LANES * V) {
        float key[R][V];

#pragma unroll
        for (unsigned u = 0; u < R; u++) /* the last one stands in */
            read(key[u], keys + (size_t)min(u * SLOTS + slot, n - 1) * hd + c);
#pragma unroll
        for (unsigned g = 0; g < TILE; g++) {
            float from[V];

            read(from, q + g * hd + c);
#pragma unroll
            for (unsigned u = 0; u < R; u++)
#pragma unroll
                for (unsigned e = 0; e < V; e++)
                    dot[g][u] = fmaf(from[e], key[u][e], dot[g][u]);
        }
    }
    gather<R>(dot);
}

/*
 * Weights of tile t, relative to the top of its scores, over n positions of
 * which this thread's query sees `seen`; what it does not see weighs 0, which
 * changes no sum.  Queries that see none get garbage, which is not used.
 */
template <typename T, unsigned V, unsigned R>
__device__ static void weigh(struct tiles *tiles, unsigned t, const float *q,
                             const T *keys, unsigned n, int seen, unsigned hd)
{
    const unsigned lane = threadIdx.x % LANES;
    const unsigned warp = threadIdx.x / 32;
    const unsigned slot = threadIdx.x / LANES;
    const int end = min(seen, (int)n);
    float dot[TILE][R];
    float top = -INFINITY;
    float sum = 0.0f;

    score<T, V, R>(dot, q, keys, n, hd);
#pragma unroll
    for (unsigned u = 0; u < R; u++) {
        if ((int)(u * SLOTS + slot) >= end)
            dot[0][u] = -INFINITY;
        top = fmaxf(top, dot[0][u]);
    }
    for (int offset = LANES; offset < 32; offset *= 2)
        top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, offset));
    if (threadIdx.x % 32 < TILE)
        tiles->top[t][warp][lane] = top;
    __syncthreads();
    for (unsigned w = 0; w < WARPS; w++)
        top = fmaxf(top, tiles->top[t][w][lane]);
#pragma unroll
    for (unsigned u = 0; u < R; u++) {
        const float e = expf(dot[0][u] - top);

        ((float *)tiles->weight[t][u * SLOTS + slot])[lane] = e;
        sum += e;
    }
    for (int offset = LANES; offset < 32; offset *= 2)
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, offset);
    if (threadIdx.x % 32 < TILE)
        tiles->sum[t][warp][lane] = sum;
}

/* Top and weight of query i of the batch over the chunk. */
__device__ static inline struct partial whole(const struct tiles *tiles,
                                              unsigned i)
{
    struct partial all = {-INFINITY, 0.0f};

    for (unsigned w = 0; w < WARPS; w++) {
        all.top = fmaxf(all.top, tiles->top[i / TILE][w][i % TILE]);
        all.weight += tiles->sum[i / TILE][w][i % TILE];
    }
    return all;
}

/* Weights of queries i0 .. i0 + n_q - 1 over n positions from first on. */
template <typename T, unsigned V>
__device__ static void weigh_chunk(struct tiles *tiles, float *region,
                                   struct cache cache, struct queries qs,
                                   unsigned i0, unsigned n_q, unsigned first,
                                   unsigned n)
{
    const unsigned hd = cache.head_dim;
    const T *keys = kv_at<T>(cache, qs.seq, first, 0, qs.head);

    load_q(region, qs, i0, n_q, hd);
    for (unsigned t = 0; t * TILE < n_q; t++) {
        const int seen = seen_by(qs, i0 + t * TILE + threadIdx.x % LANES,
                                 first);
        const float *q = region + (size_t)t * TILE * hd;

        if (n > SLOTS)
            weigh<T, V, ROUNDS>(tiles, t, q, keys, n, seen, hd);
        else
            weigh<T, V, 1>(tiles, t, q, keys, n, seen, hd);
    }
    __syncthreads();
}

/* Append the weights of a chunk to those of the chunks so far, or leave them
 * in part; and say where the sums of each query go. */
__device__ static void settle(struct tiles *tiles, struct queries qs,
                              unsigned i0, unsigned n_q, unsigned first,
                              unsigned hd, unsigned chunk, float *part)
{
    const unsigned i = threadIdx.x;
    const unsigned all = i0 + i;

    if (i < n_q && part) {
        const struct partial next = whole(tiles, i);

        part[qs.n * hd + all] = next.top;
        part[qs.n * (hd + 1) + all] = next.weight;
        tiles->out[i] = part + all * hd;
    } else if (i < n_q && seen_by(qs, all, first) > 0) {
        const struct partial next = whole(tiles, i);
        const float top = first ? tiles->all_top[i] : -INFINITY;
        const float weight = first ? tiles->all_weight[i] : 0.0f;
        float before, after;

        tiles->all_top[i] = factors(&before, &after, top, next.top);
        tiles->all_weight[i] = fmaf(next.weight, after, weight * before);
        tiles->before[i] = before;
        tiles->after[i] = after;
        tiles->out[i] = qs.y + all / qs.group * qs.y_stride +
                        all % qs.group * hd;
    } else if (i < n_q) {
        tiles->out[i] = NULL;
    }
    if (i < n_q)
        tiles->is_end[i] = seen_by(qs, all, first + chunk) <= 0;
    __syncthreads();
}

/* Append sums of V channels to y of query i of the batch; the thread that
 * began a y goes on with it. */
template <unsigned V>
__device__ static inline void add_to_y(const struct tiles *tiles, unsigned i,
                                       float *y, const float (&sum)[V],
                                       bool is_first)
{
    for (unsigned e = 0; e < V; e++) {
        const float so_far = is_first ? 0.0f : y[e];
        const float v = fmaf(sum[e], tiles->after[i],
                             so_far * tiles->before[i]);

        y[e] = tiles->is_end[i] ? v / tiles->all_weight[i] : v;
    }
}

/* Weighted values of channels c .. c + V - 1 for a tile, over every n_groups-th
 * position from `from` on. */
template <typename T, unsigned V>
__device__ static inline void add_values(float (&acc)[TILE][V],
                                         const float4 (*weight)[TILE / 4],
                                         const T *values, unsigned from,
                                         unsigned n_groups, unsigned n,
                                         unsigned hd)
{
    for (unsigned g = 0; g < TILE; g++)
        for (unsigned e = 0; e < V; e++)
            acc[g][e] = 0.0f;
#pragma unroll 4
    for (unsigned p = from; p < n; p += n_groups) {
        float v[V];

        read(v, values + (size_t)p * hd);
#pragma unroll
        for (unsigned k = 0; k < TILE / 4; k++) {
            const float4 w = weight[p][k];

#pragma unroll
            for (unsigned e = 0; e < V; e++) {
                acc[4 * k + 0][e] = fmaf(w.x, v[e], acc[4 * k + 0][e]);
                acc[4 * k + 1][e] = fmaf(w.y, v[e], acc[4 * k + 1][e]);
                acc[4 * k + 2][e] = fmaf(w.z, v[e], acc[4 * k + 2][e]);
                acc[4 * k + 3][e] = fmaf(w.w, v[e], acc[4 * k + 3][e]);
            }
        }
    }
}

/* The sums of n groups, one after another. */
template <unsigned V>
__device__ static inline void add_groups(float (&sum)[V], const float *region,
                                         unsigned stride, unsigned n)
{
    for (unsigned g = 0; g < n; g++) {
        float next[V];

        read(next, region + g * stride);
        for (unsigned e = 0; e < V; e++)
            sum[e] += next[e];
    }
}

/*
 * Sums of values of tile t over n positions from first on, for vectors
 * v0 .. v0 + width - 1 of V channels: groups of width threads share the
 * positions out and add their sums up in the order of the groups.  They go to
 * a part, or are appended to y.
 */
template <typename T, unsigned V>
__device__ static void sum_tile(const struct tiles *tiles, float *region,
                                const T *values, unsigned hd, unsigned n_q,
                                unsigned t, unsigned n, unsigned v0,
                                bool is_part, bool is_first)
{
    const unsigned width = min(hd / V, (unsigned)THREADS);
    const unsigned n_groups = THREADS / width;
    const unsigned mine = threadIdx.x / width;
    const unsigned v = threadIdx.x % width;
    const unsigned c = (v0 + v) * V;
    const bool is_busy = mine < n_groups && c < hd;
    float acc[TILE][V];

    add_values<T, V>(acc, tiles->weight[t], values + (is_busy ? c : 0), mine,
                     n_groups, is_busy ? n : 0, hd);
#pragma unroll
    for (unsigned h = 0; h < TILE; h += HALF) {
        __syncthreads(); /* the region may still be read */
#pragma unroll
        for (unsigned g = 0; g < HALF; g++)
#pragma unroll
            for (unsigned e = 0; e < V; e++)
                region[(g * THREADS + threadIdx.x) * V + e] = acc[h + g][e];
        __syncthreads();
        for (unsigned g = mine; is_busy && g < HALF; g += n_groups) {
            const unsigned i = t * TILE + h + g;
            float *out = i < n_q ? tiles->out[i] : NULL;
            float sum[V] = {0.0f};

            if (!out)
                continue;
            add_groups<V>(sum, region + (g * THREADS + v) * V, width * V,
                          n_groups);
            if (!is_part)
                add_to_y<V>(tiles, i, out + c, sum, is_first);
            for (unsigned e = 0; is_part && e < V; e++)
                out[c + e] = sum[e];
        }
    }
    __syncthreads();
}

/* Queries whose q fits the region: a multiple of TILE. */
__host__ __device__ static inline unsigned batch_of(unsigned hd)
{
    return min((unsigned)BATCH, max((unsigned)TILE, REGION / hd / TILE * TILE));
}

/*
 * One chunk for queries i0 .. i0 + n_q - 1, n_q <= batch_of(hd): to part, sums
 * [qs.n][hd] then tops [qs.n] and weights [qs.n]; or, without one, into y.
 */
template <typename T, unsigned V>
__device__ static void attend(struct tiles *tiles, float *region,
                              struct cache cache, struct queries qs,
                              unsigned i0, unsigned n_q, unsigned first,
                              unsigned n, float *part)
{
    const unsigned hd = cache.head_dim;
    const T *values = kv_at<T>(cache, qs.seq, first, 1, qs.head);

    weigh_chunk<T, V>(tiles, region, cache, qs, i0, n_q, first, n);
    settle(tiles, qs, i0, n_q, first, hd, cache.chunk, part);
    for (unsigned t = 0; t * TILE < n_q; t++)
        for (unsigned v0 = 0; v0 * V < hd; v0 += THREADS)
            sum_tile<T, V>(tiles, region, values, hd, n_q, t, n, v0, part,
                           first == 0);
}

/* Walk through the past of all queries, of which the last sees most. */
template <typename T, unsigned V>
__device__ static void walk(struct tiles *tiles, float *region,
                            struct cache cache, struct queries qs)
{
    const unsigned length = qs.length + (qs.n - 1) / qs.group;
    const unsigned batch = batch_of(cache.head_dim);

    for (unsigned i0 = 0; i0 < qs.n; i0 += batch)
        for (unsigned first = 0; first < length; first += cache.chunk)
            attend<T, V>(tiles, region, cache, qs, i0, min(batch, qs.n - i0),
                         first, min(cache.chunk, length - first), NULL);
}

/* Floats of a part, a multiple of 4 for vector loads. */
__host__ __device__ static inline unsigned part_floats(unsigned group,
                                                       unsigned hd)
{
    return (group * (hd + 2) + 3) / 4 * 4;
}

/*
 * The factors of n parts for up to TILE heads, (before, after, weight) each;
 * warp j does head j, 32 parts at a time: a lane's top so far is the maximum
 * over the lanes up to it.  Returns the top after all of them.
 */
__device__ static float prepare(float4 *factor, float top, const float *tops,
                                const float *weights, unsigned stride,
                                unsigned n)
{
    const unsigned lane = threadIdx.x % 32;

    for (unsigned k0 = 0; k0 < n; k0 += 32) {
        const unsigned k = k0 + lane;
        const float next = k < n ? __ldcg(tops + (size_t)k * stride)
                                 : -INFINITY;
        float so_far = next;
        float before, after, left;

        for (unsigned d = 1; d < 32; d *= 2) {
            const float other = __shfl_up_sync(0xFFFFFFFFu, so_far, d);

            if (lane >= d)
                so_far = fmaxf(so_far, other);
        }
        left = __shfl_up_sync(0xFFFFFFFFu, so_far, 1);
        left = lane ? fmaxf(top, left) : top;
        if (k < n) {
            factors(&before, &after, left, next);
            factor[k] = make_float4(before, after,
                                    __ldcg(weights + (size_t)k * stride), 0.0f);
        }
        top = fmaxf(top, __shfl_sync(0xFFFFFFFFu, so_far, 31));
    }
    return top;
}

/* Append n parts to a sum of V channels and its weight, in order. */
template <unsigned V>
__device__ static inline void append(float (&sum)[V], float *weight,
                                     const float4 *factor, const float *parts,
                                     unsigned stride, unsigned n)
{
    for (unsigned k0 = 0; k0 < n; k0 += FLIGHT) {
        float next[FLIGHT][V];

#pragma unroll
        for (unsigned k = 0; k < FLIGHT; k++) /* the last one stands in */
            read_fresh(next[k], parts + (size_t)min(k0 + k, n - 1) * stride);
#pragma unroll
        for (unsigned k = 0; k < FLIGHT; k++)
            if (k0 + k < n) {
                const float4 f = factor[k0 + k];

                *weight = fmaf(f.z, f.y, *weight * f.x);
                for (unsigned e = 0; e < V; e++)
                    sum[e] = fmaf(next[k][e], f.y, sum[e] * f.x);
            }
    }
}

/*
 * Put the parts of one row together for heads g0 .. g0 + TILE - 1, as far as
 * there are any; a thread does vector i of their channels.  Parts come in
 * pieces whose factors fit the region.
 */
template <unsigned V>
__device__ static void combine_heads(float *y, const float *parts,
                                     unsigned n_parts, unsigned group,
                                     unsigned hd, unsigned g0, unsigned i,
                                     float4 *factor)
{
    const unsigned stride = part_floats(group, hd);
    const unsigned warp = threadIdx.x / 32;
    const unsigned g = i / (hd / V);
    const unsigned at = (g0 + g) * hd + i % (hd / V) * V;
    const bool is_busy = g < min((unsigned)TILE, group - g0);
    float sum[V] = {0.0f};
    float weight = 0.0f;
    float top = -INFINITY;

    for (unsigned k = 0; k < n_parts; k += PIECE) {
        const unsigned n = min((unsigned)PIECE, n_parts - k);
        const float *part = parts + (size_t)k * stride;
        const float *tops = part + group * hd + g0 + warp;

        __syncthreads(); /* the region may still be read */
        if (g0 + warp < group)
            top = prepare(factor + warp * PIECE, top, tops, tops + group,
                          stride, n);
        __syncthreads();
        if (is_busy)
            append<V>(sum, &weight, factor + g * PIECE, part + at, stride, n);
    }
    if (is_busy)
        for (unsigned e = 0; e < V; e++)
            y[at + e] = sum[e] / weight;
}

/* Put the parts of one row and KV head together. */
template <unsigned V>
__device__ static void combine(float *y, const float *parts, unsigned n_parts,
                               unsigned group, unsigned hd, float4 *factor)
{
    for (unsigned g0 = 0; g0 < group; g0 += TILE)
        for (unsigned i = 0; i < TILE * (hd / V); i += THREADS)
            combine_heads<V>(y, parts, n_parts, group, hd, g0, i + threadIdx.x,
                             factor);
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

/* What a launch passes on; strides in floats. */
struct job {
    const float *qkv;
    float *y;
    size_t q_stride_b, q_stride_t, y_stride_b, y_stride_t;
    unsigned T, group;
    const int32_t *seq, *pos;
    float scale;
    float *parts;        /* [B][n_kv_heads][max_chunks][part] */
    unsigned max_chunks; /* of a sequence */
    unsigned *done;      /* [B][n_kv_heads] */
};

/* Queries of n_rows rows of b from t on. */
__device__ static struct queries queries_of(const struct job &job,
                                            struct cache cache, unsigned b,
                                            unsigned t, unsigned n_rows,
                                            unsigned head)
{
    const size_t column = (size_t)head * job.group * cache.head_dim;
    struct queries qs;

    qs.q = job.qkv + b * job.q_stride_b + t * job.q_stride_t + column;
    qs.y = job.y + b * job.y_stride_b + t * job.y_stride_t + column;
    qs.q_stride = job.q_stride_t;
    qs.y_stride = job.y_stride_t;
    qs.n = n_rows * job.group;
    qs.group = job.group;
    qs.length = (unsigned)job.pos[b] + t + 1;
    qs.scale = job.scale;
    qs.seq = job.seq[b];
    qs.head = head;
    return qs;
}

/*
 * Split attention: grid (chunk slots, KV heads, rows); bound by reading keys
 * and values.  A past of one chunk needs no parts.
 */
template <typename T, unsigned V>
__global__ __launch_bounds__(THREADS,
                             2) void attention_split(struct job job,
                                                     struct cache cache)
{
    extern __shared__ float4 region[];
    __shared__ struct tiles tiles;
    const unsigned hd = cache.head_dim;
    const unsigned b = blockIdx.z;
    const struct queries qs = queries_of(job, cache, b, 0, 1, blockIdx.y);
    const unsigned n_chunks = (qs.length + cache.chunk - 1) / cache.chunk;
    const unsigned batch = batch_of(hd);
    const size_t at = (size_t)b * cache.n_kv_heads + blockIdx.y;
    const unsigned stride = part_floats(job.group, hd);
    float *parts = job.parts + at * job.max_chunks * stride;

    if (blockIdx.x >= n_chunks)
        return;
    if (n_chunks == 1) {
        walk<T, V>(&tiles, (float *)region, cache, qs);
        return;
    }
    for (unsigned k = blockIdx.x; k < n_chunks; k += gridDim.x) {
        const unsigned first = k * cache.chunk;

        for (unsigned i0 = 0; i0 < qs.n; i0 += batch)
            attend<T, V>(&tiles, (float *)region, cache, qs, i0,
                         min(batch, qs.n - i0), first,
                         min(cache.chunk, qs.length - first),
                         parts + (size_t)k * stride);
    }
    if (is_last(job.done + at, min(n_chunks, gridDim.x)))
        combine<V>(qs.y, parts, n_chunks, job.group, hd, region);
}

/* A prompt: grid (blocks of n_rows rows, KV heads, B); the rows that see most
 * come first, so that the last blocks to start are short. */
template <typename T, unsigned V>
__global__ __launch_bounds__(THREADS, 2) void attention_walk(struct job job,
                                                             struct cache cache,
                                                             unsigned n_rows)
{
    extern __shared__ float4 region[];
    __shared__ struct tiles tiles;
    const unsigned t = (gridDim.x - 1 - blockIdx.x) * n_rows;

    walk<T, V>(&tiles, (float *)region, cache,
               queries_of(job, cache, blockIdx.z, t, min(n_rows, job.T - t),
                          blockIdx.y));
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
    return qkv->B * kv->n_kv_heads * chunks_of(kv) *
           part_floats(group_of(qkv, kv), (unsigned)kv->head_dim) *
           sizeof(float);
}

template <typename T, unsigned V>
static void launch(cudaStream_t stream, const struct job &job,
                   const struct cache &cache, unsigned B, unsigned n_sm)
{
    const unsigned heads = cache.n_kv_heads;
    const unsigned batch = batch_of(cache.head_dim);
    const size_t shared = max((unsigned)REGION, batch * cache.head_dim) *
                          sizeof(float);

    if (job.T > 1) {
        const unsigned n_rows = max(1u, batch / job.group);
        const unsigned blocks = (job.T + n_rows - 1) / n_rows;

        attention_walk<T, V>
            <<<dim3(blocks, heads, B), THREADS, shared, stream>>>(job, cache,
                                                                  n_rows);
    } else { /* two waves of two blocks each; most stay empty */
        const unsigned slots = min(job.max_chunks,
                                   max(1u, 4 * n_sm / (B * heads)));

        attention_split<T, V>
            <<<dim3(slots, heads, B), THREADS, shared, stream>>>(job, cache);
    }
}

cudaError_t vibe_cuda_attention(cudaStream_t stream,
                                const struct vibe_tensor *y,
                                const struct vibe_tensor *qkv,
                                const struct vibe_kv *kv, size_t layer,
                                const struct vibe_rows *rows, float *scratch,
                                unsigned *done, int n_sm)
{
    const struct cache cache = cache_of(kv, layer);
    const unsigned B = (unsigned)qkv->B;
    const unsigned sm = (unsigned)n_sm;
    struct job job = {(const float *)qkv->data,
                      (float *)y->data,
                      qkv->stride_b,
                      qkv->stride_t,
                      y->stride_b,
                      y->stride_t,
                      (unsigned)qkv->T,
                      group_of(qkv, kv),
                      rows->seq,
                      rows->pos,
                      1.0f / sqrtf((float)kv->head_dim),
                      scratch,
                      chunks_of(kv),
                      done};

    if (kv->dtype == VIBE_F32 && kv->head_dim % 4 == 0)
        launch<float, 4>(stream, job, cache, B, sm);
    else if (kv->dtype == VIBE_F32)
        launch<float, 1>(stream, job, cache, B, sm);
    else if (kv->head_dim % 4 == 0)
        launch<__nv_bfloat16, 4>(stream, job, cache, B, sm);
    else
        launch<__nv_bfloat16, 1>(stream, job, cache, B, sm);
    return cudaGetLastError();
}
