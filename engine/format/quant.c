#include "engine/format/quant.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "engine/base/float8.h"

enum {
    LANES = 16, /* sums that are kept apart, for vectors to hold */
    I8_TOP = 127,
    I4_LOW = -8,
    I4_TOP = 7,
};

enum vibe_dtype vibe_quant_dtype(enum vibe_weight_dtype as,
                                 enum vibe_dtype stored, size_t K)
{
    switch (as) {
    case VIBE_WEIGHTS_AUTO:
    case VIBE_WEIGHTS_F32:
        break;
    case VIBE_WEIGHTS_BF16:
        return VIBE_BF16;
    case VIBE_WEIGHTS_F8_E4M3:
        return VIBE_F8_E4M3;
    case VIBE_WEIGHTS_I8:
        return VIBE_I8;
    case VIBE_WEIGHTS_I4:
        return K % VIBE_QUANT_GROUP == 0 ? VIBE_I4 : VIBE_I8;
    case VIBE_WEIGHTS_BF16_PACKED:
        return VIBE_BF16_PACKED;
    }
    return stored;
}

size_t vibe_quant_row_scales(size_t group, size_t K)
{
    return group ? K / group : 1;
}

static uint32_t bits_of(float f)
{
    uint32_t bits;

    memcpy(&bits, &f, sizeof(bits));
    return bits;
}

static float from_bits(uint32_t bits)
{
    float f;

    memcpy(&f, &bits, sizeof(f));
    return f;
}

/* The nearest whole number, ties to even, for |f| < 2^22. */
static inline float nearest(float f)
{
    const float magic = 0x1.8p23f;

    return (f + magic) - magic;
}

static inline float within(float f, float low, float top)
{
    f = f < top ? f : top; /* NaN becomes top */
    return f > low ? f : low;
}

unsigned short vibe_quant_to_f16(float f)
{
    uint32_t sign = bits_of(f) >> 16 & 0x8000;
    uint32_t bits = bits_of(f) & 0x7FFFFFFF;

    if (bits >= bits_of(65504.0f))
        return (unsigned short)(sign | 0x7BFF);
    if (bits < bits_of(0x1p-14f)) /* subnormal: whole multiples of 2^-24 */
        return (unsigned short)(sign |
                                (uint32_t)nearest(from_bits(bits) * 0x1p24f));
    bits += 0xFFF + (bits >> 13 & 1);
    return (unsigned short)(sign | (bits - (112u << 23)) >> 13);
}

/* Largest finite magnitude. */
static float largest(const float *in, size_t K)
{
    float lane[LANES] = {0};
    float top = 0.0f;
    size_t k = 0;

    for (; k + LANES <= K; k += LANES)
        for (size_t i = 0; i < LANES; i++) {
            float a = fabsf(in[k + i]);

            a = a <= FLT_MAX ? a : 0.0f;
            lane[i] = lane[i] > a ? lane[i] : a;
        }
    for (; k < K; k++)
        if (fabsf(in[k]) <= FLT_MAX && fabsf(in[k]) > top)
            top = fabsf(in[k]);
    for (size_t i = 0; i < LANES; i++)
        top = top > lane[i] ? top : lane[i];
    return top;
}

/* The scale by which top becomes the code most; its inverse is finite. */
static float row_scale(float top, float most)
{
    if (top == 0.0f)
        return 1.0f;
    return fmaxf(top / most, FLT_MIN);
}

static void row_to_f8(uint8_t *out, float *scale, const float *in, size_t K)
{
    float inverse;

    *scale = row_scale(largest(in, K), VIBE_F8_TOP);
    inverse = 1.0f / *scale;
    for (size_t k = 0; k < K; k++)
        out[k] = vibe_f8_nearest(
            within(in[k] * inverse, -VIBE_F8_TOP, VIBE_F8_TOP));
}

static void row_to_i8(int8_t *out, float *scale, const float *in, size_t K)
{
    float inverse;

    *scale = row_scale(largest(in, K), I8_TOP);
    inverse = 1.0f / *scale;
    for (size_t k = 0; k < K; k++)
        out[k] = (int8_t)(int32_t)nearest(
            within(in[k] * inverse, -I8_TOP, I8_TOP));
}

float vibe_quant_group_scale(float f)
{
    const float top = 63488.0f; /* the largest f16 of 5 bits */
    const uint32_t bits = bits_of(within(f, -top, top)) + 0x40000;
    unsigned short half = vibe_quant_to_f16(from_bits(bits & ~0x7FFFFu));

    vibe_dtype_to_f32(&f, &half, VIBE_F16, 1);
    return f;
}

/* The code of w, for |w * inverse| < 2^22; without a comparison of floats,
 * which compilers keep out of vectors. */
static inline int32_t i4_code(float w, float inverse)
{
    const float magic = 0x1.8p23f;
    int32_t q = (int32_t)(bits_of(w * inverse + magic) - bits_of(magic));

    q = q < I4_TOP ? q : I4_TOP;
    return q > I4_LOW ? q : I4_LOW;
}

/* What a scale makes of a group: the sum of squared errors and, for codes q,
 * those of w q and of q q. */
struct fit {
    float error, wq, qq;
};

static struct fit try_scale(const float *in, size_t group, float scale)
{
    const float inverse = 1.0f / scale;
    float error[LANES] = {0};
    float wq[LANES] = {0};
    float qq[LANES] = {0};
    struct fit fit = {0};

    for (size_t k = 0; k < group; k += LANES)
        for (size_t i = 0; i < LANES; i++) {
            float q = (float)i4_code(in[k + i], inverse);
            float d = in[k + i] - scale * q;

            error[i] += d * d;
            wq[i] += in[k + i] * q;
            qq[i] += q * q;
        }
    for (size_t i = 0; i < LANES; i++) {
        fit.error += error[i];
        fit.wq += wq[i];
        fit.qq += qq[i];
    }
    return fit;
}

/* The member of largest magnitude, with its sign. */
static float extreme(const float *in, size_t group)
{
    float low = 0.0f;
    float top = 0.0f;

    for (size_t k = 0; k < group; k++) {
        float w = fabsf(in[k]) <= FLT_MAX ? in[k] : 0.0f;

        low = w < low ? w : low;
        top = w > top ? w : top;
    }
    return -low > top ? low : top;
}

/*
 * The scale of least error among those that give the extreme the code -8, or
 * clip it a little, each then refined by least squares for the codes it led
 * to.  It may be negative, so that the code without a partner serves the
 * longer tail.
 */
static float group_scale(const float *in, size_t group)
{
    static const float clips[] = {1.0f, 0.93f, 0.86f, 0.79f};
    const float e = extreme(in, group);
    float best = vibe_quant_group_scale(e / I4_LOW);
    float least = INFINITY;

    if (fabsf(best) < 0x1p-24f) /* of nothing but zeros, nearly */
        return 0x1p-24f;
    for (size_t i = 0; i < 2 * sizeof(clips) / sizeof(*clips); i++) {
        float scale = vibe_quant_group_scale(e * clips[i / 2] / I4_LOW);
        struct fit fit;

        if (i % 2) { /* refine the scale before */
            fit = try_scale(in, group, scale);
            scale = vibe_quant_group_scale(fit.wq / fit.qq);
        }
        if (!(fabsf(scale) >= 0x1p-24f))
            continue;
        fit = try_scale(in, group, scale);
        if (fit.error < least) {
            least = fit.error;
            best = scale;
        }
    }
    return best;
}

static void row_to_i4(uint8_t *out, float *scale, size_t group, const float *in,
                      size_t K)
{
    for (size_t g = 0; g < K / group; g++) {
        const float *w = in + g * group;
        float inverse;

        scale[g] = group_scale(w, group);
        inverse = 1.0f / scale[g];
        for (size_t k = 0; k < group; k += 2) {
            int low = i4_code(w[k], inverse) - I4_LOW;
            int high = i4_code(w[k + 1], inverse) - I4_LOW;

            out[(g * group + k) / 2] = (uint8_t)(low | high << 4);
        }
    }
}

void vibe_quant_rows(void *out, float *scale, enum vibe_dtype dtype,
                     size_t group, const float *in, size_t n, size_t K)
{
    const size_t n_scales = vibe_quant_row_scales(group, K);
    const size_t bytes = vibe_dtype_bytes(dtype, K);

    assert(dtype == VIBE_I4 ? group % LANES == 0 && group && K % group == 0
                            : group == 0);
    for (size_t i = 0; i < n; i++) {
        const float *row = in + i * K;
        void *to = (char *)out + i * bytes;

        if (dtype == VIBE_I4)
            row_to_i4(to, scale + i * n_scales, group, row, K);
        else if (dtype == VIBE_I8)
            row_to_i8(to, scale + i, row, K);
        else
            row_to_f8(to, scale + i, row, K);
    }
}

void vibe_quant_widen(float *out, const void *in, const float *scale,
                      enum vibe_dtype dtype, size_t group, size_t n, size_t K)
{
    const size_t bytes = vibe_dtype_bytes(dtype, K);
    const size_t n_scales = vibe_quant_row_scales(group, K);
    const size_t run = group ? group : K;

    for (size_t i = 0; i < n; i++) {
        float *row = out + i * K;

        vibe_dtype_to_f32(row, (const char *)in + i * bytes, dtype, K);
        for (size_t k = 0; scale && k < K; k++)
            row[k] *= scale[i * n_scales + k / run];
    }
}
