/* Kernels for AVX2 with FMA and F16C. */
#include "engine/backend/cpu/kernels.h"

#if defined(__x86_64__)
#include "engine/backend/cpu/vec_avx2.h"

#include "engine/backend/cpu/kernels.inc"

/* Bytes from one piece of K to the next (BLOCK_K in gemm.c). */
enum { PIECE = 512 };

/* Transpose 8 x 8 in place. */
VEC void transpose(vec r[8])
{
    vec a[8], b[8];

    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        a[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
        b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xEE);
        b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
        b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xEE);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
    }
}

VEC void pack_of(float *panel, size_t ld, const void *const rows[8], size_t K,
                 enum vibe_dtype dtype)
{
    const size_t size = vec_width(dtype);
    vec r[8];
    size_t k = 0;

    for (; k + 8 <= K; k += 8) {
        for (int i = 0; i < 8; i++)
            r[i] = vec_widen((const char *)rows[i] + k * size, dtype);
        transpose(r);
        for (size_t i = 0; i < 8; i++)
            vec_store(panel + (k + i) * ld, r[i]);
    }
    if (k == K)
        return;
    for (int i = 0; i < 8; i++)
        r[i] = widen_n((const char *)rows[i] + k * size, dtype, K - k);
    transpose(r);
    for (size_t i = 0; i < K - k; i++)
        vec_store(panel + (k + i) * ld, r[i]);
}

static VEC_TARGET void pack_f32(float *panel, size_t ld,
                                const void *const rows[8], size_t K)
{
    pack_of(panel, ld, rows, K, VIBE_F32);
}

/* Two neighbours are transposed as one word and widened afterwards, which
 * halves the shuffling. */
static VEC_TARGET void pack_bf16(float *panel, size_t ld,
                                 const void *const rows[8], size_t K)
{
    const __m256i upper = _mm256_set1_epi32((int)0xFFFF0000u);
    const void *rest[8];
    size_t k = 0;

    for (; k + 16 <= K; k += 16) {
        vec r[8];

        for (int i = 0; i < 8; i++) {
            const char *row = (const char *)rows[i] + 2 * k;

            _mm_prefetch(row + PIECE, _MM_HINT_T0);
            r[i] = vec_load((const float *)(const void *)row);
        }
        transpose(r);
        for (size_t i = 0; i < 8; i++) {
            __m256i pair = _mm256_castps_si256(r[i]);
            float *out = panel + (k + 2 * i) * ld;

            vec_store(out, _mm256_castsi256_ps(_mm256_slli_epi32(pair, 16)));
            vec_store(out + ld,
                      _mm256_castsi256_ps(_mm256_and_si256(pair, upper)));
        }
    }
    for (int i = 0; i < 8; i++)
        rest[i] = (const char *)rows[i] + 2 * k;
    pack_of(panel + k * ld, ld, rest, K - k, VIBE_BF16);
}

static VEC_TARGET void pack_f16(float *panel, size_t ld,
                                const void *const rows[8], size_t K)
{
    pack_of(panel, ld, rows, K, VIBE_F16);
}

static VEC_TARGET void pack_f8(float *panel, size_t ld,
                               const void *const rows[8], size_t K)
{
    pack_of(panel, ld, rows, K, VIBE_F8_E4M3);
}

void vibe_cpu_avx2_init(struct vibe_cpu_kernels *k)
{
    take_kernels(k);
    k->pack[VIBE_F32] = pack_f32;
    k->pack[VIBE_BF16] = pack_bf16;
    k->pack[VIBE_F16] = pack_f16;
    k->pack[VIBE_F8_E4M3] = pack_f8;
}
#else
/* Never called: vibe_cpu_has(VIBE_CPU_AVX2) is false here. */
void vibe_cpu_avx2_init(struct vibe_cpu_kernels *k)
{
    (void)k;
}
#endif
