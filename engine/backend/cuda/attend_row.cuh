/*
 * attend_row.cuh - the one new row of a step: its heads turned by its position,
 * queries as products take them, the newest key and value to the cache.
 *
 * A warp takes a head of queries; the last two of the last part, which mostly
 * have none, take the newest key and value.
 */
#ifndef VIBE_CUDA_ATTEND_ROW_CUH
#define VIBE_CUDA_ATTEND_ROW_CUH

#include "engine/backend/cuda/attend_tiles.cuh"
#include "engine/backend/cuda/kernels.h"

enum {
    HEADS = VIBE_CUDA_STEP_HEADS, /* query heads of a KV head, at most */
    MAX_WARPS = 12,               /* of a block */
    PAD = 8,                      /* bf16: rows meet different banks */
};

/* Rows of a step, and the past that they see. */
struct step {
    struct cache cache;
    const float *qkv;
    float *y;
    size_t qkv_stride, y_stride; /* from row to row */
    keeping how;                 /* of y, see split.cuh */
    const int32_t *seq, *pos;
    struct vibe_rope by;
    float scale; /* log2(e) / sqrt(head_dim), times UNIT */
    unsigned group;
    unsigned n_rows;
    unsigned most_parts; /* of a past */
    unsigned depth;      /* tiles that a warp holds */
    void *mail;          /* [n_rows][n_kv_heads][most_parts] letters */
};

/* One of the parts of a past, of n. */
struct part {
    unsigned row, head; /* KV head */
    int seq;
    unsigned pos; /* of the newest position */
    unsigned i, n;
    unsigned first, end;             /* tiles */
    unsigned first_group, end_group; /* of quads that it finishes */
    unsigned n_all;                  /* parts of all pasts, or more */
};

/* What the warps of a block have in common, of one row. */
template <typename T, unsigned HD> struct alignas(128) desk {
    __nv_bfloat16 q[2][HEADS][HD + PAD]; /* high, low */
    float2 scores[MAX_WARPS][HEADS];     /* of a warp, its tops and weights */
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
    /* bits of what is not negative are in its order */
    e = exponent_of(
        __uint_as_float(__reduce_max_sync(0xFFFFFFFFu, __float_as_uint(top))));
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

/* 0 for the warp of the newest key, 1 for that of the value. */
__device__ static inline unsigned newest_of_warp(void)
{
    return threadIdx.x / 32 + 2 - blockDim.x / 32;
}

/* Where this warp stores the newest key or value; NULL for not. */
__device__ static inline char *newest_at(const struct step &a,
                                         const struct part &p)
{
    const unsigned i = newest_of_warp();

    if (p.i != p.n - 1 || i > 1)
        return NULL;
    return keys_at(a.cache, p.seq, p.pos, p.head) +
           i * a.cache.n_kv_heads * a.cache.head_bytes;
}

/* What this warp takes off the newest row. */
template <typename T, unsigned HD>
__device__ static inline pairs<HD> load_centre(const struct step &a,
                                               const struct part &p)
{
    pairs<HD> centre = {};

    if (is_f8<T> && a.by.centre && newest_of_warp() == 0)
#pragma unroll
        for (unsigned i = 0; i < HD / 64; i++) {
            const float *at = a.by.centre + p.head * HD +
                              channel_of_pair<HD>(i);

            centre.lo[i] = load_kept(at);
            centre.hi[i] = load_kept(at + HD / 2);
        }
    return centre;
}

/* Store the newest key or value, as the row has it, to the cache and the
 * desk. */
template <typename T, unsigned HD>
__device__ static inline void take_newest(desk<T, HD> *d, const struct step &a,
                                          const struct part &p, pairs<HD> row,
                                          const pairs<HD> &turns,
                                          const pairs<HD> &centre, char *to)
{
    const unsigned part = newest_of_warp();
    const unsigned at = p.pos % a.cache.block_tokens;

    if (part == 0) {
        rotate<HD>(row, turns);
#pragma unroll
        for (unsigned i = 0; is_f8<T> && i < HD / 64; i++) {
            row.lo[i] -= centre.lo[i];
            row.hi[i] -= centre.hi[i];
        }
    }
    store_newest<HD>(d, part, row, (T *)to + at * HD,
                     (unsigned char *)to + a.cache.block_tokens * HD + at);
}

/* Queries of a KV head to the desk, a warp each, and the newest key and value
 * to there and where newest_at says. */
template <typename T, unsigned HD>
__device__ static inline void take_row(desk<T, HD> *d, const struct step &a,
                                       const struct part &p,
                                       const pairs<HD> &turns,
                                       const pairs<HD> &centre, char *to)
{
    const unsigned warp = threadIdx.x / 32;
    const unsigned n_heads = a.group * a.cache.n_kv_heads;
    const bool is_there = warp < a.group;
    const float *row = a.qkv + p.row * a.qkv_stride + p.head * HD;
    const float *key = row + (n_heads + (to ? newest_of_warp() : 0) *
                                            a.cache.n_kv_heads) *
                                 HD;
    pairs<HD> q = load_pairs<HD>(
        row + (p.head * (a.group - 1) + (is_there ? warp : 0)) * HD);
    pairs<HD> newest = load_pairs<HD>(key);

    rotate<HD>(q, turns);
    if (warp < HEADS)
        lay_query<T, HD>(d, warp, q, is_there ? a.scale : 0.0f);
    if (to)
        take_newest<T, HD>(d, a, p, newest, turns, centre, to);
}

/* The newest position's row, which the cache may not have yet. */
template <typename T, unsigned HD, unsigned ROWS>
__device__ static inline void patch(tile<T, HD, ROWS> *tile,
                                    const desk<T, HD> *d, unsigned row)
{
    constexpr unsigned pieces = HD * sizeof(T) / 16;
    const unsigned lane = threadIdx.x % 32;

#pragma unroll
    for (unsigned part = 0; part < 2; part++) {
        if (lane < pieces)
            *(uint4 *)piece<T, HD>(tile->rows[part], row,
                                   lane) = ((const uint4 *)d->rows[part])[lane];
        if constexpr (is_f8<T>)
            if (lane == 0)
                tile->exponents[part][row] = d->exponents[part];
    }
    __syncwarp();
}

#endif

#endif /* VIBE_CUDA_ATTEND_ROW_CUH */
