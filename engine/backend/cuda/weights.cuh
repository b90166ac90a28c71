/* weights.cuh - weights of every dtype, loaded and made floats. */
#ifndef VIBE_CUDA_WEIGHTS_CUH
#define VIBE_CUDA_WEIGHTS_CUH

#include <cuda_fp16.h>

#include "engine/backend/cuda/tensor.cuh"
#include "engine/backend/tiles.h"
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

/*
 * Eight-bit weights lie in words of four neighbours (memory.c), which become
 * two pairs of bf16 in few instructions: too small, but right once multiplied
 * by FACTOR and moved by OFFSET, both bf16.
 */
template <int dtype> struct byte_weights;

/* A byte's sign and other seven bits, moved to where a bf16 has its own, are
 * 2^-120 of it, subnormals too.  The first pair lies so; the second comes out
 * of what else is in the word. */
template <> struct byte_weights<VIBE_F8_E4M3> {
    enum { FACTOR = 0x7B80, OFFSET = 0x8000 }; /* 2^120, -0 */

    __device__ static inline void tiny_pairs(unsigned pairs[2], unsigned v)
    {
        const unsigned mask = 0x87F087F0u;

        pairs[0] = v & mask;
        pairs[1] = (__byte_perm(v, 0, 0x2301) ^ (v << 4)) & mask;
    }
};

/* 128 more than the number in the lowest bits of a bf16 is 2^-133 of that.  It
 * becomes 2^-6 of the number. */
template <> struct byte_weights<VIBE_I8> {
    enum { FACTOR = 0x7F00, OFFSET = 0xC000 }; /* 2^127, -2 */

    __device__ static inline void tiny_pairs(unsigned pairs[2], unsigned v)
    {
        pairs[0] = __byte_perm(v, 0, 0x4140);
        pairs[1] = __byte_perm(v, 0, 0x4342);
    }
};

__device__ static inline float low_bf16(unsigned pair)
{
    return __uint_as_float(pair << 16);
}

__device__ static inline float high_bf16(unsigned pair)
{
    return __uint_as_float(pair & 0xFFFF0000u);
}

/* The four weights of a word. */
template <int dtype>
__device__ static inline void widen4(float f[4], unsigned v)
{
    typedef byte_weights<dtype> weights;
    const float factor = low_bf16(weights::FACTOR);
    const float offset = low_bf16(weights::OFFSET);
    unsigned pairs[2];

    weights::tiny_pairs(pairs, v);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        f[2 * i] = fmaf(low_bf16(pairs[i]), factor, offset);
        f[2 * i + 1] = fmaf(high_bf16(pairs[i]), factor, offset);
    }
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
            f[2 * i] = low_bf16(w.u[i]);
            f[2 * i + 1] = high_bf16(w.u[i]);
        }
    } else if constexpr (dtype == VIBE_F16) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float2 v = halves(w.u[i]);

            f[2 * i] = v.x;
            f[2 * i + 1] = v.y;
        }
    } else {
        widen4<dtype>(f, w.u[0]);
        widen4<dtype>(f + 4, w.u[1]);
    }
}

template <int dtype>
constexpr bool is_byte = dtype == VIBE_F8_E4M3 || dtype == VIBE_I8;

/* Where column k of row n is, in elements, in a matrix that has so many from
 * row to row; bytes may lie in bands (matrix.h). */
template <int dtype>
__device__ static inline size_t element_at(size_t n, unsigned k,
                                           unsigned stride, bool is_banded)
{
    const unsigned r = n % VIBE_TILE_ROWS;

    if (is_byte<dtype> && is_banded)
        return (n - r) * stride +
               k / VIBE_TILE_COLUMNS * (VIBE_TILE_COLUMNS * VIBE_TILE_ROWS) +
               r * VIBE_TILE_COLUMNS + k % VIBE_TILE_COLUMNS;
    return n * stride + k;
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
        float f[4];

        widen4<dtype>(f, ((const unsigned *)w)[i / 4]);
        return i % 4 < 2 ? f[i % 2] : f[2 + i % 2];
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
 *   TILE_BYTES     of a tile in shared memory: whole copies of 16
 *   ROW_BYTES      of a row of a tile, there and in memory
 *   expand(pairs, row, r, q)
 *                  pairs of lane q, from row r of the tile, which is at row,
 *                  for x that has grown (growth, below)
 *
 * and, where lanes would meet in a bank, in what order the 16-byte pieces of
 * a row lie in shared memory: piece i of row r is at place(i, r).  Formats of
 * tiles that lie whole in memory, too (backend/tiles.h, and bands of bytes),
 * say how many bytes of one there are, STORED_BYTES.
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
    enum { ROW_BYTES = 2 * TILE_K, TILE_BYTES = TILE_N * ROW_BYTES };

    /* odd rows swap neighbours */
    __device__ static inline unsigned place(unsigned piece, unsigned r)
    {
        return piece ^ (r & 1);
    }
#if __CUDA_ARCH__ >= 800
    __device__ static inline void expand_half(unsigned pairs[4],
                                              const unsigned char *row,
                                              unsigned r, unsigned q,
                                              unsigned half)
    {
        read_16_bytes(pairs, row + place(2 * q + half, r) * 16);
    }

    __device__ static inline void expand(unsigned pairs[8],
                                         const unsigned char *row, unsigned r,
                                         unsigned q)
    {
        expand_half(pairs, row, r, q, 0);
        expand_half(pairs + 4, row, r, q, 1);
    }
#endif
};

/*
 * Tensor cores also take float8 as small as it lies, 2^-120 of what it is, if x
 * is made greater before and sums after: powers of 2, which change no bit of a
 * sum as long as x is below 2^47 and not all of it below 2^-60.
 */
template <int dtype> struct growth {
    enum { OF_X = 0 }; /* bf16; 0: none is needed */
    static constexpr float OF_SUMS = 1.0f;
    static constexpr float OF_WOVEN = 0x1p-80f; /* of sums, x always grown */
};
template <> struct growth<VIBE_F8_E4M3> {
    enum { OF_X = GROWTH };
    static constexpr float OF_SUMS = 0x1p40f;
    static constexpr float OF_WOVEN = OF_SUMS;
};

/* What formats of a byte share. */
template <int dtype> struct byte_format {
    enum {
        ROW_BYTES = TILE_K,
        STORED_BYTES = TILE_N * ROW_BYTES,
        TILE_BYTES = STORED_BYTES,
    };

    __device__ static inline unsigned place(unsigned piece, unsigned)
    {
        return piece;
    }
#if __CUDA_ARCH__ >= 800
    __device__ static inline void expand4(unsigned pairs[2], unsigned v)
    {
        typedef byte_weights<dtype> weights;

        weights::tiny_pairs(pairs, v);
#pragma unroll
        for (int i = 0; i < 2; i++)
            pairs[i] = fma_pairs(pairs[i], weights::FACTOR * 0x10001u,
                                 weights::OFFSET * 0x10001u);
    }

    /* The same, for x that has grown. */
    __device__ static inline void expand4_small(unsigned pairs[2], unsigned v)
    {
        if constexpr (growth<dtype>::OF_X)
            byte_weights<dtype>::tiny_pairs(pairs, v);
        else
            expand4(pairs, v);
    }

    __device__ static inline void expand(unsigned pairs[8],
                                         const unsigned char *row, unsigned,
                                         unsigned q)
    {
        unsigned u[4];

        read_16_bytes(u, row + 16 * q);
#pragma unroll
        for (int i = 0; i < 4; i++)
            expand4_small(pairs + 2 * i, u[i]);
    }
#endif
};

template <> struct format<VIBE_F8_E4M3> : byte_format<VIBE_F8_E4M3> {
};
template <> struct format<VIBE_I8> : byte_format<VIBE_I8> {
};

template <> struct format<VIBE_I4> {
    enum { STORED_BYTES = VIBE_TILE_I4_BYTES, TILE_BYTES = STORED_BYTES };
};

template <> struct format<VIBE_BF16_PACKED> {
    enum { STORED_BYTES = VIBE_TILE_PACKED_BYTES, TILE_BYTES = STORED_BYTES };
};

#endif /* VIBE_CUDA_WEIGHTS_CUH */
