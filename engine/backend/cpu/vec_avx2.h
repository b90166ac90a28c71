/*
 * vec_avx2.h - eight floats, as kernels.inc wants them.
 */
#ifndef VIBE_BACKEND_CPU_VEC_AVX2_H
#define VIBE_BACKEND_CPU_VEC_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "engine/base/dtype.h"

#define VEC_TARGET __attribute__((target("avx2,fma,f16c")))
#define VEC        static inline __attribute__((always_inline)) VEC_TARGET

#define VEC_N      8
#define VEC_DOT_X  3 /* 12 sums and 3 x fill the 16 registers */
#define VEC_TILE_M 6 /* 12 sums, 2 columns, 1 x */

typedef __m256 vec;

VEC vec vec_load(const float *p)
{
    return _mm256_loadu_ps(p);
}

VEC void vec_store(float *p, vec a)
{
    _mm256_storeu_ps(p, a);
}

VEC vec vec_set(float f)
{
    return _mm256_set1_ps(f);
}

VEC vec vec_add(vec a, vec b)
{
    return _mm256_add_ps(a, b);
}

VEC vec vec_sub(vec a, vec b)
{
    return _mm256_sub_ps(a, b);
}

VEC vec vec_mul(vec a, vec b)
{
    return _mm256_mul_ps(a, b);
}

VEC vec vec_div(vec a, vec b)
{
    return _mm256_div_ps(a, b);
}

/* a * b + c */
VEC vec vec_fma(vec a, vec b, vec c)
{
    return _mm256_fmadd_ps(a, b, c);
}

/* c - a * b */
VEC vec vec_fnma(vec a, vec b, vec c)
{
    return _mm256_fnmadd_ps(a, b, c);
}

/* The larger and the smaller; b where either is NaN. */
VEC vec vec_max(vec a, vec b)
{
    return _mm256_max_ps(a, b);
}

VEC vec vec_min(vec a, vec b)
{
    return _mm256_min_ps(a, b);
}

VEC vec vec_abs(vec a)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}

VEC vec vec_round(vec a)
{
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* a * 2^n for whole n, where neither a nor the result is subnormal. */
VEC vec vec_scale(vec a, vec n)
{
    __m256i bits = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);

    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), bits));
}

VEC float vec_sum(vec a)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a),
                          _mm256_extractf128_ps(a, 1));

    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    s = _mm_add_ss(s, _mm_movehdup_ps(s));
    return _mm_cvtss_f32(s);
}

VEC float vec_largest(vec a)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a),
                          _mm256_extractf128_ps(a, 1));

    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    s = _mm_max_ss(s, _mm_movehdup_ps(s));
    return _mm_cvtss_f32(s);
}

VEC vec vec_bf16(const void *p)
{
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p));

    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

VEC vec vec_f16(const void *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128(p));
}

/*
 * 16 e4m3 as f16, times 2^-8: with exponent and fraction moved to the top of
 * the lower fields a byte has that value, subnormals too.  Only the NaN code
 * has to be made one by hand.
 */
VEC __m256i vec_f8_as_f16(__m128i bytes)
{
    __m256i wide = _mm256_slli_epi16(_mm256_cvtepi8_epi16(bytes), 7);
    __m256i half = _mm256_and_si256(wide, _mm256_set1_epi16((short)0xBFFF));
    __m256i size = _mm256_and_si256(half, _mm256_set1_epi16(0x7FFF));
    __m256i nan = _mm256_cmpeq_epi16(size, _mm256_set1_epi16(0x3F80));

    return _mm256_or_si256(half, nan);
}

VEC vec vec_f8(const void *p)
{
    __m256i half = vec_f8_as_f16(_mm_loadl_epi64(p));

    return _mm256_mul_ps(_mm256_cvtph_ps(_mm256_castsi256_si128(half)),
                         _mm256_set1_ps(256.0f));
}

/* Whole numbers, and those that nibbles stand for (see dtype.h). */
VEC vec vec_bytes(__m128i bytes)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
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

/* 8 stored numbers from p on. */
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
        return vec_bytes(_mm_loadl_epi64(p));
    case VIBE_I4:
    case VIBE_BF16_PACKED:
    case VIBE_I64:
    case VIBE_U8:
        break;
    }
    return vec_set(0.0f);
}

/* 16 stored numbers from p on, in two. */
VEC void vec_widen_pair(vec out[2], const void *p, enum vibe_dtype dtype)
{
    __m256i half;

    if (dtype != VIBE_F8_E4M3) {
        out[0] = vec_widen(p, dtype);
        out[1] = vec_widen((const char *)p + VEC_N * vec_width(dtype), dtype);
        return;
    }
    half = vec_f8_as_f16(_mm_loadu_si128(p));
    out[0] = _mm256_mul_ps(_mm256_cvtph_ps(_mm256_castsi256_si128(half)),
                           _mm256_set1_ps(256.0f));
    out[1] = _mm256_mul_ps(_mm256_cvtph_ps(_mm256_extracti128_si256(half, 1)),
                           _mm256_set1_ps(256.0f));
}

/* 16 I4 from p on, in two. */
VEC void vec_i4_pair(vec out[2], const void *p)
{
    __m128i bytes = vec_nibbles(_mm_loadl_epi64(p));

    out[0] = vec_bytes(bytes);
    out[1] = vec_bytes(_mm_unpackhi_epi64(bytes, bytes));
}

#endif /* VIBE_BACKEND_CPU_VEC_AVX2_H */
