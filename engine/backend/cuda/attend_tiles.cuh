/*
 * attend_tiles.cuh - tiles of keys and values on the tensor cores.
 *
 * A tile is rows of head_dim bf16, one position each, whose 16-byte pieces lie
 * in an order that keeps 8 rows in different banks.  Keys and values are used
 * as they are stored; queries and weights are two bf16, high and low, so 2^-17
 * of each product is lost.  Scores are to the base 2.
 */
#ifndef VIBE_CUDA_ATTEND_TILES_CUH
#define VIBE_CUDA_ATTEND_TILES_CUH

#include "engine/backend/cuda/cache.cuh"
#include "engine/backend/cuda/tensor.cuh"

#if __CUDA_ARCH__ >= 800

/* Where piece i (8 channels) of a row of a tile is. */
template <unsigned HD>
__device__ static inline __nv_bfloat16 *piece(__nv_bfloat16 *tile, unsigned row,
                                              unsigned i)
{
    return tile + row * HD + (i ^ (row & 7)) * 8;
}

/* Start copying n_there of ROWS rows, zeros after them, by n threads of which
 * this is number i. */
template <unsigned HD, unsigned ROWS>
__device__ static inline void fetch_rows(__nv_bfloat16 *tile,
                                         const __nv_bfloat16 *rows, int n_there,
                                         unsigned i, unsigned n)
{
    for (unsigned j = i; j < ROWS * HD / 8; j += n) {
        const unsigned row = j / (HD / 8);
        const unsigned k = j % (HD / 8);
        const bool is_there = (int)row < n_there;

        copy_async<16>(piece<HD>(tile, row, k),
                       rows + (is_there ? row * HD + k * 8 : 0), is_there);
    }
}

/* Four 8 by 8 matrices whose rows this warp's lanes point to, 8 lanes each. */
__device__ static inline void load_matrices(unsigned (&m)[4], const void *row)
{
    const unsigned at = (unsigned)__cvta_generic_to_shared(row);

    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, "
                 "[%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(at)
                 : "memory");
}

__device__ static inline void load_transposed(unsigned (&m)[4], const void *row)
{
    const unsigned at = (unsigned)__cvta_generic_to_shared(row);

    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 "
                 "{%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(at)
                 : "memory");
}

/* An 8 by 8 matrix of bf16 pairs over the lanes of a warp, transposed. */
__device__ static inline unsigned transposed(unsigned m)
{
    unsigned t;

    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;"
                 : "=r"(t)
                 : "r"(m));
    return t;
}

#endif

#endif /* VIBE_CUDA_ATTEND_TILES_CUH */
