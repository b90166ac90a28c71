/*
 * split.cuh - the form in which products take x.
 *
 * Tensor cores multiply x as two bf16, high + low, which is all of it but
 * 2^-17.  A tensor that only products read (is_for_products) is kept so: the
 * upper half of each word is the high part, the lower half the low one.  GPUs
 * without bf16 keep floats.
 */
#ifndef VIBE_CUDA_SPLIT_CUH
#define VIBE_CUDA_SPLIT_CUH

#if __CUDA_ARCH__ >= 800

/* Two bf16, lo in the lower half. */
__device__ static inline unsigned pack(float lo, float hi)
{
    unsigned u;

    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(u) : "f"(hi), "f"(lo));
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

#endif /* VIBE_CUDA_SPLIT_CUH */
