#include "engine/base/dtype.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

size_t vibe_dtype_size(enum vibe_dtype dtype)
{
    switch (dtype) {
    case VIBE_F32:
        return 4;
    case VIBE_BF16:
    case VIBE_F16:
        return 2;
    case VIBE_F8_E4M3:
    case VIBE_I8:
    case VIBE_U8:
        return 1;
    case VIBE_I64:
        return 8;
    case VIBE_I4:
    case VIBE_BF16_PACKED:
        break;
    }
    return 0;
}

size_t vibe_dtype_bytes(enum vibe_dtype dtype, size_t n)
{
    assert(dtype != VIBE_BF16_PACKED);
    return dtype == VIBE_I4 ? (n + 1) / 2 : n * vibe_dtype_size(dtype);
}

const char *vibe_dtype_name(enum vibe_dtype dtype)
{
    switch (dtype) {
    case VIBE_F32:
        return "F32";
    case VIBE_BF16:
        return "BF16";
    case VIBE_F16:
        return "F16";
    case VIBE_F8_E4M3:
        return "F8_E4M3";
    case VIBE_I8:
        return "I8";
    case VIBE_I4:
        return "I4";
    case VIBE_BF16_PACKED:
        return "BF16_PACKED";
    case VIBE_I64:
        return "I64";
    case VIBE_U8:
        return "U8";
    }
    return "?";
}

static float from_bits(uint32_t bits)
{
    float f;

    memcpy(&f, &bits, sizeof(f));
    return f;
}

/* Tensors of a file need not be aligned. */
static uint16_t half_at(const void *in, size_t i)
{
    uint16_t h;

    memcpy(&h, (const uint8_t *)in + 2 * i, sizeof(h));
    return h;
}

static float from_bf16(uint16_t h)
{
    return from_bits((uint32_t)h << 16);
}

static float from_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t exponent = (h >> 10) & 31;
    uint32_t fraction = h & 1023;

    if (exponent == 31) /* infinity, or NaN with its payload */
        return from_bits(sign | 0x7F800000u | fraction << 13);
    if (exponent == 0) { /* zero or subnormal: fraction * 2^-24 */
        float f = (float)fraction * 0x1p-24f;

        return sign ? -f : f;
    }
    return from_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

static float from_f8_e4m3(uint8_t b)
{
    uint32_t sign = (uint32_t)(b & 0x80) << 24;
    uint32_t exponent = (b >> 3) & 15;
    uint32_t fraction = b & 7;

    if ((b & 0x7F) == 0x7F)
        return from_bits(sign | 0x7FC00000u);
    if (exponent == 0) { /* zero or subnormal: fraction * 2^-9 */
        float f = (float)fraction * 0x1p-9f;

        return sign ? -f : f;
    }
    return from_bits(sign | (exponent + 120) << 23 | fraction << 20);
}

void vibe_dtype_to_f32(float *out, const void *in, enum vibe_dtype dtype,
                       size_t n)
{
    const uint8_t *bytes = in;

    switch (dtype) {
    case VIBE_F32:
        memcpy(out, in, n * sizeof(*out));
        return;
    case VIBE_BF16:
        for (size_t i = 0; i < n; i++)
            out[i] = from_bf16(half_at(in, i));
        return;
    case VIBE_F16:
        for (size_t i = 0; i < n; i++)
            out[i] = from_f16(half_at(in, i));
        return;
    case VIBE_F8_E4M3:
        for (size_t i = 0; i < n; i++)
            out[i] = from_f8_e4m3(bytes[i]);
        return;
    case VIBE_I8:
        for (size_t i = 0; i < n; i++)
            out[i] = (float)(int8_t)bytes[i];
        return;
    case VIBE_I4:
        for (size_t i = 0; i < n; i++)
            out[i] = (float)((bytes[i / 2] >> i % 2 * 4 & 15) - 8);
        return;
    case VIBE_BF16_PACKED:
    case VIBE_I64:
    case VIBE_U8:
        break;
    }
    assert(0 && "a dtype of numbers that stand for themselves");
}
