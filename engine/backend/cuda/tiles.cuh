/*
 * tiles.cuh - the tiles of backend/tiles.h, unpacked by a warp.
 *
 * A lane unpacks its two rows of 16 columns into eight pairs of bf16 each.
 */
#ifndef VIBE_CUDA_TILES_CUH
#define VIBE_CUDA_TILES_CUH

#include "engine/backend/cuda/tensor.cuh"
#include "engine/backend/tiles.h"

/* A weight and where it belongs. */
struct packed_escape {
    unsigned position, weight;
    bool is_there;
};

/* What a lane needs of a tile of packed bf16. */
struct packed_tile {
    uint2 bytes[4]; /* of four pairs each */
    unsigned codes[3];
    unsigned bases[2];          /* of both halves */
    packed_escape escape, more; /* one of the first 32, and one of the rest */
    unsigned next;              /* what is in the place after the 32 */
};

__device__ static inline unsigned u16_at(const unsigned char *p)
{
    return *(const unsigned short *)p;
}

/* Escape i of a tile: its sign and mantissa are where all are. */
__device__ static inline packed_escape read_escape(const unsigned char *tile,
                                                   unsigned i)
{
    const unsigned u = u16_at(tile + VIBE_TILE_ESCAPES_AT + i * 2);
    const unsigned byte = tile[u / 64];
    unsigned exponent = u % 64;
    packed_escape escape;

    if (exponent)
        exponent += tile[VIBE_TILE_BASES_AT] - VIBE_TILE_ESCAPE_BIAS;
    escape.position = u / 64;
    escape.weight = (byte & 0x80) << 8 | exponent << 7 | (byte & 0x7F);
    escape.is_there = u % 64 < VIBE_TILE_NO_ESCAPE;
    return escape;
}

__device__ static inline void read_packed(packed_tile &t,
                                          const unsigned char *tile)
{
    const unsigned lane = threadIdx.x % 32;

#pragma unroll
    for (unsigned i = 0; i < 4; i++)
        t.bytes[i] = *(const uint2 *)(tile + i * 256 + lane * 8);
#pragma unroll
    for (unsigned h = 0; h < 2; h++)
        t.bases[h] = tile[VIBE_TILE_BASES_AT + h * 8 + lane / 4];
#pragma unroll
    for (unsigned w = 0; w < 3; w++)
        t.codes[w] = *(const unsigned *)(tile + VIBE_TILE_CODES_AT + w * 128 +
                                         lane * 4);
    t.next = u16_at(tile + VIBE_TILE_ESCAPES_AT + VIBE_TILE_FEW * 2);
    t.escape = read_escape(tile, lane);
    t.more.is_there = false;
    if (t.next != VIBE_TILE_EMPTY && lane < VIBE_TILE_ESCAPES - VIBE_TILE_FEW)
        t.more = read_escape(tile, VIBE_TILE_FEW + lane);
}

/* The exponents that pair p of a lane codes. */
__device__ static inline unsigned coded_exponents(const unsigned codes[3],
                                                  int p)
{
    const int field = p % 5;
    const unsigned mask = 0x03800380u;

    if (p == 15)
        return ((codes[0] << 7) & 0x00800080u) |
               ((codes[1] << 8) & 0x01000100u) |
               ((codes[2] << 9) & 0x02000200u);
    if (field < 2)
        return (codes[p / 5] << (6 - 3 * field)) & mask;
    return (codes[p / 5] >> (3 * field - 6)) & mask;
}

/* All but the escapes of four pairs: both halves', twice. */
__device__ static inline uint4 unpack_quarter(const packed_tile &t, int i)
{
    unsigned u[4];

#pragma unroll
    for (int j = 0; j < 4; j++) {
        const unsigned v = __byte_perm(j < 2 ? t.bytes[i].x : t.bytes[i].y, 0,
                                       j % 2 ? 0x3322 : 0x1100);

        u[j] = ((v & 0x807F807Fu) | coded_exponents(t.codes, 4 * i + j)) +
               t.bases[j % 2] * 0x00800080u;
    }
    return make_uint4(u[0], u[1], u[2], u[3]);
}

/* A list of far escapes, and one tile of its matrix. */
struct far_tile {
    const unsigned *list;
    unsigned n_groups, group, tile;
};

/* Find a tile in its list: it is there, at entries first .. end - 1. */
__device__ static inline const unsigned *find_far(const far_tile &which,
                                                  unsigned &first,
                                                  unsigned &end)
{
    const unsigned *tiles = which.list + which.n_groups + 1;
    const unsigned n = which.list[which.n_groups];
    unsigned i = which.list[which.group];

    while (tiles[i] != which.tile)
        i++;
    first = tiles[n + i];
    end = tiles[n + i + 1];
    return tiles + 2 * n + 1;
}

/* Put the escapes of a tile where they belong, by position.  The whole warp has
 * written the tile, and reads it after another __syncwarp. */
__device__ static inline void put_escapes(unsigned short *bf16,
                                          const packed_tile &t,
                                          const far_tile &which)
{
    if (t.escape.is_there)
        bf16[t.escape.position] = (unsigned short)t.escape.weight;
    if (t.next == VIBE_TILE_EMPTY)
        return;
    if (t.more.is_there)
        bf16[t.more.position] = (unsigned short)t.more.weight;
    if (t.next == VIBE_TILE_FAR) {
        unsigned first, end;
        const unsigned *escapes = find_far(which, first, end);

        __syncwarp();
        for (unsigned j = first + threadIdx.x % 32; j < end; j += 32)
            bf16[escapes[j] >> 16] = (unsigned short)escapes[j];
    }
}

/* Unpack a tile to shared memory as bf16, by position: a lane's pairs of
 * quarter i are at 16 i + lane.  from may be there, too. */
__device__ static inline void unpack_tile(uint4 *to, const unsigned char *from,
                                          const far_tile &which)
{
    const unsigned lane = threadIdx.x % 32;
    packed_tile t;

    read_packed(t, from);
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; i++)
        to[32 * i + lane] = unpack_quarter(t, i);
    __syncwarp();
    put_escapes((unsigned short *)to, t, which);
    __syncwarp();
}

#if __CUDA_ARCH__ >= 800
/* Pair i of a word of int4, scaled.  A code in bits 6 .. 3 of a bf16 is 2^-130
 * of it, and all of this is exact. */
__device__ static inline unsigned scaled_i4(unsigned word, int i,
                                            unsigned scales, unsigned zero)
{
    const unsigned v = i ? word >> (4 * i - 3) : word << 3;

    return fma_pairs(v & 0x00780078u, scales, zero);
}

/* A lane's rows of a tile of int4. */
__device__ static inline void read_i4(unsigned low[8], unsigned high[8],
                                      const unsigned char *tile)
{
    const unsigned lane = threadIdx.x % 32;
    const uint4 v = *(const uint4 *)(tile + lane * 16);
    const unsigned char *scales = tile + VIBE_TILE_SCALES_AT + lane / 4 * 2;
    const unsigned s[2] = {u16_at(scales) * 0x00010001u,
                           u16_at(scales + 16) * 0x00010001u};
    const unsigned less_8 = 0x80408040u, none = 0x80008000u;
    const unsigned zero[2] = {fma_pairs(s[0], less_8, none),
                              fma_pairs(s[1], less_8, none)};

#pragma unroll
    for (int i = 0; i < 4; i++) {
        low[i] = scaled_i4(v.x, i, s[0], zero[0]);
        low[4 + i] = scaled_i4(v.y, i, s[0], zero[0]);
        high[i] = scaled_i4(v.z, i, s[1], zero[1]);
        high[4 + i] = scaled_i4(v.w, i, s[1], zero[1]);
    }
}
#endif

#endif /* VIBE_CUDA_TILES_CUH */
