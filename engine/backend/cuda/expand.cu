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
    packed_list list;
    size_t row_bytes; /* of out */
    unsigned n_rows, across, n_tiles;
    unsigned first_group;
};

/* Eight columns of row r of tile i from column k on, as far as out has them. */
__device__ static inline void put(const expansion &a, unsigned i, unsigned r,
                                  unsigned k, uint4 v)
{
    const unsigned n = i / a.across * VIBE_TILE_ROWS + r;
    const size_t at = ((size_t)(i % a.across) * VIBE_TILE_COLUMNS + k) * 2;

    if (n < a.n_rows && at < a.row_bytes)
        *(uint4 *)(a.out + n * a.row_bytes + at) = v;
}

/* The 16 columns of a lane's half h of tile i, by two lanes at a time: half a
 * sector of memory is written no faster than a whole one. */
__device__ static inline void put_row(const expansion &a, unsigned i,
                                      unsigned h, const uint4 (&v)[2])
{
    const unsigned lane = threadIdx.x % 32;
    const unsigned r = h * 8 + lane / 4;
    const unsigned k = lane % 4 / 2 * 32 + lane % 2 * 8;
    const bool is_odd = lane % 2;
    uint4 u = is_odd ? v[0] : v[1];

    u.x = __shfl_xor_sync(0xFFFFFFFFu, u.x, 1);
    u.y = __shfl_xor_sync(0xFFFFFFFFu, u.y, 1);
    u.z = __shfl_xor_sync(0xFFFFFFFFu, u.z, 1);
    u.w = __shfl_xor_sync(0xFFFFFFFFu, u.w, 1);
    put(a, i, r, k, is_odd ? u : v[0]);
    put(a, i, r, k + 16, is_odd ? v[1] : u);
}

__device__ static inline unsigned bf16_pair(float lo, float hi)
{
    return __bfloat16_as_ushort(__float2bfloat16_rn(lo)) |
           (unsigned)__bfloat16_as_ushort(__float2bfloat16_rn(hi)) << 16;
}

/* Two neighbours of int4 that lie at a bit of a word, scaled, exactly. */
__device__ static inline unsigned i4_pair(unsigned word, unsigned at,
                                          float scale)
{
    const int lo = (int)(word << (28 - at)) >> 28;
    const int hi = (int)(word << (20 - at)) >> 28;

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
        const float2 scales = i4_scales(tile + VIBE_TILE_SCALES_AT, lane / 4);
        const float s = h ? scales.y : scales.x;
        uint4 v[2];

#pragma unroll
        for (unsigned j = 0; j < 2; j++)
            v[j] = make_uint4(
                i4_pair(w.x, 4 * j, s), i4_pair(w.x, 16 + 4 * j, s),
                i4_pair(w.y, 4 * j, s), i4_pair(w.y, 16 + 4 * j, s));
        put_row(a, i, h, v);
    }
}

__global__ void __launch_bounds__(THREADS)
    expand_packed(const __grid_constant__ struct expansion a)
{
    const unsigned i = blockIdx.x * WARPS + threadIdx.x / 32;
    const unsigned n = a.first_group + i / a.across;
    packed_group group;
    tile_pairs t;

    if (i >= a.n_tiles)
        return;
    group.open(a.list, n);
    unpack_tile(t, a.tiles + (size_t)i * VIBE_TILE_PACKED_BYTES, group.base);
    group.put(t, i % a.across, a.list, n);
#pragma unroll
    for (unsigned h = 0; h < 2; h++) {
        const unsigned *p = h ? t.high : t.low;
        const uint4 v[2] = {make_uint4(p[0], p[1], p[2], p[3]),
                            make_uint4(p[4], p[5], p[6], p[7])};

        put_row(a, i, h, v);
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
    a.list.words = part->far;
    a.list.n = (unsigned)((w->whole_N + VIBE_TILE_ROWS - 1) / VIBE_TILE_ROWS);
    a.row_bytes = vibe_cuda_stride(w->K) * 2;
    a.n_rows = (unsigned)w->N;
    a.across = (unsigned)across;
    a.n_tiles = (unsigned)n_tiles;
    a.first_group = (unsigned)(w->first / VIBE_TILE_ROWS);
    if (part->dtype == VIBE_I4)
        expand_i4<<<blocks, THREADS, 0, cuda->compute>>>(a);
    else if (part->dtype == VIBE_BF16_PACKED)
        expand_packed<<<blocks, THREADS, 0, cuda->compute>>>(a);
    else
        return cudaErrorInvalidValue;
    return cudaGetLastError();
}
