/*
 * tiles.cuh - the tiles of backend/tiles.h, unpacked by a warp.
 *
 * A lane unpacks its two rows of 16 columns into eight pairs of bf16 each,
 * half 0 first.  Integer instructions only, but for the values of int4.
 */
#ifndef VIBE_CUDA_TILES_CUH
#define VIBE_CUDA_TILES_CUH

#include "engine/backend/cuda/tensor.cuh"
#include "engine/backend/tiles.h"

enum { TILE_ROW_BYTES = 2 * VIBE_TILE_COLUMNS }; /* of bf16 */

/* A weight and where it belongs. */
struct packed_escape {
    unsigned position, weight;
    bool is_there;
};

/* What a lane needs of a tile of packed bf16. */
struct packed_tile {
    unsigned bytes[8]; /* four of each half */
    unsigned codes[3];
    unsigned bases[2];          /* twice, where exponents are */
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
    const unsigned position = u / 64;
    const unsigned row = position / VIBE_TILE_COLUMNS;
    const unsigned byte = tile[position];
    unsigned exponent = u % 64;
    packed_escape escape;

    if (exponent)
        exponent += tile[VIBE_TILE_BASES_AT + row] - VIBE_TILE_ESCAPE_BIAS;
    escape.position = position;
    escape.weight = (byte & 0x80) << 8 | exponent << 7 | (byte & 0x7F);
    escape.is_there = u % 64 < VIBE_TILE_NO_ESCAPE;
    return escape;
}

__device__ static inline void read_packed(packed_tile &t,
                                          const unsigned char *tile)
{
    const unsigned lane = threadIdx.x % 32;
    const unsigned char *bases = tile + VIBE_TILE_BASES_AT;

#pragma unroll
    for (unsigned h = 0; h < 2; h++) {
        const uint4 v = *(const uint4 *)(tile + h * 512 + lane * 16);

        t.bytes[4 * h] = v.x, t.bytes[4 * h + 1] = v.y;
        t.bytes[4 * h + 2] = v.z, t.bytes[4 * h + 3] = v.w;
        t.bases[h] = bases[h * 8 + lane / 4] * 0x00800080u;
    }
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

/* All but the escapes. */
__device__ static inline void unpack_codes(unsigned pairs[16],
                                           const packed_tile &t)
{
#pragma unroll
    for (int p = 0; p < 16; p++) {
        const unsigned v = __byte_perm(t.bytes[p / 2], 0,
                                       p % 2 ? 0x3322 : 0x1100);

        pairs[p] = ((v & 0x807F807Fu) | coded_exponents(t.codes, p)) +
                   t.bases[p / 8];
    }
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

/*
 * Put the escapes of a tile where they belong: row r of it is at
 * bf16 + r * TILE_ROW_BYTES, its 16-byte piece i at place(i, r).  The whole
 * warp has written the tile, and reads it after another __syncwarp.
 */
template <typename placing>
__device__ static inline void put_escapes(unsigned char *bf16,
                                          const packed_tile &t,
                                          const far_tile &which,
                                          const placing &place)
{
    const auto at = [&](unsigned position) {
        const unsigned r = position / VIBE_TILE_COLUMNS;
        const unsigned c = position % VIBE_TILE_COLUMNS;

        return (unsigned short *)(bf16 + r * TILE_ROW_BYTES +
                                  place(c / 8, r) * 16 + c % 8 * 2);
    };

    if (t.escape.is_there)
        *at(t.escape.position) = (unsigned short)t.escape.weight;
    if (t.next == VIBE_TILE_EMPTY)
        return;
    if (t.more.is_there)
        *at(t.more.position) = (unsigned short)t.more.weight;
    if (t.next == VIBE_TILE_FAR) {
        unsigned first, end;
        const unsigned *escapes = find_far(which, first, end);

        __syncwarp();
        for (unsigned j = first + threadIdx.x % 32; j < end; j += 32)
            *at(escapes[j] >> 16) = (unsigned short)escapes[j];
    }
}

/* Unpack a tile in shared memory, behind which its far_tile is, to bf16 in the
 * same place, of which piece i
 * of row r is at layout::place(i, r). */
template <typename layout>
__device__ static inline void unpack_in_place(unsigned char *tile)
{
    const unsigned lane = threadIdx.x % 32;
    far_tile which = {};
    unsigned u[16];
    packed_tile t;

    read_packed(t, tile);
    if (t.next == VIBE_TILE_FAR)
        which = *(const far_tile *)(tile + VIBE_TILE_PACKED_BYTES);
    unpack_codes(u, t);
    __syncwarp();
#pragma unroll
    for (unsigned j = 0; j < 4; j++) {
        const unsigned r = j / 2 * 8 + lane / 4;
        const unsigned piece = layout::place(lane % 4 * 2 + j % 2, r);

        *(uint4 *)(tile + r * TILE_ROW_BYTES + piece * 16) = make_uint4(
            u[4 * j], u[4 * j + 1], u[4 * j + 2], u[4 * j + 3]);
    }
    __syncwarp();
    put_escapes(tile, t, which, layout::place);
    __syncwarp();
}

#if __CUDA_ARCH__ >= 800
/* Pair i of a word of int4, scaled.  A code behind 16 is 16 + code; that and
 * 24 times a scale of quant.h are exact, and so is their difference. */
__device__ static inline unsigned scaled_i4(unsigned word, int i,
                                            unsigned scales, unsigned zero)
{
    const unsigned v = i ? word >> (4 * i - 3) : word << 3;

    return fma_pairs((v & 0x00780078u) | 0x41804180u, scales, zero);
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
    const unsigned less_24 = 0xC1C0C1C0u, none = 0x80008000u;
    const unsigned zero[2] = {fma_pairs(s[0], less_24, none),
                              fma_pairs(s[1], less_24, none)};

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
