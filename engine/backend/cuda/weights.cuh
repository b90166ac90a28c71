/* weights.cuh - weights of every dtype, loaded and made floats. */
#ifndef VIBE_CUDA_WEIGHTS_CUH
#define VIBE_CUDA_WEIGHTS_CUH

#include <cuda_fp16.h>

#include "engine/backend/cuda/tensor.cuh"
#include "engine/base/dtype.h"

/* Eight neighbours of a row, as they are stored. */
template <int dtype> struct weights8 {
    unsigned u[4];
};
template <> struct weights8<VIBE_F8_E4M3> {
    unsigned u[2];
};
template <> struct weights8<VIBE_I8> {
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
    else if constexpr (dtype == VIBE_F8_E4M3 || dtype == VIBE_I8)
        return n;
    else
        return n * 2;
}

/* Weights are read once: they pass the first cache by, and stay in order with
 * other volatile instructions. */
template <int dtype>
__device__ static inline void load8(weights8<dtype> &w, const void *p)
{
    if constexpr (dtype == VIBE_F8_E4M3 || dtype == VIBE_I8)
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
    } else if constexpr (dtype == VIBE_I8) {
#pragma unroll
        for (int i = 0; i < 8; i++)
            f[i] = (float)(signed char)(w.u[i / 4] >> (8 * (i % 4)));
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
    } else if constexpr (dtype == VIBE_I8) {
        return (float)((const signed char *)w)[i];
    } else {
        unsigned even, odd;

        spread_f8(even, odd, ((const unsigned char *)w)[i]);
        return halves(even).x;
    }
}

/*
 * Weights for the tensor cores (decode.cuh) come in tiles of 16 rows by
 * TILE_K neighbours.  Four lanes share a row: lane q of them takes elements
 * 16 q .. 16 q + 15 and turns them into eight pairs of bf16, exactly; what is
 * left to multiply is a scale of the row, which the epilogue does.
 *
 * A format says
 *
 *   ROW_BYTES      of a row of a tile, in memory and in shared memory: whole
 *                  copies of 16
 *   expand(pairs, row, r, q)
 *                  pairs of lane q, from row r of the tile, which is at row
 *
 * and, where lanes would meet in a bank, in what order the 16-byte pieces of
 * a row lie in shared memory: piece i of row r is at place(i, r).  A format
 * with scales along K has them multiply the sums of a tile (decode.cuh, where
 * sums are folded); one that cannot be read a row at a time unpacks its tile
 * in shared memory first.
 */
enum { TILE_N = 16, TILE_K = 64 };

template <int dtype> struct format;

#if __CUDA_ARCH__ >= 800
__device__ static inline void read_16_bytes(unsigned u[4], const void *p)
{
    const uint4 v = *(const uint4 *)p;

    u[0] = v.x, u[1] = v.y, u[2] = v.z, u[3] = v.w;
}
#endif

template <> struct format<VIBE_BF16> {
    enum { ROW_BYTES = 2 * TILE_K };

    /* odd rows swap neighbours */
    __device__ static inline unsigned place(unsigned piece, unsigned r)
    {
        return piece ^ (r & 1);
    }
#if __CUDA_ARCH__ >= 800
    __device__ static inline void expand(unsigned pairs[8],
                                         const unsigned char *row, unsigned r,
                                         unsigned q)
    {
        read_16_bytes(pairs, row + place(2 * q, r) * 16);
        read_16_bytes(pairs + 4, row + place(2 * q + 1, r) * 16);
    }
#endif
};

template <> struct format<VIBE_F8_E4M3> {
    enum { ROW_BYTES = TILE_K };

    __device__ static inline unsigned place(unsigned piece, unsigned)
    {
        return piece;
    }
#if __CUDA_ARCH__ >= 800
    /* A byte moved into a bf16 is 2^-120 of what it says, subnormals too;
     * scales expect 2^-8 of it. */
    __device__ static inline void expand(unsigned pairs[8],
                                         const unsigned char *row, unsigned,
                                         unsigned q)
    {
        const unsigned two_to_112 = 0x77807780u;
        unsigned u[4];

        read_16_bytes(u, row + 16 * q);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const unsigned v = __byte_perm(u[i / 2], 0,
                                           i % 2 ? 0x3424 : 0x1404);

            pairs[i] = scaled_pair((v & 0x80008000u) | ((v >> 4) & 0x07F007F0u),
                                   two_to_112);
        }
    }
#endif
};

template <> struct format<VIBE_I8> {
    enum { ROW_BYTES = TILE_K };

    __device__ static inline unsigned place(unsigned piece, unsigned)
    {
        return piece;
    }
#if __CUDA_ARCH__ >= 800
    /* The low 7 bits behind the exponent of 128 are 128 + those bits, bit 7
     * there is 128 or 256: their difference is the number. */
    __device__ static inline void expand(unsigned pairs[8],
                                         const unsigned char *row, unsigned,
                                         unsigned q)
    {
        unsigned u[4];

        read_16_bytes(u, row + 16 * q);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const unsigned v = __byte_perm(u[i / 2], 0,
                                           i % 2 ? 0x4342 : 0x4140);

            pairs[i] = difference_of_pairs((v & 0x007F007Fu) | 0x43004300u,
                                           (v & 0x00800080u) | 0x43004300u);
        }
    }
#endif
};

#endif /* VIBE_CUDA_WEIGHTS_CUH */
