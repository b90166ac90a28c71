/* weights.cuh - weights of every dtype, loaded and made floats. */
#ifndef VIBE_CUDA_WEIGHTS_CUH
#define VIBE_CUDA_WEIGHTS_CUH

#include <cuda_fp16.h>

#include "engine/base/dtype.h"

/* Eight neighbours of a row, as they are stored. */
template <int dtype> struct weights8 {
    unsigned u[4];
};
template <> struct weights8<VIBE_F8_E4M3> {
    unsigned u[2];
};
template <> struct weights8<VIBE_F32> {
    unsigned u[8];
};

__device__ static inline void load_v4(unsigned *u, const void *p)
{
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(u[0]), "=r"(u[1]), "=r"(u[2]), "=r"(u[3])
                 : "l"(p));
}

__device__ static inline void load_v2(unsigned *u, const void *p)
{
    asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];"
                 : "=r"(u[0]), "=r"(u[1])
                 : "l"(p));
}

template <int dtype> __device__ static inline size_t weight_bytes(size_t n)
{
    if constexpr (dtype == VIBE_F32)
        return n * 4;
    else if constexpr (dtype == VIBE_F8_E4M3)
        return n;
    else
        return n * 2;
}

/* Weights are read once: they pass the first cache by, and stay in order with
 * other volatile instructions. */
template <int dtype>
__device__ static inline void load8(weights8<dtype> &w, const void *p)
{
    if constexpr (dtype == VIBE_F8_E4M3)
        load_v2(w.u, p);
    else
        load_v4(w.u, p);
    if constexpr (dtype == VIBE_F32)
        load_v4(w.u + 4, (const char *)p + 16);
}

__device__ static inline float2 halves(unsigned u)
{
    __half2 h;

    memcpy(&h, &u, sizeof(h));
    return __half22float2(h);
}

/* Four e4m3 as float16 with the same bits are 1 / 256 of them, subnormals
 * too.  even gets bytes 0 and 2, odd 1 and 3. */
__device__ static inline void spread_f8(unsigned &even, unsigned &odd,
                                        unsigned u)
{
    const unsigned v = u << 8;

    even = (v & 0x80008000u) | ((v >> 1) & 0x3F803F80u);
    odd = (u & 0x80008000u) | ((u >> 1) & 0x3F803F80u);
}

template <int dtype>
__device__ static inline void widen8(float f[8], const weights8<dtype> &w)
{
    if constexpr (dtype == VIBE_F32) {
#pragma unroll
        for (int i = 0; i < 8; i++)
            f[i] = __uint_as_float(w.u[i]);
    } else if constexpr (dtype == VIBE_BF16) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            f[2 * i] = __uint_as_float(w.u[i] << 16);
            f[2 * i + 1] = __uint_as_float(w.u[i] & 0xFFFF0000u);
        }
    } else if constexpr (dtype == VIBE_F16) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float2 v = halves(w.u[i]);

            f[2 * i] = v.x;
            f[2 * i + 1] = v.y;
        }
    } else {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            unsigned even, odd;
            float2 a, b;

            spread_f8(even, odd, w.u[i]);
            a = halves(even);
            b = halves(odd);
            f[4 * i] = a.x;
            f[4 * i + 1] = b.x;
            f[4 * i + 2] = a.y;
            f[4 * i + 3] = b.y;
        }
    }
}

/* One weight. */
template <int dtype>
__device__ static inline float weight_at(const void *w, size_t i)
{
    if constexpr (dtype == VIBE_F32) {
        return ((const float *)w)[i];
    } else if constexpr (dtype == VIBE_BF16) {
        return __uint_as_float((unsigned)((const unsigned short *)w)[i] << 16);
    } else if constexpr (dtype == VIBE_F16) {
        return __half2float(((const __half *)w)[i]);
    } else {
        unsigned even, odd;

        spread_f8(even, odd, ((const unsigned char *)w)[i]);
        return halves(even).x;
    }
}

#endif /* VIBE_CUDA_WEIGHTS_CUH */
