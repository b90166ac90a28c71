/* tensor.cuh - the tensor cores' bf16 product and copies to shared memory,
 * both of compute capability 8.0 on. */
#ifndef VIBE_CUDA_TENSOR_CUH
#define VIBE_CUDA_TENSOR_CUH

#include "engine/backend/cuda/split.cuh"

#if __CUDA_ARCH__ >= 800

/* Copy size bytes (4, 8 or 16) to shared memory, or as many zeros.  With 16 of
 * them the line that they are in is brought near: others will want the rest. */
template <int size>
__device__ static inline void copy_async(void *shared, const void *global,
                                         bool is_there)
{
    const unsigned to = (unsigned)__cvta_generic_to_shared(shared);
    const int n = is_there ? size : 0;

    if constexpr (size == 16)
        asm volatile(
            "cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to),
            "l"(global), "r"(n)
            : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to),
                     "l"(global), "n"(size), "r"(n)
                     : "memory");
}

/* How lines lie in the second cache: what passes goes before all else, which is
 * read again sooner; what stays goes last. */
typedef unsigned long long policy;

__device__ static inline policy passing(void)
{
    policy p;

    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(p));
    return p;
}

__device__ static inline policy staying(void)
{
    policy p;

    asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(p));
    return p;
}

/* Copy 16 bytes so, or as many zeros. */
__device__ static inline void copy_by(policy p, void *shared,
                                      const void *global, bool is_there)
{
    const unsigned to = (unsigned)__cvta_generic_to_shared(shared);
    const int n = is_there ? 16 : 0;

    asm volatile(
        "cp.async.cg.shared.global.L2::cache_hint.L2::128B [%0], [%1], 16, %2, "
        "%3;" ::"r"(to),
        "l"(global), "r"(n), "l"(p)
        : "memory");
}

/* Copy 16 bytes so, or nothing, without a branch. */
__device__ static inline void copy_if(policy p, bool is_there, void *shared,
                                      const void *global)
{
    const unsigned to = (unsigned)__cvta_generic_to_shared(shared);

    asm volatile(
        "{.reg .pred is_there; setp.ne.u32 is_there, %2, 0; @is_there "
        "cp.async.cg.shared.global.L2::cache_hint.L2::128B [%0], [%1], 16, "
        "%3;}" ::"r"(to),
        "l"(global), "r"((unsigned)is_there), "l"(p)
        : "memory");
}

/* The copies since the last call are one group. */
__device__ static inline void copies_end(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Wait until at most n groups are under way. */
template <int n> __device__ static inline void copies_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(n) : "memory");
}

/* c [16][8] += a [16][16] b [16][8], in the layout of mma.m16n8k16. */
__device__ static inline void multiply(float c[4], const unsigned a[4],
                                       const unsigned b[2])
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* The same of signed bytes, c [16][8] += a [16][32] b [32][8], in the layout of
 * mma.m16n8k32. */
__device__ static inline void multiply_bytes(int c[4], const unsigned a[4],
                                             const unsigned b[2])
{
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#endif

#endif /* VIBE_CUDA_TENSOR_CUH */
