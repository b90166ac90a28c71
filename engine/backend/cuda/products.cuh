/*
 * products.cuh - products of sm_90a, by four warps together, that work beside
 * them.
 *
 * A warp's operand and its sums lie in its registers as those of
 * mma.m16n8k16 do; the other operand is columns in shared memory.  They add up
 * as mma.m16n8k16 does, and so give its bits.
 */
#ifndef VIBE_CUDA_PRODUCTS_CUH
#define VIBE_CUDA_PRODUCTS_CUH

#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/shared.cuh"

/* Whether a kernel has code for this GPU: an empty one takes few registers. */
static inline bool has_products(const void *kernel)
{
    const int few = 32;
    struct cudaFuncAttributes is = {};

    return cudaFuncGetAttributes(&is, kernel) == cudaSuccess &&
           is.numRegs > few;
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* Operands of wgmma: sums i, i + 1, ..., and what is not a sum. */
#define SUMS_4(c, i) \
    "+f"((c)[i]), "+f"((c)[(i) + 1]), "+f"((c)[(i) + 2]), "+f"((c)[(i) + 3])
#define SUMS_8(c, i) SUMS_4(c, i), SUMS_4(c, (i) + 4)
#define OPERANDS(a, desc, is_sum, is_across)                       \
    "r"((a)[0]), "r"((a)[1]), "r"((a)[2]), "r"((a)[3]), "l"(desc), \
        "r"(is_sum), "n"(is_across)

/* c [64][n] = a [64][16] times the columns of desc, or += where is_sum; see
 * columns_at: they lie by neighbour where IS_ACROSS. */
template <int IS_ACROSS = 0>
__device__ static inline void multiply_64(float (&c)[16], const unsigned a[4],
                                          unsigned long long desc,
                                          unsigned is_sum)
{
    asm volatile("{.reg .pred is_sum; setp.ne.u32 is_sum, %21, 0; "
                 "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, "
                 "%13, %14, %15"
                 "}, {%16, %17, %18, %19}, %20, is_sum, 1, 1, %22;}"
                 : SUMS_8(c, 0), SUMS_8(c, 8)
                 : OPERANDS(a, desc, is_sum, IS_ACROSS));
}

template <int IS_ACROSS = 0>
__device__ static inline void multiply_64(float (&c)[28], const unsigned a[4],
                                          unsigned long long desc,
                                          unsigned is_sum)
{
    asm volatile("{.reg .pred is_sum; setp.ne.u32 is_sum, %33, 0; "
                 "wgmma.mma_async.sync.aligned.m64n56k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, "
                 "%13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "
                 "%24, %25, %26, %27"
                 "}, {%28, %29, %30, %31}, %32, is_sum, 1, 1, %34;}"
                 : SUMS_8(c, 0), SUMS_8(c, 8), SUMS_8(c, 16), SUMS_4(c, 24)
                 : OPERANDS(a, desc, is_sum, IS_ACROSS));
}

template <int IS_ACROSS = 0>
__device__ static inline void multiply_64(float (&c)[32], const unsigned a[4],
                                          unsigned long long desc,
                                          unsigned is_sum)
{
    asm volatile("{.reg .pred is_sum; setp.ne.u32 is_sum, %37, 0; "
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, "
                 "%13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "
                 "%24, %25, %26, %27, %28, %29, %30, %31"
                 "}, {%32, %33, %34, %35}, %36, is_sum, 1, 1, %38;}"
                 : SUMS_8(c, 0), SUMS_8(c, 8), SUMS_8(c, 16), SUMS_8(c, 24)
                 : OPERANDS(a, desc, is_sum, IS_ACROSS));
}

template <int IS_ACROSS = 0>
__device__ static inline void multiply_64(float (&c)[40], const unsigned a[4],
                                          unsigned long long desc,
                                          unsigned is_sum)
{
    asm volatile("{.reg .pred is_sum; setp.ne.u32 is_sum, %45, 0; "
                 "wgmma.mma_async.sync.aligned.m64n80k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, "
                 "%13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "
                 "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, "
                 "%35, %36, %37, %38, %39"
                 "}, {%40, %41, %42, %43}, %44, is_sum, 1, 1, %46;}"
                 : SUMS_8(c, 0), SUMS_8(c, 8), SUMS_8(c, 16), SUMS_8(c, 24),
                   SUMS_8(c, 32)
                 : OPERANDS(a, desc, is_sum, IS_ACROSS));
}

template <int IS_ACROSS = 0>
__device__ static inline void multiply_64(float (&c)[52], const unsigned a[4],
                                          unsigned long long desc,
                                          unsigned is_sum)
{
    asm volatile("{.reg .pred is_sum; setp.ne.u32 is_sum, %57, 0; "
                 "wgmma.mma_async.sync.aligned.m64n104k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, "
                 "%13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "
                 "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, "
                 "%35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, "
                 "%46, %47, %48, %49, %50, %51"
                 "}, {%52, %53, %54, %55}, %56, is_sum, 1, 1, %58;}"
                 : SUMS_8(c, 0), SUMS_8(c, 8), SUMS_8(c, 16), SUMS_8(c, 24),
                   SUMS_8(c, 32), SUMS_8(c, 40), SUMS_4(c, 48)
                 : OPERANDS(a, desc, is_sum, IS_ACROSS));
}

#undef SUMS_4
#undef SUMS_8
#undef OPERANDS

/* What products read, and their sums, is theirs from here on until they are
 * done. */
__device__ static inline void products_begin(void)
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ static inline void products_end(void)
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int n> __device__ static inline void products_wait(void)
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(n) : "memory");
}

/* Have values in their registers here, neither sooner nor later. */
template <unsigned N> __device__ static inline void settle(float (&v)[N])
{
#pragma unroll
    for (unsigned i = 0; i < N; i++)
        asm volatile("" : "+f"(v[i])::"memory");
}

__device__ static inline void store_shared(unsigned at, unsigned v)
{
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(at), "r"(v) : "memory");
}

/* What was stored in shared memory can be seen by products. */
__device__ static inline void show_stores(void)
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* Columns at an address in shared memory: of 16 neighbours along K eights lie
 * together, 16 bytes for each column, or for each neighbour those of eight
 * columns; the second eight are so many bytes behind the first. */
__device__ static inline unsigned long long columns_at(unsigned at,
                                                       unsigned half_step)
{
    const unsigned long long core = 8 * 16; /* to the next eight columns */

    return core >> 4 << 32 | half_step >> 4 << 16 | (at & 0x3FFFF) >> 4;
}

#endif

#endif /* VIBE_CUDA_PRODUCTS_CUH */
