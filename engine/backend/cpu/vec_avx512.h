/*
 * vec_avx512.h - sixteen floats, as kernels.inc wants them.
 */
#ifndef VIBE_BACKEND_CPU_VEC_AVX512_H
#define VIBE_BACKEND_CPU_VEC_AVX512_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "engine/base/dtype.h"

#define VEC_TARGET \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")))
#define VEC static inline __attribute__((always_inline)) VEC_TARGET

#define VEC_N      16
#define VEC_DOT_X  6  /* 24 sums and 6 x of 32 registers */
#define VEC_TILE_M 12 /* 24 sums, 2 columns, 1 x */

typedef __m512 vec;

VEC vec vec_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

VEC void vec_store(float *p, vec a)
{
    _mm512_storeu_ps(p, a);
}

VEC vec vec_set(float f)
{
    return _mm512_set1_ps(f);
}

VEC vec vec_add(vec a, vec b)
{
    return _mm512_add_ps(a, b);
}

VEC vec vec_sub(vec a, vec b)
{
    return _mm512_sub_ps(a, b);
}

VEC vec vec_mul(vec a, vec b)
{
    return _mm512_mul_ps(a, b);
}

VEC vec vec_div(vec a, vec b)
{
    return _mm512_div_ps(a, b);
}

/* a * b + c */
VEC vec vec_fma(vec a, vec b, vec c)
{
    return _mm512_fmadd_ps(a, b, c);
}

/* c - a * b */
VEC vec vec_fnma(vec a, vec b, vec c)
{
    return _mm512_fnmadd_ps(a, b, c);
}

/* The larger and the smaller; b where either is NaN. */
VEC vec vec_max(vec a, vec b)
{
    return _mm512_max_ps(a, b);
}

VEC vec vec_min(vec a, vec b)
{
    return _mm512_min_ps(a, b);
}

VEC vec vec_abs(vec a)
{
    return _mm512_abs_ps(a);
}

VEC vec vec_round(vec a)
{
    return _mm512_roundscale_ps(a,
                                _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* a * 2^n for whole n, where neither a nor the result is subnormal. */
VEC vec vec_scale(vec a, vec n)
{
    __m512i bits = _mm512_slli_epi32(_mm512_cvtps_epi32(n), 23);

    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), bits));
}

VEC float vec_sum(vec a)
{
    return _mm512_reduce_add_ps(a);
}

VEC float vec_largest(vec a)
{
    return _mm512_reduce_max_ps(a);
}

VEC vec vec_bf16(const void *p)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p));

    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

VEC vec vec_f16(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}

/* As in vec_avx2.h. */
VEC vec vec_f8(const void *p)
{
    __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(p));
    __m256i half = _mm256_and_si256(_mm256_slli_epi16(wide, 7),
                                    _mm256_set1_epi16((short)0xBFFF));
    __mmask16 nan = _mm256_cmpeq_epi16_mask(
        _mm256_and_si256(half, _mm256_set1_epi16(0x7FFF)),
        _mm256_set1_epi16(0x3F80));

    half = _mm256_mask_set1_epi16(half, nan, 0x7FFF);
    return _mm512_mul_ps(_mm512_cvtph_ps(half), _mm512_set1_ps(256.0f));
}

/* Whole numbers, and those that nibbles stand for (see dtype.h). */
VEC vec vec_bytes(__m128i bytes)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
}

VEC __m128i vec_nibbles(__m128i two)
{
    const __m128i low = _mm_set1_epi8(15);
    __m128i even = _mm_and_si128(two, low);
    __m128i odd = _mm_and_si128(_mm_srli_epi16(two, 4), low);

    return _mm_sub_epi8(_mm_unpacklo_epi8(even, odd), _mm_set1_epi8(8));
}

/* Bytes of one number, known to the compiler. */
VEC size_t vec_width(enum vibe_dtype dtype)
{
    return dtype == VIBE_F32                           ? 4
           : dtype == VIBE_F8_E4M3 || dtype == VIBE_I8 ? 1
                                                       : 2;
}

/* 16 stored numbers from p on. */
VEC vec vec_widen(const void *p, enum vibe_dtype dtype)
{
    switch (dtype) {
    case VIBE_F32:
        return vec_load(p);
    case VIBE_BF16:
        return vec_bf16(p);
    case VIBE_F16:
        return vec_f16(p);
    case VIBE_F8_E4M3:
        return vec_f8(p);
    case VIBE_I8:
        return vec_bytes(_mm_loadu_si128(p));
    case VIBE_I4:
    case VIBE_BF16_PACKED:
    case VIBE_I64:
    case VIBE_U8:
        break;
    }
    return vec_set(0.0f);
}

/* 32 stored numbers from p on, in two. */
VEC void vec_widen_pair(vec out[2], const void *p, enum vibe_dtype dtype)
{
    out[0] = vec_widen(p, dtype);
    out[1] = vec_widen((const char *)p + VEC_N * vec_width(dtype), dtype);
}

/* 32 I4 from p on, in two. */
VEC void vec_i4_pair(vec out[2], const void *p)
{
    __m128i two = _mm_loadu_si128(p);

    out[0] = vec_bytes(vec_nibbles(two));
    out[1] = vec_bytes(vec_nibbles(_mm_unpackhi_epi64(two, two)));
}

#endif /* VIBE_BACKEND_CPU_VEC_AVX512_H */
