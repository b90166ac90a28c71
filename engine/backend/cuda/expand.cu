/*
 * expand.cu - matrices in tiles made bf16, for products that read it so.
 *
 * A warp expands a tile; bound by what is written.
 */
#include <cuda_bf16.h>

#include "engine/backend/cuda/matrix.h"
#include "engine/backend/cuda/tiles.cuh"

enum { THREADS = 256, WARPS = THREADS / 32 };

struct expansion {
    unsigned char *out;
    const unsigned char *tiles;
    const unsigned *far;
    size_t row_bytes; /* of out */
    unsigned n_rows, across, n_tiles;
    unsigned far_groups, far_group; /* of the matrix; the first row's */
};

/* Where row r of tile i begins, from column k on; NULL where out has none. */
__device__ static inline uint4 *row_of(const expansion &a, unsigned i,
                                       unsigned r, unsigned k)
{
    const unsigned n = i / a.across * VIBE_TILE_ROWS + r;
    const size_t at = ((size_t)(i % a.across) * VIBE_TILE_COLUMNS + k) * 2;

    if (n >= a.n_rows || at >= a.row_bytes)
        return NULL;
    return (uint4 *)(a.out + n * a.row_bytes + at);
}

__device__ static inline unsigned bf16_pair(float lo, float hi)
{
    return __bfloat16_as_ushort(__float2bfloat16_rn(lo)) |
           (unsigned)__bfloat16_as_ushort(__float2bfloat16_rn(hi)) << 16;
}

/* Pair i of a word of int4, scaled, exactly. */
__device__ static inline unsigned i4_pair(unsigned word, unsigned i,
                                          float scale)
{
    const int lo = (int)(word >> 4 * i & 15) - 8;
    const int hi = (int)(word >> (16 + 4 * i) & 15) - 8;

    return bf16_pair((float)lo * scale, (float)hi * scale);
}

__global__ void __launch_bounds__(THREADS)
    expand_i4(const __grid_constant__ struct expansion a)
{
    const unsigned lane = threadIdx.x % 32;
    const unsigned i = blockIdx.x * WARPS + threadIdx.x / 32;
    const unsigned char *tile = a.tiles + (size_t)i * VIBE_TILE_I4_BYTES;

    if (i >= a.n_tiles)
        return;
#pragma unroll
    for (unsigned h = 0; h < 2; h++) {
        const uint2 w = *(const uint2 *)(tile + lane * 16 + h * 8);
        const unsigned r = h * 8 + lane / 4;
        const float s = 0x1p-130f *
                        __uint_as_float(
                            u16_at(tile + VIBE_TILE_SCALES_AT + 2 * r) << 16);
        uint4 *out = row_of(a, i, r, lane % 4 * 16);

        if (!out)
            continue;
        out[0] = make_uint4(i4_pair(w.x, 0, s), i4_pair(w.x, 1, s),
                            i4_pair(w.x, 2, s), i4_pair(w.x, 3, s));
        out[1] = make_uint4(i4_pair(w.y, 0, s), i4_pair(w.y, 1, s),
                            i4_pair(w.y, 2, s), i4_pair(w.y, 3, s));
    }
}

/* Through shared memory, where escapes find their place. */
__global__ void __launch_bounds__(THREADS)
    expand_packed(const __grid_constant__ struct expansion a)
{
    __shared__ uint4 tiles[WARPS][VIBE_TILE_ROWS * VIBE_TILE_COLUMNS / 8];
    const unsigned lane = threadIdx.x % 32;
    const unsigned i = blockIdx.x * WARPS + threadIdx.x / 32;
    uint4 *tile = tiles[threadIdx.x / 32];
    const unsigned *words = (const unsigned *)tile;

    if (i >= a.n_tiles)
        return;
    unpack_tile(
        tile, a.tiles + (size_t)i * VIBE_TILE_PACKED_BYTES,
        {a.far, a.far_groups, a.far_group + i / a.across, i % a.across});
#pragma unroll
    for (unsigned j = 0; j < 4; j++) {
        const unsigned r = j * 4 + lane / 8;
        const unsigned k = lane % 8 * 8;
        uint4 *out = row_of(a, i, r, k);
        unsigned at[4];

#pragma unroll
        for (unsigned p = 0; p < 4; p++) /* vibe_tile_position, by twos */
            at[p] = (k / 4 + p / 2) % 4 * 128 + (r % 8 * 4 + k / 16) * 4 +
                    p % 2 * 2 + r / 8;
        if (out)
            *out = make_uint4(words[at[0]], words[at[1]], words[at[2]],
                              words[at[3]]);
    }
}

cudaError_t vibe_cuda_expand_tiles(const struct vibe_cuda *cuda, void *out,
                                   const struct vibe_matrix *w)
{
    const struct vibe_matrix_part *part = &w->part[0];
    const size_t across = vibe_tiles_across(w->K);
    const size_t n_tiles = (w->N + VIBE_TILE_ROWS - 1) / VIBE_TILE_ROWS *
                           across;
    const unsigned blocks = (unsigned)((n_tiles + WARPS - 1) / WARPS);
    struct expansion a;

    a.out = (unsigned char *)out;
    a.tiles = (const unsigned char *)part->data;
    a.far = part->far;
    a.row_bytes = vibe_cuda_stride(w->K) * 2;
    a.n_rows = (unsigned)w->N;
    a.across = (unsigned)across;
    a.n_tiles = (unsigned)n_tiles;
    a.far_groups = (unsigned)((w->whole_N + VIBE_TILE_ROWS - 1) /
                              VIBE_TILE_ROWS);
    a.far_group = (unsigned)(w->first / VIBE_TILE_ROWS);
    if (part->dtype == VIBE_I4)
        expand_i4<<<blocks, THREADS, 0, cuda->compute>>>(a);
    else if (part->dtype == VIBE_BF16_PACKED)
        expand_packed<<<blocks, THREADS, 0, cuda->compute>>>(a);
    else
        return cudaErrorInvalidValue;
    return cudaGetLastError();
}
