/*
 * tiles.cuh - the tiles of backend/tiles.h, unpacked by a warp.
 *
 * A lane unpacks its two rows of 16 columns.
 */
#ifndef VIBE_CUDA_TILES_CUH
#define VIBE_CUDA_TILES_CUH

#include "engine/backend/cuda/tensor.cuh"
#include "engine/backend/tiles.h"

/* A lane's share of a tile as pairs of bf16: rows lane / 4 and 8 more. */
struct tile_pairs {
    unsigned low[8], high[8];
};

/* What a packed matrix lists of its groups, n of them. */
struct packed_list {
    const unsigned *words;
    unsigned n;

    __device__ inline unsigned n_escapes(unsigned group) const
    {
        return words[group + 1] - words[group];
    }

    /* Escape i of a group, or what is none of any tile. */
    __device__ inline unsigned escape(unsigned group, unsigned i) const
    {
        return i < n_escapes(group) ? words[2 * n + 1 + words[group] + i]
                                    : (unsigned)VIBE_TILES_MOST << 18;
    }
};

/* What is listed of a group: half its base, four times, and a tile with an
 * escape for each lane, or ALL. */
struct packed_group {
    enum { ALL = 1u << 31 };

    unsigned base, tile;

    __device__ inline void open(const packed_list &list, unsigned group)
    {
        const unsigned lane = threadIdx.x % 32;

        base = list.words[list.n + 1 + group] / 2 * 0x01010101u;
        tile = list.n_escapes(group) > 32 ? (unsigned)ALL
                                          : list.escape(group, lane) >> 18;
    }

    /* Put the escapes of tile i where they belong. */
    __device__ inline void put(tile_pairs &t, unsigned i,
                               const packed_list &list, unsigned group) const
    {
        if (!__any_sync(0xFFFFFFFFu, (int)(tile ^ i) <= 0))
            return;
        for (unsigned j = 0; j < list.n_escapes(group); j += 32) {
            const unsigned e = list.escape(group, j + threadIdx.x % 32);
            unsigned left = __ballot_sync(0xFFFFFFFFu, e >> 18 == i);

            for (; left; left &= left - 1)
                put_one(t, __shfl_sync(0xFFFFFFFFu, e, __ffs(left) - 1));
        }
    }

    __device__ static inline void put_one(tile_pairs &t, unsigned escape)
    {
        const unsigned r = escape >> 14 & 15, c = escape >> 8 & 63;
        const unsigned top = (escape & 0xFF) * 0x01000100u;
        const unsigned mask = 0xFF00u << c % 2 * 16;
        const bool is_here = threadIdx.x % 32 == r % 8 * 4 + c / 16;

#pragma unroll
        for (unsigned p = 0; p < 8; p++) {
            const unsigned here = is_here && p == c / 2 % 8 ? mask : 0;
            const unsigned low = r < 8 ? here : 0, high = here ^ low;

            t.low[p] = (t.low[p] & ~low) | (top & low);
            t.high[p] = (t.high[p] & ~high) | (top & high);
        }
    }
};

/* The same, asked for long before it is wanted: where a group's escapes are
 * listed, then those. */
struct packed_ahead {
    unsigned first, end, exponent; /* of the group found last */
    unsigned base, escape;         /* of the one looked at */
    bool has_many;

    __device__ inline void find(const packed_list &list, unsigned group)
    {
        first = list.words[group];
        end = list.words[group + 1];
        exponent = list.words[list.n + 1 + group];
    }

    __device__ inline void look(const packed_list &list)
    {
        const unsigned lane = threadIdx.x % 32;

        base = exponent / 2 * 0x01010101u;
        has_many = end - first > 32;
        escape = (unsigned)VIBE_TILES_MOST << 18;
        if (lane < end - first)
            escape = list.words[2 * list.n + 1 + first + lane];
    }

    __device__ inline void open(packed_group &group) const
    {
        group.base = base;
        group.tile = has_many ? (unsigned)packed_group::ALL : escape >> 18;
    }
};

/* N quarters of a packed tile from the first one on, but for escapes. */
template <int N>
__device__ static inline void unpack(tile_pairs &t, const unsigned *low,
                                     const unsigned *high, const unsigned *tops,
                                     unsigned base, int first)
{
#pragma unroll
    for (int j = 0; j < N; j++) {
        const int i = first + j;
        const unsigned turned = __funnelshift_r(tops[j], tops[j], 4);
        const unsigned a = (tops[j] & 0x87878787u) + base;
        const unsigned b = (turned & 0x87878787u) + base;

        t.low[2 * i] = __byte_perm(low[j], a, 0x5140);
        t.low[2 * i + 1] = __byte_perm(low[j], a, 0x7362);
        t.high[2 * i] = __byte_perm(high[j], b, 0x5140);
        t.high[2 * i + 1] = __byte_perm(high[j], b, 0x7362);
    }
}

__device__ static inline void unpack_tile(tile_pairs &t,
                                          const unsigned char *tile,
                                          unsigned base)
{
    const uint4 *at = (const uint4 *)tile + threadIdx.x % 32;
    const uint4 l = at[0], h = at[32], v = at[VIBE_TILE_TOPS_AT / 16];
    const unsigned low[4] = {l.x, l.y, l.z, l.w};
    const unsigned high[4] = {h.x, h.y, h.z, h.w};
    const unsigned tops[4] = {v.x, v.y, v.z, v.w};

    unpack<4>(t, low, high, tops, base, 0);
}

/* Half of it, for two of four products. */
__device__ static inline void unpack_half(tile_pairs &t,
                                          const unsigned char *tile,
                                          unsigned base, int half)
{
    const uint2 *at = (const uint2 *)tile + threadIdx.x % 32 * 2 + half;
    const uint2 l = at[0], h = at[64], v = at[VIBE_TILE_TOPS_AT / 8];
    const unsigned low[2] = {l.x, l.y};
    const unsigned high[2] = {h.x, h.y};
    const unsigned tops[2] = {v.x, v.y};

    unpack<2>(t, low, high, tops, base, 2 * half);
}

/* What a lane has of a tile of int4: of row lane / 4 two words, of that 8
 * further two more. */
struct i4_words {
    unsigned u[4];
};

/* Four neighbours as bytes, sixteenfold: of a word's first ones or of those
 * eight further. */
__device__ static inline unsigned i4_bytes(unsigned word, int i)
{
    return (i ? word : word << 4) & 0xF0F0F0F0u;
}

enum { I4_SCALE_BYTES = VIBE_TILE_I4_BYTES - VIBE_TILE_SCALES_AT };

/* The scales of rows r and r + 8, of those of a tile. */
__device__ static inline float2 i4_scales(const unsigned char *scales,
                                          unsigned r)
{
    const unsigned pair = *(const unsigned *)(scales + 4 * r);

    return make_float2(__uint_as_float(pair << 16),
                       __uint_as_float(pair & 0xFFFF0000u));
}

#endif /* VIBE_CUDA_TILES_CUH */
