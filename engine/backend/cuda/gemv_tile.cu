/*
 * gemv_tile.cu - products of one tile of K or two: what is latent or semantic,
 * made as wide as a hidden state.
 *
 * A warp makes 16 outputs of eight rows and needs nobody else: no ring, no
 * sums that meet.  x is the 16-row operand of mma.m16n8k16, eight rows of high
 * parts and the same of low parts, as in gemv_wide.cu, whose bits and gemv.cu's
 * a row gets.
 *
 * What bounds it is that a kernel takes two microseconds: weights come ahead of
 * its inputs.
 */
#include "engine/backend/cuda/decode.cuh"
#include "engine/backend/cuda/pair.cuh"

enum {
    WARPS = 4,
    ROWS = 8, /* of x */
    MOST_TILES = 2,
};

#if __CUDA_ARCH__ >= 800

/* Sixteen neighbours of a tile of a row of weights, as they are stored. */
template <int dtype> struct strip {
    enum { BYTES = format<dtype>::ROW_BYTES / 4, WORDS = BYTES / 4 };

    unsigned u[WORDS];

    __device__ inline void load(const decode &a, unsigned n, unsigned tile,
                                unsigned q)
    {
        const unsigned stride = a.row_bytes / (BYTES / 16);
        const size_t at = element_at<dtype>(n, tile * TILE_K + 16 * q, stride,
                                            is_byte<dtype>);
        const char *from = (const char *)a.w + weight_bytes<dtype>(at);

#pragma unroll
        for (unsigned i = 0; i < WORDS; i += 4)
            if (n < a.e.N)
                load_v4(u + i, from + i * 4);
            else
                u[i] = u[i + 1] = u[i + 2] = u[i + 3] = 0;
    }

    /* Four of them, as columns of a product. */
    __device__ inline void expand(unsigned pairs[2], unsigned i) const
    {
        if constexpr (dtype == VIBE_BF16) {
            pairs[0] = u[2 * i];
            pairs[1] = u[2 * i + 1];
        } else {
            format<dtype>::expand4(pairs, u[i]);
        }
    }
};

/* The same neighbours of row m of x. */
__device__ static inline void load_x(float4 x[4], const decode &a, unsigned m,
                                     unsigned tile, unsigned q)
{
    const float *row = a.x.data + row_at(a.x, a.e.T, m) + tile * TILE_K +
                       q * 16;

#pragma unroll
    for (unsigned i = 0; i < 4; i++)
        x[i] = m < a.n_rows ? *(const float4 *)(row + 4 * i)
                            : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
}

/* Four of them as rows of a product: high parts in the upper eight, low ones in
 * the lower eight. */
__device__ static inline void rows_of_x(unsigned rows[4], const float4 &x,
                                        bool is_split)
{
    read_split(rows[0], rows[1], make_float2(x.x, x.y), is_split);
    read_split(rows[2], rows[3], make_float2(x.z, x.w), is_split);
}

/* Add what a tile gives: it is a slice, and the others are zeros, which make no
 * negative one. */
template <int dtype>
__device__ static inline void add_tile(float sums[2][2],
                                       const strip<dtype> w[2],
                                       const float4 x[4], bool is_split)
{
    float c[2][4] = {};

#pragma unroll
    for (unsigned i = 0; i < 4; i++) {
        unsigned rows[4];

        rows_of_x(rows, x[i], is_split);
#pragma unroll
        for (unsigned half = 0; half < 2; half++) {
            unsigned pairs[2];

            w[half].expand(pairs, i);
            multiply(c[half], rows, pairs);
        }
    }
#pragma unroll
    for (unsigned half = 0; half < 2; half++)
#pragma unroll
        for (unsigned i = 0; i < 2; i++)
            sums[half][i] += c[half][i] + c[half][2 + i];
}
#endif

/* bytes: y, and little else. */
template <int dtype, unsigned TILES>
__global__ void __launch_bounds__(32 * WARPS)
    gemv_tile_kernel(const __grid_constant__ struct decode a)
{
#if __CUDA_ARCH__ >= 800
    const unsigned r = threadIdx.x % 32 / 4;
    const unsigned q = threadIdx.x % 4;
    const unsigned first = (blockIdx.x * WARPS + threadIdx.x / 32) * TILE_N;
    const unsigned m = blockIdx.y * ROWS + r;
    strip<dtype> w[TILES][2];
    float4 x[TILES][4];
    float sums[2][2] = {};
    pair to[2];

    let_next_start();
#pragma unroll
    for (unsigned half = 0; half < 2; half++) {
#pragma unroll
        for (unsigned t = 0; t < TILES; t++)
            w[t][half].load(a, first + 8 * half + r, t, q);
        to[half].read_early(a.e, a.n_rows, m, first + 8 * half + 2 * q);
    }
    wait_for_inputs();
#pragma unroll
    for (unsigned t = 0; t < TILES; t++)
        load_x(x[t], a, m, t, q);
#pragma unroll
    for (unsigned half = 0; half < 2; half++)
        to[half].read_late(a.e, m, first + 8 * half + 2 * q);
#pragma unroll
    for (unsigned t = 0; t < TILES; t++)
        add_tile(sums, w[t], x[t], a.x.is_split);
#pragma unroll
    for (unsigned half = 0; half < 2; half++)
        if (to[half].is_there[0])
            to[half].store(a.e, first + 8 * half + 2 * q,
                           make_float2(sums[half][0], sums[half][1]));
#endif
}

int vibe_cuda_is_tile(const struct vibe_cuda_product *p)
{
    const enum vibe_dtype dtype = p->w->part[0].dtype;

    return (p->w->K == TILE_K || p->w->K == MOST_TILES * TILE_K) &&
           (dtype == VIBE_BF16 || dtype == VIBE_F8_E4M3 || dtype == VIBE_I8);
}

template <unsigned TILES> static const void *kernel_for(enum vibe_dtype dtype)
{
    return dtype == VIBE_BF16 ? (const void *)gemv_tile_kernel<VIBE_BF16, TILES>
           : dtype == VIBE_I8
               ? (const void *)gemv_tile_kernel<VIBE_I8, TILES>
               : (const void *)gemv_tile_kernel<VIBE_F8_E4M3, TILES>;
}

cudaError_t vibe_cuda_gemv_tile(const struct vibe_cuda *cuda,
                                const struct vibe_cuda_product *p)
{
    const enum vibe_dtype dtype = p->w->part[0].dtype;
    const void *kernel = p->w->K == TILE_K ? kernel_for<1>(dtype)
                                           : kernel_for<MOST_TILES>(dtype);
    struct decode a = decode_of(p, 0, p->x->B * p->x->T);

    return launch_waiting(
        kernel,
        dim3((a.n_groups + WARPS - 1) / WARPS, (a.n_rows + ROWS - 1) / ROWS),
        32 * WARPS, 0, cuda->compute, &a);
}
