/*
 * attend.cuh - chunks of keys and values of any head size and dtype.
 *
 * A chunk gives each query its top score, the sum of its weights and the
 * weighted sum of values; chunks are put together one after another.
 */
#ifndef VIBE_CUDA_ATTEND_CUH
#define VIBE_CUDA_ATTEND_CUH

#include "engine/backend/cuda/cache.cuh"
#include "engine/backend/cuda/reduce.cuh"
#include "engine/backend/cuda/split.cuh"

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

__device__ static inline float widen(float v)
{
    return v;
}

__device__ static inline float widen(__nv_bfloat16 v)
{
    return __bfloat162float(v);
}

__device__ static inline float widen(e4m3 v)
{
    /* the bits of a float 2^-120 as large, subnormal where it is */
    const unsigned bits = (v & 0x80u) << 24 | (v & 0x7Fu) << 20;

    return __uint_as_float(bits) * 0x1p120f;
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

__device__ static inline void read(float (&to)[4], const e4m3 *from)
{
    const unsigned v = *(const unsigned *)from;

#pragma unroll
    for (unsigned i = 0; i < 4; i++)
        to[i] = widen((e4m3)(v >> 8 * i));
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

/* Keys or values, one row a position, and what scales them. */
template <typename T> struct rows {
    const T *data;
    const unsigned char *exponents; /* of e4m3 */
};

template <typename T>
__device__ static inline struct rows<T> rows_at(const struct cache &c, int seq,
                                                unsigned pos, unsigned part,
                                                unsigned head) {
    return {kv_at<T>(c, seq, pos, part, head),
            exponents_at(c, seq, pos, part, head)};
}

template <typename T>
__device__ static inline float scale_of(const struct rows<T> &, unsigned)
{
    return 1.0f;
}

__device__ static inline float scale_of(const struct rows<e4m3> &rows,
                                        unsigned i)
{
    return power_of_two(rows.exponents[i]);
}

/* Queries of one KV head: query i is head i % group of row i / group. */
struct queries {
    const float *q;
    float *y;      /* not where q is: q is read again after y is begun */
    bool is_split; /* how y is kept when it is done, see split.cuh */
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
    bool is_split;      /* of y */
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
                                    struct rows<T> keys, unsigned n,
                                    unsigned hd)
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
            read(key[u],
                 keys.data + (size_t)min(u * SLOTS + slot, n - 1) * hd + c);
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
    for (unsigned u = 0; u < R; u++)
        dot[0][u] *= scale_of(keys, min(u * SLOTS + slot, n - 1));
}

/*
 * Weights of tile t, relative to the top of its scores, over n positions of
 * which this thread's query sees `seen`; what it does not see weighs 0, which
 * changes no sum.  Queries that see none get garbage, which is not used.
 */
template <typename T, unsigned V, unsigned R>
__device__ static void weigh(struct tiles *tiles, unsigned t, const float *q,
                             struct rows<T> keys, unsigned n, int seen,
                             unsigned hd)
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
    const struct rows<T> keys = rows_at<T>(cache, qs.seq, first, 0, qs.head);

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
    if (i == 0)
        tiles->is_split = qs.is_split;
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

        y[e] = tiles->is_end[i]
                   ? kept(v / tiles->all_weight[i], tiles->is_split)
                   : v;
    }
}

/* Weighted values of channels c .. c + V - 1, which values begin with, for a
 * tile, over every n_groups-th position from `from` on. */
template <typename T, unsigned V>
__device__ static inline void add_values(float (&acc)[TILE][V],
                                         const float4 (*weight)[TILE / 4],
                                         struct rows<T> values, unsigned from,
                                         unsigned n_groups, unsigned n,
                                         unsigned hd)
{
    for (unsigned g = 0; g < TILE; g++)
        for (unsigned e = 0; e < V; e++)
            acc[g][e] = 0.0f;
#pragma unroll 4
    for (unsigned p = from; p < n; p += n_groups) {
        const float scale = scale_of(values, p);
        float v[V];

        read(v, values.data + (size_t)p * hd);
#pragma unroll
        for (unsigned e = 0; e < V; e++)
            v[e] *= scale;
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
                                struct rows<T> values, unsigned hd,
                                unsigned n_q, unsigned t, unsigned n,
                                unsigned v0, bool is_part, bool is_first)
{
    const unsigned width = min(hd / V, (unsigned)THREADS);
    const unsigned n_groups = THREADS / width;
    const unsigned mine = threadIdx.x / width;
    const unsigned v = threadIdx.x % width;
    const unsigned c = (v0 + v) * V;
    const bool is_busy = mine < n_groups && c < hd;
    float acc[TILE][V];

    values.data += is_busy ? c : 0;
    add_values<T, V>(acc, tiles->weight[t], values, mine, n_groups,
                     is_busy ? n : 0, hd);
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
    const struct rows<T> values = rows_at<T>(cache, qs.seq, first, 1, qs.head);

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

#endif /* VIBE_CUDA_ATTEND_CUH */
