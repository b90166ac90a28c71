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
#include "engine/backend/cuda/shared.cuh"

enum {
    HEADS = VIBE_CUDA_STEP_HEADS, /* query heads of a KV head, at most */
    MAX_WARPS = 12,               /* of a block */
    PAD = 8,                      /* bf16: rows meet different banks */
    GROUP = 4,                    /* quads of channels of y that a warp does */
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
    unsigned short q[2][HEADS][HD + PAD]; /* bits of bf16: high, low */
    float2 scores[MAX_WARPS][HEADS];      /* of a warp, its tops and weights */
    /* the newest position */
    alignas(16) T rows[2][HD];
    unsigned char exponents[2];
};

#if __CUDA_ARCH__ >= 800

/* What a lane has of a row of HD numbers: pairs, i of channel lane * HD / 64 +
 * i and HD / 2 more. */
template <unsigned HD> struct pairs {
    alignas(HD / 16) float lo[HD / 64];
    alignas(HD / 16) float hi[HD / 64];
};

template <unsigned HD>
__device__ static inline unsigned channel_of_pair(unsigned i)
{
    return threadIdx.x % 32 * (HD / 64) + i;
}

/* Of what the kernel ahead has made, from this lane's first channel on. */
template <unsigned HD>
__device__ static inline pairs<HD> load_pairs(const float *from)
{
    pairs<HD> p;

    if constexpr (HD == 128) {
        *(float2 *)p.lo = __ldcg((const float2 *)from);
        *(float2 *)p.hi = __ldcg((const float2 *)(from + HD / 2));
    } else {
        p.lo[0] = __ldcg(from);
        p.hi[0] = __ldcg(from + HD / 2);
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
    const unsigned c = channel_of_pair<HD>(0);
    const unsigned at = c / 16 * 16 + operand_of_channel<T>(c % 16);

#pragma unroll
    for (unsigned i = 0; i < HD / 64; i++) {
        const unsigned lo = at + operand_of_channel<T>(i); /* c is even then */
        unsigned high, low;

        split(high, low, make_float2(q.lo[i] * scale, q.hi[i] * scale));
        d->q[0][head][lo] = (unsigned short)high;
        d->q[1][head][lo] = (unsigned short)low;
        d->q[0][head][lo + HD / 2] = (unsigned short)(high >> 16);
        d->q[1][head][lo + HD / 2] = (unsigned short)(low >> 16);
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

/* What a warp knows of the row before that is there. */
template <typename T, unsigned HD> struct row_ahead {
    pairs<HD> turns, centre;     /* that its key is without */
    const float *query, *newest; /* key or value, of this lane */
    float scale;                 /* of the query, or 0 */
    T *to;                       /* where it stores that; NULL: nowhere */
    unsigned char *exponent;
};

/* Where the newest key or value is, and where it goes. */
template <typename T, unsigned HD>
__device__ static inline void find_newest(row_ahead<T, HD> &r,
                                          const struct step &a,
                                          const struct part &p)
{
    const struct cache &c = a.cache;
    const unsigned i = min(newest_of_warp(), 1u);
    const unsigned at = p.pos & (c.block_tokens - 1);
    char *rows;

    r.newest = a.qkv + p.row * a.qkv_stride +
               ((a.group + i) * c.n_kv_heads + p.head) * HD +
               channel_of_pair<HD>(0);
    r.to = NULL;
    r.exponent = NULL;
    if (p.i != p.n - 1 || newest_of_warp() > 1)
        return;
    rows = keys_at(c, p.seq, p.pos, p.head) + i * c.n_kv_heads * c.head_bytes;
    r.to = (T *)rows + at * HD;
    r.exponent = (unsigned char *)rows + c.block_tokens * HD + at;
}

template <typename T, unsigned HD>
__device__ static inline void load_centre(row_ahead<T, HD> &r,
                                          const struct step &a,
                                          const struct part &p)
{
    r.centre = {};
    if (is_f8<T> && a.by.centre && newest_of_warp() == 0)
#pragma unroll
        for (unsigned i = 0; i < HD / 64; i++) {
            const float *at = a.by.centre + p.head * HD +
                              channel_of_pair<HD>(i);

            r.centre.lo[i] = load_kept(at);
            r.centre.hi[i] = load_kept(at + HD / 2);
        }
}

/* Find out all that: loads first, and turns while these are on their way. */
template <typename T, unsigned HD>
__device__ static inline void look_ahead(row_ahead<T, HD> &r,
                                         const struct step &a,
                                         const struct part &p,
                                         const float (&inv_freq)[HD / 64])
{
    const unsigned warp = threadIdx.x / 32;

    find_newest(r, a, p);
    load_centre(r, a, p);
    r.query = a.qkv + p.row * a.qkv_stride +
              (p.head * a.group + min(warp, a.group - 1)) * HD +
              channel_of_pair<HD>(0);
    r.scale = warp < a.group ? a.scale : 0.0f;
#pragma unroll
    for (unsigned i = 0; i < HD / 64; i++)
        turn(&r.turns.hi[i], &r.turns.lo[i], (float)p.pos, inv_freq[i]);
#pragma unroll
    for (unsigned i = 0; i < HD / 64; i++) {
        keep(r.turns.lo[i]);
        keep(r.turns.hi[i]);
    }
    keep(r.query);
    keep(r.newest);
    keep(r.scale);
    keep(r.to);
    keep(r.exponent);
}

/* Store the newest key or value, as the row has it, to the cache and the
 * desk. */
template <typename T, unsigned HD>
__device__ static inline void take_newest(desk<T, HD> *d,
                                          const row_ahead<T, HD> &r,
                                          pairs<HD> row)
{
    const unsigned part = newest_of_warp();

    if (part == 0) {
        rotate<HD>(row, r.turns);
#pragma unroll
        for (unsigned i = 0; is_f8<T> && i < HD / 64; i++) {
            row.lo[i] -= r.centre.lo[i];
            row.hi[i] -= r.centre.hi[i];
        }
    }
    store_newest<HD>(d, part, row, r.to, r.exponent);
}

/* Queries of a KV head to the desk, a warp each, and the newest key and value
 * to there and the cache. */
template <typename T, unsigned HD>
__device__ static inline void take_row(desk<T, HD> *d,
                                       const row_ahead<T, HD> &r)
{
    const unsigned warp = threadIdx.x / 32;
    pairs<HD> q = load_pairs<HD>(r.query);
    const pairs<HD> newest = load_pairs<HD>(r.newest);

    rotate<HD>(q, r.turns);
    if (warp < HEADS)
        lay_query<T, HD>(d, warp, q, r.scale);
    if (r.to)
        take_newest<T, HD>(d, r, newest);
}

/* The newest position's row, which the cache may not have yet. */
template <typename T, unsigned HD, unsigned ROWS>
__device__ static inline void patch(tile<T, HD, ROWS> *tile,
                                    const desk<T, HD> *d, unsigned row)
{
    constexpr unsigned pieces = HD * sizeof(T) / 16;
    const unsigned lane = threadIdx.x % 32;
    const unsigned part = lane / pieces;

    static_assert(2 * pieces <= 32, "a lane has a piece");
    if (part < 2)
        *(uint4 *)piece<T, HD>(
            tile->rows[part], row,
            lane % pieces) = ((const uint4 *)d->rows[part])[lane % pieces];
    if constexpr (is_f8<T>)
        if (lane >= 30)
            tile->exponents[lane - 30][row] = d->exponents[lane - 30];
    __syncwarp();
}

#endif

#endif /* VIBE_CUDA_ATTEND_ROW_CUH */
