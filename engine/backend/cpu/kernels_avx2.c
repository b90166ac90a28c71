/* Kernels for AVX2 with FMA and F16C. */
#include "engine/backend/cpu/kernels.h"
#include "engine/format/pack.h"

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

static VEC_TARGET void pack_i8(float *panel, size_t ld,
                               const void *const rows[8], size_t K)
{
    pack_of(panel, ld, rows, K, VIBE_I8);
}

/* The 16 weights of a lane in one step: those of row g, then of row g + 8.
 * words are 4 of 32 bits in each half; pick and down say where the step's 8
 * pairs of codes are, step and down how far. */
VEC __m256i unpack_step(__m256i words, __m256i pick, __m256i down, __m256i base,
                        const void *bytes)
{
    __m256i code = _mm256_srlv_epi32(_mm256_permutevar8x32_epi32(words, pick),
                                     down);
    __m256i exponent = _mm256_add_epi16(
        _mm256_and_si256(code, _mm256_set1_epi32(0x00070007)), base);
    __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128(bytes));
    __m256i rest = _mm256_or_si256(wide, _mm256_slli_epi16(wide, 8));

    return _mm256_or_si256(
        _mm256_and_si256(rest, _mm256_set1_epi16((short)0x807F)),
        _mm256_slli_epi16(exponent, 7));
}

/* Words 3 u .. 3 u + 2 of a lane's 12 and, fourth, the codes of pair 15. */
VEC __m256i unpack_words(__m128i three)
{
    __m128i bits = _mm_and_si128(three, _mm_set1_epi32(0x00010001));
    __m128i last = _mm_sllv_epi32(bits, _mm_setr_epi32(0, 1, 2, 0));
    __m128i all = _mm_or_si128(last, _mm_shuffle_epi32(last, 0x55));

    /* the fourth of "all", shuffled from the first: 0 | 1 | 2 */
    all = _mm_or_si128(all, _mm_shuffle_epi32(last, 0xAA));
    all = _mm_shuffle_epi32(all, 0x00);
    return _mm256_broadcastsi128_si256(_mm_blend_epi32(three, all, 8));
}

static VEC_TARGET void unpack(uint16_t *out, size_t ld, const void *planes,
                              uint32_t base)
{
    enum { LANES = 32, LINE = LANES * 16 };
    const __m256i pick[2] = {_mm256_setr_epi32(0, 0, 0, 0, 0, 1, 1, 1),
                             _mm256_setr_epi32(1, 1, 2, 2, 2, 2, 2, 3)};
    const __m256i down[2] = {_mm256_setr_epi32(1, 4, 7, 10, 13, 1, 4, 7),
                             _mm256_setr_epi32(10, 13, 1, 4, 7, 10, 13, 0)};
    const __m256i bases = _mm256_set1_epi16((short)base);

    for (size_t lane = 0; lane < LANES; lane++) {
        const char *bytes = (const char *)planes + lane * 16;
        const char *codes = bytes + VIBE_PACK_BYTES;
        const __m128i q0 = _mm_loadu_si128((const void *)codes);
        const __m128i q1 = _mm_loadu_si128((const void *)(codes + LINE));
        const __m128i q2 = _mm_loadu_si128(
            (const void *)(codes + (size_t)2 * LINE));
        const __m128i three[4] = {q0, _mm_alignr_epi8(q1, q0, 12),
                                  _mm_alignr_epi8(q2, q1, 8),
                                  _mm_srli_si128(q2, 4)};
        uint16_t *to = out + lane / 4 * ld + lane % 4 * 8;

        for (size_t step = 0; step < 8; step++) {
            __m256i w = unpack_step(unpack_words(three[step / 2]),
                                    pick[step % 2], down[step % 2], bases,
                                    bytes + step * LINE);

            _mm_storeu_si128((void *)(to + step * 32),
                             _mm256_castsi256_si128(w));
            _mm_storeu_si128((void *)(to + 8 * ld + step * 32),
                             _mm256_extracti128_si256(w, 1));
        }
    }
}

void vibe_cpu_avx2_init(struct vibe_cpu_kernels *k)
{
    take_kernels(k);
    k->unpack = unpack;
    k->pack[VIBE_I8] = pack_i8;
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
