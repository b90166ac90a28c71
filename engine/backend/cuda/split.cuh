/*
 * split.cuh - the form in which products take x.
 *
 * Tensor cores multiply x as two bf16, high + low, which is all of it but
 * 2^-17.  A tensor for products (backend.h) is kept in these parts: the
 * upper half of each word is the high part, the lower half the low one.  GPUs
 * without bf16 keep floats.
 *
 * One that is woven, for weights of a byte, has in the place of every WEAVE
 * words their high parts, then their low ones, sixteen for each of four
 * products (decode.cuh) in the order in which lanes have weights; all of them
 * have grown as float8 wants it (weights.cuh).
 *
 * For int4 it is in digits, see digits.cuh.
 */
#ifndef VIBE_CUDA_SPLIT_CUH
#define VIBE_CUDA_SPLIT_CUH

#include "engine/backend/backend.h"

#if __CUDA_ARCH__ >= 800

/* Two bf16, lo in the lower half. */
__device__ static inline unsigned pack(float lo, float hi)
{
    unsigned u;

    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(u) : "f"(hi), "f"(lo));
    return u;
}

/* a * b + c of two bf16 each. */
__device__ static inline unsigned fma_pairs(unsigned a, unsigned b, unsigned c)
{
    unsigned u;

    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(u) : "r"(a), "r"(b), "r"(c));
    return u;
}

/* Two neighbours in their parts. */
__device__ static inline void split(unsigned &high, unsigned &low, float2 v)
{
    high = pack(v.x, v.y);
    low = pack(v.x - __uint_as_float(high << 16),
               v.y - __uint_as_float(high & 0xFFFF0000u));
}

/* The same of two words of a tensor, which is_split says how to read. */
__device__ static inline void read_split(unsigned &high, unsigned &low,
                                         float2 words, bool is_split)
{
    const unsigned x = __float_as_uint(words.x);
    const unsigned y = __float_as_uint(words.y);

    if (is_split) {
        high = __byte_perm(x, y, 0x7632);
        low = __byte_perm(x, y, 0x5410);
    } else {
        split(high, low, words);
    }
}

#endif

/* v as a tensor keeps it. */
__device__ static inline float kept(float v, bool is_split)
{
#if __CUDA_ARCH__ >= 800
    const float high = __uint_as_float(pack(0.0f, v));

    return is_split ? __uint_as_float(pack(v - high, v)) : v;
#else
    return v;
#endif
}

__device__ static inline float4 kept(float4 v, bool is_split)
{
    return make_float4(kept(v.x, is_split), kept(v.y, is_split),
                       kept(v.z, is_split), kept(v.w, is_split));
}

enum {
    WEAVE = 64,
    GROWTH = 0x6780, /* 2^80 as bf16 */
};

/* Two parts that have grown. */
__device__ static inline unsigned grown(unsigned parts)
{
#if __CUDA_ARCH__ >= 800
    return fma_pairs(parts, GROWTH * 0x10001u, 0x80008000u);
#else
    return parts;
#endif
}

/* How a tensor keeps numbers: split, and then maybe woven, or in digits, which
 * keep_at does not write. */
struct keeping {
    bool is_split, is_woven, is_in_digits;
};

static inline struct keeping keeping_of(const struct vibe_tensor *t)
{
    const enum vibe_form form = t->form;

    return {form == VIBE_FORM_PARTS || form == VIBE_FORM_WOVEN,
            form == VIBE_FORM_WOVEN, form == VIBE_FORM_DIGITS};
}

/* Where c's pair of high parts is in a row that is woven, in words; that of low
 * ones comes WEAVE / 2 behind. */
__device__ static inline unsigned woven_at(unsigned c)
{
    return c / WEAVE * WEAVE + c % 16 / 4 * 8 + c % 4 / 2 * 4 + c % WEAVE / 16;
}

/* Keep a number at c of a row. */
__device__ static inline void keep_at(float *row, unsigned c, float v,
                                      keeping how)
{
    const float word = kept(v, how.is_split);
    unsigned short *to = (unsigned short *)(row + woven_at(c)) + c % 2;

    if (how.is_woven) {
        const unsigned parts = grown(__float_as_uint(word));

        to[0] = (unsigned short)(parts >> 16);
        to[WEAVE] = (unsigned short)parts;
    } else {
        row[c] = word;
    }
}

/* Keep two neighbours, c even. */
__device__ static inline void keep_at(float *row, unsigned c, float2 v,
                                      keeping how)
{
    const float2 words = make_float2(kept(v.x, how.is_split),
                                     kept(v.y, how.is_split));
    unsigned *to = (unsigned *)row + woven_at(c);

    if (how.is_woven) {
        const unsigned x = __float_as_uint(words.x);
        const unsigned y = __float_as_uint(words.y);

        to[0] = grown(__byte_perm(x, y, 0x7632));
        to[WEAVE / 2] = grown(__byte_perm(x, y, 0x5410));
    } else {
        *(float2 *)(row + c) = words;
    }
}

/* Keep four, c a multiple of four. */
__device__ static inline void keep_at(float *row, unsigned c, float4 v,
                                      keeping how)
{
    if (how.is_woven) {
        keep_at(row, c, make_float2(v.x, v.y), how);
        keep_at(row, c + 2, make_float2(v.z, v.w), how);
    } else {
        *(float4 *)(row + c) = kept(v, how.is_split);
    }
}

/* The high part of a word of a tensor, or all of it. */
__device__ static inline float high_of(float word, bool is_split)
{
#if __CUDA_ARCH__ >= 800
    return is_split ? __uint_as_float(__float_as_uint(word) & 0xFFFF0000u)
                    : word;
#else
    return word;
#endif
}

/* What is meant by it. */
__device__ static inline float meant(float word, bool is_split)
{
#if __CUDA_ARCH__ >= 800
    const float low = __uint_as_float(__float_as_uint(word) << 16);

    return is_split ? high_of(word, true) + low : word;
#else
    return word;
#endif
}

/* What is meant at c of a row. */
__device__ static inline float meant_at(const float *row, unsigned c,
                                        keeping how)
{
    const unsigned short *from = (const unsigned short *)(row + woven_at(c)) +
                                 c % 2;

    return how.is_woven
               ? 0x1p-80f * meant(__uint_as_float((unsigned)from[0] << 16 |
                                                  from[WEAVE]),
                                  true)
               : meant(row[c], how.is_split);
}

#endif /* VIBE_CUDA_SPLIT_CUH */
