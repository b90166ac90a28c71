/* shared.cuh - shared memory by its own addresses, of 32 bits, and values that
 * stay in registers. */
#ifndef VIBE_CUDA_SHARED_CUH
#define VIBE_CUDA_SHARED_CUH

#if __CUDA_ARCH__ >= 800

__device__ static inline unsigned shared_address(const void *shared)
{
    return (unsigned)__cvta_generic_to_shared(shared);
}

__device__ static inline void read_shared(unsigned u[4], unsigned at)
{
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(u[0]), "=r"(u[1]), "=r"(u[2]), "=r"(u[3])
                 : "r"(at));
}

/* Start copying 16 bytes, or as many zeros; as copy_async. */
__device__ static inline void copy_to_shared(unsigned to, const void *global,
                                             bool is_there)
{
    const int n = is_there ? 16 : 0;

    asm volatile(
        "cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to),
        "l"(global), "r"(n)
        : "memory");
}

/* Have a value in a register from here on, not worked out again where it is
 * wanted: in a loop that costs more than the register. */
template <class T> __device__ static inline void keep(T &v)
{
    asm volatile("" : "+r"(v));
}

__device__ static inline void keep(float &v)
{
    asm volatile("" : "+f"(v));
}

template <class T> __device__ static inline void keep(T *&v)
{
    asm volatile("" : "+l"(v));
}

#endif

#endif /* VIBE_CUDA_SHARED_CUH */
