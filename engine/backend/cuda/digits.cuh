/*
 * digits.cuh - x as tensor cores multiply it with int4.
 *
 * A row's TILE_K neighbours in a tile have a unit, a power of two: each is the
 * nearest multiple of it, of 16 bits, so of two signed bytes, 256 * high + low.
 * The largest of them keeps 15 bits, and a sum of a tile is exact whatever its
 * order; scales of groups and units come after it.
 *
 * In shared memory row m of x that becomes digits there has DIGIT_ROW bytes of
 * a tile: high or low ones first, by whether m is even or odd, so that lanes of
 * two rows meet in no bank.
 *
 * A tensor in digits (backend.h) has in the place of a row's floats DIGIT_TILE
 * bytes for each tile, one behind the other: high digits, low ones, the unit,
 * and nothing, so that all can be moved by 16 bytes.  Rows are whole tiles.
 */
#ifndef VIBE_CUDA_DIGITS_CUH
#define VIBE_CUDA_DIGITS_CUH

#include "engine/backend/cuda/split.cuh"
#include "engine/backend/cuda/weights.cuh"

enum {
    DIGIT_ROW = 2 * TILE_K,
    DIGIT_TILE = DIGIT_ROW + 16,
};

#if __CUDA_ARCH__ >= 800

/* Four neighbours. */
struct digits {
    unsigned high, low;
};

/* What neighbours are multiplied by to be counted in units, and those. */
struct digit_scale {
    float times, unit; /* of a sixteenth: weights come sixteenfold */
};

/* Of neighbours of which the largest has these bits. */
__device__ static inline digit_scale digit_scale_of(unsigned most)
{
    const unsigned room = 0x10400; /* 256 * 127 + 127 is the largest */
    const unsigned least = 19;     /* so that units are no denormals */
    const unsigned exponent = max((most + room) >> 23, least);

    return {__uint_as_float((2 * 127 + 14 - exponent) << 23),
            __uint_as_float(most < 0x7F800000u ? (exponent - 18) << 23
                                               : 0x7FFFFFFFu)};
}

/* A count whose high digit is byte 1 and whose low digit is byte 0, but for its
 * uppermost bit. */
__device__ static inline unsigned count_of(float v, float times)
{
    return __float_as_uint(fmaf(v, times, 0x1.8p23f + 128.0f));
}

/* The larger one, or NaN if there is one. */
__device__ static inline float larger(float a, float b)
{
    float most;

    asm("max.NaN.f32 %0, %1, %2;" : "=f"(most) : "f"(a), "f"(b));
    return most;
}

/* Bits of the largest of this lane's four neighbours. */
__device__ static inline unsigned largest(const float4 &x)
{
    return __float_as_uint(
        larger(larger(fabsf(x.x), fabsf(x.y)), larger(fabsf(x.z), fabsf(x.w))));
}

/* Of N tiles, of which lanes of a half of a warp have four neighbours each:
 * bits of the largest of tile threadIdx.x % N.  Lanes that meet share out their
 * tiles as long as they have several. */
template <int N>
__device__ static inline unsigned find_largest(const float4 x[N])
{
    unsigned most[N];

#pragma unroll
    for (int i = 0; i < N; i++)
        most[i] = largest(x[i]);
#pragma unroll
    for (int bit = 1, n = N; bit < 16; bit *= 2, n = (n + 1) / 2) {
        const bool is_upper = threadIdx.x & bit;

#pragma unroll
        for (int i = 0; i < n; i += 2) {
            const int other = n > 1 ? i + 1 : i;
            const unsigned given = is_upper ? most[i] : most[other];
            const unsigned kept = is_upper ? most[other] : most[i];

            most[i / 2] = max(kept, __shfl_xor_sync(0xFFFFFFFFu, given, bit));
        }
    }
    return most[0];
}

/* The same of one. */
template <> __device__ inline unsigned find_largest<1>(const float4 x[1])
{
    const bool is_upper = threadIdx.x & 16;
    const unsigned most = largest(x[0]);
    const unsigned upper = __reduce_max_sync(0xFFFFFFFFu, is_upper ? most : 0);
    const unsigned lower = __reduce_max_sync(0xFFFFFFFFu, is_upper ? 0 : most);

    return is_upper ? upper : lower;
}

__device__ static inline digits digits_of(const float4 &x, float times)
{
    const float v[4] = {x.x, x.y, x.z, x.w};
    unsigned pair[2];
    digits d;

#pragma unroll
    for (int i = 0; i < 2; i++)
        pair[i] = __byte_perm(count_of(v[2 * i], times),
                              count_of(v[2 * i + 1], times), 0x5140);
    d.low = __byte_perm(pair[0], pair[1], 0x5410) ^ 0x80808080u;
    d.high = __byte_perm(pair[0], pair[1], 0x7632);
    return d;
}

/* What is meant by four words of x. */
__device__ static inline float4 meant(const float4 &x, bool is_split)
{
    return make_float4(meant(x.x, is_split), meant(x.y, is_split),
                       meant(x.z, is_split), meant(x.w, is_split));
}

/* The same in place, in a loop of one turn at most: were it no branch, there
 * would be instructions for what is not split, too. */
template <int N> __device__ static inline void mean(float4 x[N], bool is_split)
{
#pragma unroll 1
    for (bool is_left = is_split; is_left; is_left = false)
#pragma unroll
        for (int i = 0; i < N; i++)
            x[i] = meant(x[i], true);
}

/* Where row m has its high digits, or its low ones. */
__device__ static inline unsigned digits_at(unsigned m, bool is_low)
{
    return (is_low ^ (m & 1)) * TILE_K;
}

/* Leave the digits of this lane's quads of row m of N tiles, STEP bytes from
 * one to the next, and their units. */
template <int N, int STEP>
__device__ static inline void put_digits(unsigned char *row,
                                         unsigned char *unit, unsigned m,
                                         const float4 x[N])
{
    const unsigned lane = threadIdx.x % 16;
    const digit_scale scale = digit_scale_of(find_largest<N>(x));
    unsigned char *high = row + digits_at(m, false) + 4 * lane;
    unsigned char *low = row + digits_at(m, true) + 4 * lane;

    if (lane < N)
        *(float *)(unit + lane * STEP) = scale.unit;
#pragma unroll
    for (int i = 0; i < N; i++) {
        const float times = N > 1 ? __shfl_sync(0xFFFFFFFFu, scale.times, i, 16)
                                  : scale.times;
        const digits d = digits_of(x[i], times);

        *(unsigned *)(high + i * STEP) = d.high;
        *(unsigned *)(low + i * STEP) = d.low;
    }
}

/* The same of one tile. */
__device__ static inline void put_digits(unsigned char *row,
                                         unsigned char *unit, unsigned m,
                                         float4 x, bool is_split)
{
    mean<1>(&x, is_split);
    put_digits<1, 0>(row, unit, m, &x);
}

/* What both digits' sums of a tile come to. */
__device__ static inline float sum_of(int high, int low)
{
    return (float)(256 * high + low);
}

#endif

/* Leave four neighbours of each lane, c being this one's first, in a row of a
 * tensor in digits: of half a warp those of a tile.  All lanes come, also those
 * of a half that is not there. */
__device__ static inline void write_digits(float *row, unsigned c,
                                           const float4 &x, bool is_there)
{
#if __CUDA_ARCH__ >= 800
    unsigned char *tile = (unsigned char *)row + c / TILE_K * DIGIT_TILE;
    const digit_scale scale = digit_scale_of(find_largest<1>(&x));
    const digits d = digits_of(x, scale.times);

    if (!is_there)
        return;
    *(unsigned *)(tile + c % TILE_K) = d.high;
    *(unsigned *)(tile + TILE_K + c % TILE_K) = d.low;
    if (c % TILE_K == 0)
        *(float *)(tile + DIGIT_ROW) = scale.unit;
#endif
}

/* What is meant at c of such a row. */
__device__ static inline float read_digits(const float *row, unsigned c)
{
    const signed char *tile = (const signed char *)row +
                              c / TILE_K * DIGIT_TILE;
    const int count = 256 * tile[c % TILE_K] + tile[TILE_K + c % TILE_K];

    return (float)count * 16.0f * *(const float *)(tile + DIGIT_ROW);
}

#endif /* VIBE_CUDA_DIGITS_CUH */
