/*
 * attend_warp.cuh - a warp's tiles of a part of a past: on their way, scored,
 * weighed and added up.
 *
 * A warp holds a ring of tiles of its own, which it has filled again as it goes
 * through them; of what it makes nothing leaves its registers.
 */
#ifndef VIBE_CUDA_ATTEND_WARP_CUH
#define VIBE_CUDA_ATTEND_WARP_CUH

#include "engine/backend/cuda/attend_parts.cuh"
#include "engine/backend/cuda/shared.cuh"

#if __CUDA_ARCH__ >= 800

/* threadIdx.x, read anew: what is made of it need not be kept from one part to
 * the next, for which there are no registers. */
__device__ static inline unsigned this_thread(void)
{
    unsigned i;

    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(i));
    return i;
}

/* Tiles that warps hold, a ring of a.depth for each. */
template <typename T, unsigned HD>
__device__ static inline tile<T, HD, TILE> *ring_of(desk<T, HD> *d,
                                                    unsigned depth,
                                                    unsigned warp)
{
    return (tile<T, HD, TILE> *)(d + 1) + warp * depth;
}

/* What a warp makes of its tiles.  Scores have heads as rows, the high parts of
 * queries above the low ones, and positions as columns; sums have channels as
 * rows and heads as columns. */
template <unsigned HD> struct work {
    unsigned q[HD / 16][4]; /* queries */
    float sum[HD / 16][4];
    float top, weight; /* of head lane / 4; weight: of this lane's positions */
};

template <typename T, unsigned HD>
__device__ static inline void begin_work(work<HD> &w, const desk<T, HD> *d)
{
    const unsigned lane = threadIdx.x % 32;

#pragma unroll
    for (unsigned k = 0; k < HD / 16; k++)
        load_matrices(w.q[k],
                      &d->q[lane / 8 % 2][lane % 8][k * 16 + lane / 16 * 8]);
#pragma unroll
    for (unsigned k = 0; k < HD / 16; k++)
#pragma unroll
        for (unsigned i = 0; i < 4; i++)
            w.sum[k][i] = 0.0f;
    w.top = -INFINITY;
    w.weight = 0.0f;
}

/* Scores of this lane's head for positions lane % 4 * 2, one more, and both 8
 * further on; n positions of the tile are seen. */
template <typename T, unsigned HD>
__device__ static inline void score(float (&s)[4], const work<HD> &w,
                                    tile<T, HD, TILE> *tile, int n)
{
    const unsigned lane = threadIdx.x % 32;
    float sums[4][4] = {}; /* chains that do not wait for each other */

#pragma unroll
    for (unsigned k = 0; k < HD / 32; k++) {
        unsigned m[2][4];

        load_pair<HD, false, false>(m, tile->rows[0], lane / 16 * 8 + lane % 8,
                                    k, lane / 8 % 2);
#pragma unroll
        for (unsigned i = 0; i < 2; i++) {
            multiply(sums[i], w.q[2 * k + i], m[i]);
            multiply(sums[2 + i], w.q[2 * k + i], m[i] + 2);
        }
    }
#pragma unroll
    for (unsigned i = 0; i < 4; i++) {
        const unsigned row = i / 2 * 8 + lane % 4 * 2 + i % 2;
        const unsigned c = i / 2 * 2;

        s[i] = ((sums[c][i % 2] + sums[c + 1][i % 2]) +
                (sums[c][2 + i % 2] + sums[c + 1][2 + i % 2])) *
               scale_of(tile, 0, row);
        if ((int)row >= n)
            s[i] = -INFINITY;
    }
}

__device__ static inline void score_nothing(float (&s)[4])
{
#pragma unroll
    for (unsigned i = 0; i < 4; i++)
        s[i] = -INFINITY;
}

/* Scores of N tiles to weights relative to the top so far. */
template <unsigned HD, unsigned N>
__device__ static inline void weigh(float (&s)[N][4], work<HD> &w)
{
    const unsigned lane = threadIdx.x % 32;
    float top = -INFINITY;
    float factor, even, odd;

#pragma unroll
    for (unsigned j = 0; j < N; j++)
        top = fmaxf(top,
                    fmaxf(fmaxf(s[j][0], s[j][1]), fmaxf(s[j][2], s[j][3])));
    top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, 1));
    top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, 2));
    top = fmaxf(top, w.top);
    factor = power_of_2(w.top - top); /* 0 at first */
    w.top = top;
    w.weight *= factor;
#pragma unroll
    for (unsigned j = 0; j < N; j++) {
#pragma unroll
        for (unsigned i = 0; i < 4; i++)
            s[j][i] = power_of_2(s[j][i] - top);
        w.weight += (s[j][0] + s[j][1]) + (s[j][2] + s[j][3]);
    }
    even = __shfl_sync(0xFFFFFFFFu, factor, lane % 4 * 8);
    odd = __shfl_sync(0xFFFFFFFFu, factor, lane % 4 * 8 + 4);
#pragma unroll
    for (unsigned k = 0; k < HD / 16; k++) {
        w.sum[k][0] *= even;
        w.sum[k][1] *= odd;
        w.sum[k][2] *= even;
        w.sum[k][3] *= odd;
    }
}

template <typename T, unsigned HD>
__device__ static inline void add_values(work<HD> &w, tile<T, HD, TILE> *tile,
                                         const float (&weights)[4])
{
    const unsigned lane = threadIdx.x % 32;
    unsigned high[2], low[2];

#pragma unroll
    for (unsigned i = 0; i < 2; i++) {
        const unsigned row = i * 8 + lane % 4 * 2;

        split(high[i], low[i],
              make_float2(weights[2 * i] * scale_of(tile, 1, row),
                          weights[2 * i + 1] * scale_of(tile, 1, row + 1)));
    }

#pragma unroll
    for (unsigned k = 0; k < HD / 32; k++) {
        unsigned m[2][4];

        load_pair<HD, true, false>(m, tile->rows[1], lane / 16 * 8 + lane % 8,
                                   k, lane / 8 % 2);
#pragma unroll
        for (unsigned i = 0; i < 2; i++)
            multiply(w.sum[2 * k + i], m[i], high);
#pragma unroll
        for (unsigned i = 0; i < 2; i++)
            multiply(w.sum[2 * k + i], m[i], low);
    }
}

/* Where a tile of a part is kept; NULL for none. */
__device__ static inline const char *locate(const struct step &a,
                                            const struct part &p, unsigned at)
{
    return at < p.end ? keys_at(a.cache, p.seq, at * TILE, p.head) : NULL;
}

/* Start copying what there is of a tile from position pos on, n rows.  That of
 * bf16 is better asked for slowly: at 10,000 tokens it comes in the way of
 * weights. */
template <unsigned HD>
__device__ static inline void copy_tile(tile<__nv_bfloat16, HD, TILE> *to,
                                        const struct cache &c, unsigned pos,
                                        const char *keys, int n)
{
#pragma unroll 1
    for (unsigned part = 0; part < 2; part++)
        fetch_part(to, c, keys, pos, n, part, threadIdx.x % 32, 32);
}

/* The same of e4m3 without a loop: some rows at once, of which a lane has one
 * piece; whose places differ by as much for all lanes. */
template <unsigned HD>
__device__ static inline void copy_tile(tile<e4m3, HD, TILE> *to,
                                        const struct cache &c, unsigned pos,
                                        const char *keys, int n)
{
    constexpr unsigned at_once = 32 * 16 / HD; /* rows */
    const unsigned lane = threadIdx.x % 32;
    const unsigned row = lane / (32 / at_once);
    const unsigned at = pos & (c.block_tokens - 1);
    const size_t values = c.n_kv_heads * c.head_bytes; /* behind keys */
    const char *from = keys + at * HD + 16 * lane;

#pragma unroll
    for (unsigned part = 0; part < 2; part++) {
        const unsigned first = shared_address(
            piece<e4m3, HD>(to->rows[part], row, lane % (32 / at_once)));

#pragma unroll
        for (unsigned i = 0; i < TILE; i += at_once)
            copy_to_shared((first + i * HD) ^ 16 * order<e4m3, HD>(i),
                           from + i * HD, (int)(row + i) < n);
        from += values;
    }
    if (lane < 2)
        copy_to_shared(shared_address(to->exponents[lane]),
                       keys + lane * values + c.block_tokens * HD + at, true);
}

/* Start copying it. */
template <typename T, unsigned HD>
__device__ static inline void fetch(tile<T, HD, TILE> *to, const struct step &a,
                                    const struct part &p, unsigned at,
                                    const char *keys)
{
    const unsigned pos = at * TILE;

    if (keys)
        copy_tile<HD>(to, a.cache, pos, keys, (int)p.pos - (int)pos);
    copies_end();
}

/* Wait for the oldest N tiles that are under way. */
template <unsigned N>
__device__ static inline void wait_for_tiles(unsigned depth)
{
    if (depth - N == 2)
        copies_wait<2>();
    else if (depth - N == 1)
        copies_wait<1>();
    else
        copies_wait<0>();
    __syncwarp();
}

/* Start copying this warp's first tiles, which its lanes look for at once. */
template <typename T, unsigned HD, unsigned WARPS>
__device__ static inline void begin_tiles(desk<T, HD> *d, const struct step &a,
                                          const struct part &p)
{
    const unsigned warp = this_thread() / 32;
    const unsigned lane = this_thread() % 32;
    const char *of_lane = locate(a, p, p.first + warp + lane * WARPS);
    tile<T, HD, TILE> *tile = ring_of(d, a.depth, warp);

#pragma unroll 1
    for (unsigned i = 0; i < a.depth; i++, tile++) {
        const unsigned at = p.first + warp + i * WARPS;
        const char *keys = (const char *)__shfl_sync(
            0xFFFFFFFFu, (unsigned long long)of_lane, i);

        fetch<T, HD>(tile, a, p, at, keys);
    }
}

/* Scores, weights and sums of N tiles of this warp, `first` and those WARPS
 * further on. */
template <typename T, unsigned HD, unsigned WARPS, unsigned N>
__device__ static inline void add_some(work<HD> &w, tile<T, HD, TILE> *tiles[N],
                                       const struct part &p, unsigned first)
{
    float s[N][4];

#pragma unroll
    for (unsigned j = 0; j < N; j++) {
        const unsigned at = first + j * WARPS;

        if (j == 0 || at < p.end)
            score<T, HD>(s[j], w, tiles[j], (int)(p.pos + 1 - at * TILE));
        else
            score_nothing(s[j]);
    }
    weigh<HD, N>(s, w);
#pragma unroll
    for (unsigned j = 0; j < N; j++)
        if (first + j * WARPS < p.end)
            add_values<T, HD>(w, tiles[j], s[j]);
}

/* Walk through this warp's tiles, of which there are some, N at a time. */
template <typename T, unsigned HD, unsigned WARPS, unsigned N>
__device__ static inline void add_tiles(work<HD> &w, desk<T, HD> *d,
                                        const struct step &a,
                                        const struct part &p)
{
    const unsigned newest = p.pos / TILE;
    tile<T, HD, TILE> *ring = ring_of(d, a.depth, this_thread() / 32);
    unsigned i = p.first + this_thread() / 32;
    unsigned slot = 0;

#pragma unroll 1
    for (;;) {
        tile<T, HD, TILE> *tiles[N];

        wait_for_tiles<N>(a.depth);
#pragma unroll
        for (unsigned j = 0; j < N; j++) {
            tiles[j] = ring + slot + j - (slot + j < a.depth ? 0 : a.depth);
            if (i + j * WARPS == newest)
                patch<T, HD>(tiles[j], d, p.pos % TILE);
        }
        add_some<T, HD, WARPS, N>(w, tiles, p, i);
        __syncwarp();
        i += N * WARPS;
        if (i >= p.end)
            return;
#pragma unroll 1
        for (unsigned j = 0; j < N; j++) {
            const unsigned at = i + (j + a.depth - N) * WARPS;

            fetch<T, HD>(ring + slot, a, p, at, locate(a, p, at));
            if (++slot == a.depth)
                slot = 0;
        }
    }
}

#endif

#endif /* VIBE_CUDA_ATTEND_WARP_CUH */
