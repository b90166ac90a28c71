/*
 * attend_step.cu - one new row of each sequence, on tensor cores: its rotary
 * position, its place in the cache, and attention to its past.
 *
 * A past is cut into parts by its length alone.  A block takes one part of one
 * KV head for all query heads that share it, in slabs of up to 128 positions: a
 * warp scores 16 of them, then adds 16 channels of the values of all.  Which
 * warp of a part comes last, for its channels puts the parts together.
 *
 * Nothing but the row itself is new: slabs are on their way before the kernel
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
    PART = 256,     /* positions of a part, unless they are many */
    MAX_PARTS = 32, /* more take longer to put together */
    MAX_STAGES = 3, /* slabs that are held, where they fit */
    PAD = 8,        /* bf16: rows meet different banks */
};

static_assert(WARPS == HEADS, "a warp turns a head");

struct step {
    struct cache cache;
    const float *qkv;
    float *y;
    size_t qkv_stride, y_stride; /* from row to row */
    bool is_split;               /* of y, see split.cuh */
    const int32_t *seq, *pos;
    struct vibe_rope by;
    float scale; /* log2(e) / sqrt(head_dim), times UNIT */
    unsigned group;
    unsigned slab; /* tiles of one */
    unsigned n_stages;
    struct partial *parts; /* [B][n_kv_heads][gridDim.z][WARPS] */
    unsigned *done;        /* [B][n_kv_heads][WARPS] */
};

/* What a warp makes of a part: sums as its lanes have them, and of the heads of
 * lane i % 4 two tops and two weights. */
struct partial {
    float4 sum[32];
    float4 scores[4];
};

/* What a block keeps besides its slabs. */
template <typename T, unsigned HD> struct desk {
    __nv_bfloat16 q[2][HEADS][HD + PAD];                 /* high, low */
    __nv_bfloat16 weights[2][HEADS][WARPS * TILE + PAD]; /* of a slab */
    float2 top[WARPS][HEADS / 2], weight[WARPS][HEADS / 2];
    /* the newest position */
    alignas(16) T rows[2][HD];
    unsigned char exponents[2];
};

#if __CUDA_ARCH__ >= 800

/* What a lane has of a row of HD numbers: those of its pairs. */
template <unsigned HD> struct pairs {
    float lo[HD / 64], hi[HD / 64]; /* i: channels lane * HD / 64 + i, and
                                       HD / 2 more */
};

template <unsigned HD>
__device__ static inline unsigned channel_of_pair(unsigned i)
{
    return threadIdx.x % 32 * (HD / 64) + i;
}

template <unsigned HD>
__device__ static inline pairs<HD> load_pairs(const float *row)
{
    pairs<HD> p;

#pragma unroll
    for (unsigned i = 0; i < HD / 64; i++) {
        p.lo[i] = row[channel_of_pair<HD>(i)];
        p.hi[i] = row[channel_of_pair<HD>(i) + HD / 2];
    }
    return p;
}

/* turns has the cosines in lo and the sines in hi. */
template <unsigned HD>
__device__ static inline void rotate(pairs<HD> &p, const pairs<HD> &turns)
{
#pragma unroll
    for (unsigned i = 0; i < HD / 64; i++) {
        const float lo = p.lo[i] * turns.lo[i] - p.hi[i] * turns.hi[i];

        p.hi[i] = p.hi[i] * turns.lo[i] + p.lo[i] * turns.hi[i];
        p.lo[i] = lo;
    }
}

/* A query, as its products take it. */
template <typename T, unsigned HD>
__device__ static inline void lay_query(desk<T, HD> *d, unsigned head,
                                        const pairs<HD> &q, float scale)
{
#pragma unroll
    for (unsigned i = 0; i < HD / 64; i++)
#pragma unroll
        for (unsigned half = 0; half < 2; half++) {
            const unsigned c = channel_of_pair<HD>(i) + half * HD / 2;
            const unsigned at = c / 16 * 16 + operand_of_channel<T>(c % 16);
            const float v = (half ? q.hi[i] : q.lo[i]) * scale;
            const __nv_bfloat16 high = __float2bfloat16(v);

            d->q[0][head][at] = high;
            d->q[1][head][at] = __float2bfloat16(v - __bfloat162float(high));
        }
}

/* A key or value, rounded, to the cache and to the desk. */
template <unsigned HD>
__device__ static inline void store_newest(desk<__nv_bfloat16, HD> *d,
                                           unsigned part, const pairs<HD> &row,
                                           __nv_bfloat16 *to, unsigned char *)
{
#pragma unroll
    for (unsigned i = 0; i < HD / 64; i++)
#pragma unroll
        for (unsigned half = 0; half < 2; half++) {
            const unsigned c = channel_of_pair<HD>(i) + half * HD / 2;

            to[c] = d->rows[part][c] = __float2bfloat16(half ? row.hi[i]
                                                             : row.lo[i]);
        }
}

template <unsigned HD>
__device__ static inline void store_newest(desk<e4m3, HD> *d, unsigned part,
                                           const pairs<HD> &row, e4m3 *to,
                                           unsigned char *exponent)
{
    float top = 0.0f;
    unsigned e;

#pragma unroll
    for (unsigned i = 0; i < HD / 64; i++)
        top = fmaxf(top, fmaxf(fabsf(row.lo[i]), fabsf(row.hi[i])));
    e = exponent_of(vibe_warp_max(top));
#pragma unroll
    for (unsigned i = 0; i < HD / 64; i++)
#pragma unroll
        for (unsigned half = 0; half < 2; half++) {
            const unsigned c = channel_of_pair<HD>(i) + half * HD / 2;

            to[c] = d->rows[part][c] = to_e4m3(half ? row.hi[i] : row.lo[i], e);
        }
    if (threadIdx.x % 32 == 0)
        *exponent = d->exponents[part] = (unsigned char)e;
}

/* Queries of a KV head to the desk, a warp each, and from the last part the
 * newest key and value. */
template <typename T, unsigned HD>
__device__ static inline void take_row(desk<T, HD> *d, const struct step &a,
                                       const float *row, int seq, unsigned pos,
                                       unsigned head, const pairs<HD> &turns,
                                       bool has_newest)
{
    const unsigned warp = threadIdx.x / 32;
    const unsigned n_heads = a.group * a.cache.n_kv_heads;
    const bool is_there = warp < a.group;
    const bool stores = has_newest && warp < 2;
    pairs<HD> q = load_pairs<HD>(row +
                                 (head * a.group + (is_there ? warp : 0)) * HD);
    pairs<HD> newest = load_pairs<HD>(
        row + (n_heads + (stores ? warp * a.cache.n_kv_heads : 0) + head) * HD);

    rotate<HD>(q, turns);
    lay_query<T, HD>(d, warp, q, is_there ? a.scale : 0.0f);
    if (!stores)
        return;
    if (warp == 0) {
        rotate<HD>(newest, turns);
        if (is_f8<T> && a.by.centre) {
            const pairs<HD> centre = load_pairs<HD>(a.by.centre + head * HD);

#pragma unroll
            for (unsigned i = 0; i < HD / 64; i++) {
                newest.lo[i] -= centre.lo[i];
                newest.hi[i] -= centre.hi[i];
            }
        }
    }
    store_newest<HD>(d, warp, newest, kv_at<T>(a.cache, seq, pos, warp, head),
                     exponents_at(a.cache, seq, pos, warp, head));
}

/* A warp's view: heads are columns of all products, 2 * (lane % 4) and one
 * more; positions are rows of scores and channels of sums. */
template <unsigned HD> struct work {
    unsigned high[HD / 16][2], low[HD / 16][2]; /* of queries */
    float sum[2][4];                            /* of values */
    float top[2], weight[2]; /* weight: of the positions of this lane */
};

template <typename T, unsigned HD>
__device__ static inline void begin_work(work<HD> &w, desk<T, HD> *d)
{
    const unsigned lane = threadIdx.x % 32;

#pragma unroll
    for (unsigned k = 0; k < HD / 16; k += 2) {
        const unsigned at = k * 16 + lane / 8 * 8;
        unsigned m[4];

        load_matrices(m, &d->q[0][lane % 8][at]);
        w.high[k][0] = m[0], w.high[k][1] = m[1];
        w.high[k + 1][0] = m[2], w.high[k + 1][1] = m[3];
        load_matrices(m, &d->q[1][lane % 8][at]);
        w.low[k][0] = m[0], w.low[k][1] = m[1];
        w.low[k + 1][0] = m[2], w.low[k + 1][1] = m[3];
    }
#pragma unroll
    for (unsigned i = 0; i < 4; i++)
        w.sum[0][i] = w.sum[1][i] = 0.0f;
    w.top[0] = w.top[1] = -INFINITY;
    w.weight[0] = w.weight[1] = 0.0f;
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

/* Scores of a tile of which n positions are seen. */
template <typename T, unsigned HD>
__device__ static inline void score(float (&s)[4], const work<HD> &w,
                                    tile<T, HD, TILE> *tile, int n)
{
    const unsigned lane = threadIdx.x % 32;
    float sums[4][4] = {}; /* chains that do not wait for each other */

#pragma unroll
    for (unsigned k = 0; k < HD / 32; k++) {
        unsigned m[2][4];

        load_pair<HD, false, true>(m, tile->rows[0], lane % 16, k, lane / 16);
#pragma unroll
        for (unsigned i = 0; i < 2; i++) {
            multiply(sums[i], m[i], w.high[2 * k + i]);
            multiply(sums[2 + i], m[i], w.low[2 * k + i]);
        }
    }
#pragma unroll
    for (unsigned i = 0; i < 4; i++) {
        const unsigned row = lane / 4 + i / 2 * 8;

        s[i] = ((sums[0][i] + sums[1][i]) + (sums[2][i] + sums[3][i])) *
               scale_of(tile, 0, row);
        if ((int)row >= n)
            s[i] = -INFINITY;
    }
}

/* Scores to weights relative to the top of all slabs so far, for the products
 * of all warps. */
template <typename T, unsigned HD>
__device__ static inline void weigh(desk<T, HD> *d, float (&s)[4], work<HD> &w,
                                    const tile<T, HD, TILE> *tile,
                                    unsigned n_tiles)
{
    const unsigned lane = threadIdx.x % 32;
    const unsigned warp = threadIdx.x / 32;
    float2 top = make_float2(w.top[0], w.top[1]);
    float factor[2];

#pragma unroll
    for (unsigned i = 0; i < WARPS; i++) { /* the last one stands in */
        const float2 next = d->top[min(i, n_tiles - 1)][lane % 4];

        top.x = fmaxf(top.x, next.x);
        top.y = fmaxf(top.y, next.y);
    }
    factor[0] = exp2f(w.top[0] - top.x); /* 0 at first */
    factor[1] = exp2f(w.top[1] - top.y);
    w.top[0] = top.x;
    w.top[1] = top.y;
#pragma unroll
    for (unsigned i = 0; i < 4; i++) {
        w.sum[0][i] *= factor[i % 2];
        w.sum[1][i] *= factor[i % 2];
    }
    w.weight[0] *= factor[0];
    w.weight[1] *= factor[1];
    if (warp >= n_tiles)
        return;
#pragma unroll
    for (unsigned i = 0; i < 2; i++) {
        const float scale = scale_of(tile, 1, lane / 4 + i * 8);
        const float x = exp2f(s[2 * i] - top.x);
        const float y = exp2f(s[2 * i + 1] - top.y);
        const unsigned at = warp * TILE + i * 8 + lane % 4 * 2;
        unsigned high, low;

        w.weight[0] += x;
        w.weight[1] += y;
        split(high, low, make_float2(x * scale, y * scale));
        *(unsigned *)&d->weights[0][lane / 4][at] = transposed(high);
        *(unsigned *)&d->weights[1][lane / 4][at] = transposed(low);
    }
}

/* The a of a product with 16 positions, for 16 channels of this warp. */
template <unsigned HD>
__device__ static inline void load_values(unsigned (&m)[4],
                                          tile<__nv_bfloat16, HD, TILE> *tile)
{
    const unsigned lane = threadIdx.x % 32;

    load_transposed(
        m, piece<__nv_bfloat16, HD>(tile->rows[1], lane / 16 * 8 + lane % 8,
                                    threadIdx.x / 32 * 2 + lane / 8 % 2));
}

template <unsigned HD>
__device__ static inline void load_values(unsigned (&m)[4],
                                          tile<e4m3, HD, TILE> *tile)
{
    unsigned raw[4]; /* the second half as the first */

    load_transposed(raw, piece<e4m3, HD>(tile->rows[1], threadIdx.x % 16,
                                         threadIdx.x / 32));
    expand(m[0], m[1], raw[0]);
    expand(m[2], m[3], raw[1]);
}

/* Add the values of a slab. */
template <typename T, unsigned HD>
__device__ static inline void add_values(work<HD> &w, desk<T, HD> *d,
                                         tile<T, HD, TILE> *tiles,
                                         unsigned n_tiles)
{
    const unsigned lane = threadIdx.x % 32;

    if (threadIdx.x / 32 >= HD / 16)
        return;
#pragma unroll
    for (unsigned k = 0; k < WARPS; k++) {
        unsigned m[4], weights[4];

        if (k >= n_tiles)
            break;

        load_matrices(
            weights,
            &d->weights[lane / 16][lane % 8][k * TILE + lane / 8 % 2 * 8]);
        load_values<HD>(m, &tiles[k]);
        multiply(w.sum[0], m, weights);
        multiply(w.sum[1], m, weights + 2);
    }
}

/* Tiles of a part, and where a block keeps those that it is working on. */
template <typename T, unsigned HD> struct walk {
    int seq;
    unsigned head, pos;      /* of the newest position */
    unsigned first, end;     /* tiles of the part */
    tile<T, HD, TILE> *ring; /* [n_stages][slab] */
};

/* Where the tile of slab i that this warp takes is kept; NULL for none. */
template <typename T, unsigned HD>
__device__ static inline const char *locate(const struct step &a,
                                            const walk<T, HD> &w, unsigned i)
{
    const unsigned warp = threadIdx.x / 32;
    const unsigned at = w.first + i * a.slab + warp;

    return warp < a.slab && at < w.end
               ? keys_at(a.cache, w.seq, at * TILE, w.head)
               : NULL;
}

/* Start copying slab i, to where an earlier one was. */
template <typename T, unsigned HD>
__device__ static inline void fetch(const struct step &a, const walk<T, HD> &w,
                                    unsigned i, const char *keys)
{
    const unsigned warp = threadIdx.x / 32;
    const unsigned at = (w.first + i * a.slab + warp) * TILE;

    if (keys)
        fetch_tile(&w.ring[i % a.n_stages * a.slab + warp], a.cache, keys, at,
                   (int)w.pos - (int)at, threadIdx.x % 32, 32);
    copies_end();
}

/* Wait for the oldest of n slabs. */
__device__ static inline void wait_for_slab(unsigned n)
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

/* The newest position's row, which the cache may not have yet. */
template <typename T, unsigned HD>
__device__ static inline void patch(tile<T, HD, TILE> *tile,
                                    const desk<T, HD> *d, unsigned row)
{
    constexpr unsigned pieces = HD * sizeof(T) / 16;
    const unsigned lane = threadIdx.x % 32;

    if (lane < 2 * pieces)
        *(uint4 *)piece<T, HD>(
            tile->rows[lane / pieces], row,
            lane % pieces) = ((const uint4 *)
                                  d->rows[lane / pieces])[lane % pieces];
    if (is_f8<T> && lane < 2)
        tile->exponents[lane][row] = d->exponents[lane];
    __syncwarp();
}

/* Walk through the part, as many slabs ahead as the ring holds. */
template <typename T, unsigned HD>
__device__ static inline void add_slabs(work<HD> &w, desk<T, HD> *d,
                                        const struct step &a,
                                        const walk<T, HD> &part)
{
    const unsigned lane = threadIdx.x % 32;
    const unsigned warp = threadIdx.x / 32;
    const unsigned n_slabs = (part.end - part.first + a.slab - 1) / a.slab;
    const char *next = NULL; /* what comes where the slab before was */

    for (unsigned i = 0; i < n_slabs; i++) {
        const unsigned first = part.first + i * a.slab;
        const unsigned n_tiles = min(a.slab, part.end - first);
        tile<T, HD, TILE> *tiles = part.ring + i % a.n_stages * a.slab;
        float s[4];

        wait_for_slab(a.n_stages);
        if (warp < n_tiles) {
            const unsigned at = (first + warp) * TILE;
            float2 top;

            if (first + warp == part.pos / TILE)
                patch<T, HD>(&tiles[warp], d, part.pos % TILE);
            score<T, HD>(s, w, &tiles[warp], (int)(part.pos + 1 - at));
            top.x = column_max(fmaxf(s[0], s[2]));
            top.y = column_max(fmaxf(s[1], s[3]));
            if (lane < 4)
                d->top[warp][lane] = top;
        }
        __syncthreads(); /* all have tops, and are done with the slab before */
        /* of nothing at first, so that each slab has a turn */
        fetch<T, HD>(a, part, i + a.n_stages - 1, next);
        next = locate<T, HD>(a, part, i + a.n_stages);
        weigh<T, HD>(d, s, w, &tiles[warp % a.slab], n_tiles);
        __syncthreads(); /* all have weights and values */
        add_values<T, HD>(w, d, tiles, n_tiles);
    }
    copies_wait<0>();
}

/* The sums of a lane: channels of rows lane / 4 and 8 more. */
template <unsigned HD>
__device__ static inline float4 sums_of(const work<HD> &w)
{
    return make_float4(w.sum[0][0] + w.sum[1][0], w.sum[0][1] + w.sum[1][1],
                       w.sum[0][2] + w.sum[1][2], w.sum[0][3] + w.sum[1][3]);
}

/* The weights of this lane's heads, over all lanes and warps. */
template <typename T, unsigned HD>
__device__ static inline float2 weights_of(desk<T, HD> *d, const work<HD> &w)
{
    const unsigned lane = threadIdx.x % 32;
    float2 sum = make_float2(column_sum(w.weight[0]), column_sum(w.weight[1]));

    if (lane < 4)
        d->weight[threadIdx.x / 32][lane] = sum;
    __syncthreads();
    sum = make_float2(0.0f, 0.0f);
#pragma unroll
    for (unsigned i = 0; i < WARPS; i++) {
        sum.x += d->weight[i][lane % 4].x;
        sum.y += d->weight[i][lane % 4].y;
    }
    return sum;
}

/* Whether this warp is the last of n to arrive with what its lanes have
 * stored; resets the counter. */
__device__ static inline bool is_last_warp(unsigned *done, unsigned n)
{
    unsigned before = 0;

    __syncwarp();
    if (threadIdx.x % 32 == 0) {
        __threadfence();
        before = atomicAdd(done, 1);
        if (before == n - 1)
            *done = 0;
        __threadfence();
    }
    return __shfl_sync(0xFFFFFFFFu, before, 0) == n - 1;
}

/* Append n partials to a sum and its weights and tops. */
__device__ static inline void append(float4 &sum, float2 &weight, float2 &top,
                                     const struct partial *from, unsigned n)
{
    const unsigned lane = threadIdx.x % 32;
    float2 next = top;
    float before, after;

#pragma unroll 8
    for (unsigned k = 0; k < n; k++) {
        next.x = fmaxf(next.x, from[k].scores[lane % 4].x);
        next.y = fmaxf(next.y, from[k].scores[lane % 4].y);
    }
    before = exp2f(top.x - next.x); /* 0 at first */
    after = exp2f(top.y - next.y);
    top = next;
    weight = make_float2(weight.x * before, weight.y * after);
    sum = make_float4(sum.x * before, sum.y * after, sum.z * before,
                      sum.w * after);
#pragma unroll 8
    for (unsigned k = 0; k < n; k++) {
        const float4 s = from[k].scores[lane % 4];
        const float4 v = from[k].sum[lane];
        const float f = exp2f(s.x - top.x);
        const float g = exp2f(s.y - top.y);

        weight.x = fmaf(s.z, f, weight.x);
        weight.y = fmaf(s.w, g, weight.y);
        sum.x = fmaf(v.x, f, sum.x);
        sum.y = fmaf(v.y, g, sum.y);
        sum.z = fmaf(v.z, f, sum.z);
        sum.w = fmaf(v.w, g, sum.w);
    }
}

/* Put n parts together, whose partials of this warp are WARPS apart, as many
 * at once as there is room for. */
__device__ static inline float4 merge(float2 *weight,
                                      const struct partial *from, unsigned n,
                                      struct partial *room, unsigned most)
{
    constexpr unsigned pieces = sizeof(struct partial) / 16;
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    float2 top = make_float2(-INFINITY, -INFINITY);

    *weight = make_float2(0.0f, 0.0f);
    for (unsigned k = 0; k < n; k += most) {
        const unsigned now = min(most, n - k);

        __syncwarp(); /* the room may still be read */
#pragma unroll 4
        for (unsigned i = threadIdx.x % 32; i < now * pieces; i += 32)
            copy_async<16>((uint4 *)room + i,
                           (const uint4 *)(from + (k + i / pieces) * WARPS) +
                               i % pieces,
                           true);
        copies_end();
        copies_wait<0>();
        __syncwarp();
        append(sum, *weight, top, room, now);
    }
    return sum;
}

/* The row's heads; y is the first of them. */
template <typename T, unsigned HD>
__device__ static inline void finish(const struct step &a, float *y, float4 sum,
                                     float2 weight)
{
    const unsigned lane = threadIdx.x % 32;
    const unsigned head = lane % 4 * 2;
    float *to = y + head * HD + threadIdx.x / 32 * 16;
    const unsigned c = channel_of_row<T>(lane / 4);
    const unsigned d = channel_of_row<T>(lane / 4 + 8);

    if (head < a.group) {
        to[c] = kept(sum.x * UNIT<T> / weight.x, a.is_split);
        to[d] = kept(sum.z * UNIT<T> / weight.x, a.is_split);
    }
    if (head + 1 < a.group) {
        to[HD + c] = kept(sum.y * UNIT<T> / weight.y, a.is_split);
        to[HD + d] = kept(sum.w * UNIT<T> / weight.y, a.is_split);
    }
}

#endif

/* Grid (KV heads, B, parts), of which a short past leaves most alone. */
template <typename T, unsigned HD>
__global__ __launch_bounds__(THREADS) void step_kernel(
    const __grid_constant__ struct step a)
{
#if __CUDA_ARCH__ >= 800
    extern __shared__ uint4 memory[];
    desk<T, HD> *d = (desk<T, HD> *)memory;
    const unsigned warp = threadIdx.x / 32;
    const unsigned head = blockIdx.x;
    const unsigned b = blockIdx.y;
    const unsigned pos = (unsigned)a.pos[b];
    const unsigned n_tiles = pos / TILE + 1;
    const unsigned n_parts = min(gridDim.z, pos / PART + 1);
    const walk<T, HD> part = {a.seq[b],
                              head,
                              pos,
                              blockIdx.z * n_tiles / n_parts,
                              (blockIdx.z + 1) * n_tiles / n_parts,
                              (tile<T, HD, TILE> *)(d + 1)};
    float *y = a.y + b * a.y_stride + head * a.group * HD;
    const size_t at = (size_t)b * gridDim.x + head;
    struct partial *parts = a.parts + at * gridDim.z * WARPS + warp;
    const char *keys[MAX_STAGES];
    pairs<HD> turns;
    work<HD> w;
    float4 sum;
    float2 weight;

    let_next_start();
    if (blockIdx.z >= n_parts)
        return;
#pragma unroll
    for (unsigned i = 0; i < MAX_STAGES; i++)
        keys[i] = locate<T, HD>(a, part, i);
#pragma unroll
    for (unsigned i = 0; i < MAX_STAGES; i++)
        if (i < a.n_stages)
            fetch<T, HD>(a, part, i, keys[i]);
#pragma unroll
    for (unsigned i = 0; i < HD / 64; i++)
        turn(&turns.hi[i], &turns.lo[i], (float)pos,
             a.by.inv_freq[channel_of_pair<HD>(i)]);
    wait_for_inputs();
    take_row<T, HD>(d, a, a.qkv + b * a.qkv_stride, part.seq, pos, head, turns,
                    blockIdx.z == n_parts - 1);
    __syncthreads();
    begin_work<T, HD>(w, d);
    add_slabs<T, HD>(w, d, a, part);

    sum = sums_of<HD>(w);
    weight = weights_of<T, HD>(d, w);
    if (warp >= HD / 16)
        return;
    if (n_parts > 1) {
        struct partial *mine = parts + blockIdx.z * WARPS;
        const unsigned room = a.n_stages * a.slab * sizeof(tile<T, HD, TILE>) /
                              WARPS / sizeof(struct partial);

        mine->sum[threadIdx.x % 32] = sum;
        if (threadIdx.x % 32 < 4)
            mine->scores[threadIdx.x % 32] = make_float4(w.top[0], w.top[1],
                                                         weight.x, weight.y);
        if (!is_last_warp(a.done + at * WARPS + warp, n_parts))
            return;
        sum = merge(&weight, parts, n_parts,
                    (struct partial *)part.ring + warp * room, room);
    }
    finish<T, HD>(a, y, sum, weight);
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
    return qkv->B * kv->n_kv_heads * parts_of(cuda, kv) * WARPS *
           sizeof(struct partial);
}

/* Slabs of 8 tiles, three of them or two, or of 4 where there is little shared
 * memory. */
template <typename T, unsigned HD>
static cudaError_t launch_step(const struct vibe_cuda *cuda, struct step *a,
                               dim3 grid)
{
    const void *kernel = (const void *)step_kernel<T, HD>;
    const size_t tile_bytes = sizeof(tile<T, HD, TILE>);
    size_t tiles, shared;
    int room = 0;
    cudaError_t rc = cudaDeviceGetAttribute(
        &room, cudaDevAttrMaxSharedMemoryPerBlockOptin, cuda->device);

    if (rc != cudaSuccess)
        return rc;
    tiles = ((size_t)room - sizeof(desk<T, HD>)) / tile_bytes;
    a->slab = tiles >= 2 * WARPS ? WARPS : WARPS / 2;
    a->n_stages = min((unsigned)MAX_STAGES, (unsigned)tiles / a->slab);
    if (a->n_stages < 2)
        return cudaErrorInvalidConfiguration; /* no card of 8.0 or more */
    a->scale *= UNIT<T>;
    shared = sizeof(desk<T, HD>) + a->n_stages * a->slab * tile_bytes;
    rc = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
    if (rc != cudaSuccess)
        return rc;
    return launch_waiting(kernel, grid, THREADS, shared, cuda->compute, a);
}

cudaError_t vibe_cuda_attend_step(const struct vibe_cuda *cuda,
                                  const struct vibe_tensor *y,
                                  const struct vibe_tensor *qkv,
                                  const struct vibe_kv *kv, size_t layer,
                                  const struct vibe_rows *rows,
                                  const struct vibe_rope *rope, float *scratch)
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
                     *rope,
                     1.44269504f / sqrtf((float)kv->head_dim),
                     group_of(qkv, kv),
                     1,
                     1,
                     (struct partial *)scratch,
                     cuda->done};

    if (kv->dtype == VIBE_F8_E4M3)
        return kv->head_dim == 64 ? launch_step<e4m3, 64>(cuda, &a, grid)
                                  : launch_step<e4m3, 128>(cuda, &a, grid);
    return kv->head_dim == 64 ? launch_step<__nv_bfloat16, 64>(cuda, &a, grid)
                              : launch_step<__nv_bfloat16, 128>(cuda, &a, grid);
}
