/*
 * float8.h - numbers as e4m3 codes, alone or with a power of two in common.
 *
 * The power of two of a row is kept as the exponent of a float32, 127 for 1.
 */
#ifndef VIBE_BASE_FLOAT8_H
#define VIBE_BASE_FLOAT8_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The largest that e4m3 holds. */
#define VIBE_F8_TOP 448.0f

/* Exponents of rows: further out numbers are lost, or cut off. */
enum { VIBE_F8_LEAST = 127 - 64, VIBE_F8_MOST = 127 + 60 };

static inline uint32_t vibe_float_bits(float f)
{
    uint32_t bits;

    memcpy(&bits, &f, sizeof(bits));
    return bits;
}

static inline float vibe_float_of(uint32_t bits)
{
    float f;

    memcpy(&f, &bits, sizeof(f));
    return f;
}

/* Nearest e4m3 of |f| <= VIBE_F8_TOP, ties to even. */
static inline uint8_t vibe_f8_nearest(float f)
{
    const float magic = 0x1.8p23f; /* leaves whole numbers below 2^22 */
    const uint32_t sign = vibe_float_bits(f) >> 24 & 0x80;
    const uint32_t bits = vibe_float_bits(f) & 0x7FFFFFFF;
    const uint32_t normal = (bits + 0x7FFFF + (bits >> 20 & 1) -
                             (120u << 23)) >>
                            20;
    const float small = (vibe_float_of(bits) * 512.0f + magic) - magic;

    return (uint8_t)(sign |
                     (bits < vibe_float_bits(0x1p-6f) ? (uint32_t)(int32_t)small
                                                      : normal));
}

/* The exponent of the least power of two that leaves nothing of a row above
 * VIBE_F8_TOP whose largest magnitude is top. */
static inline uint8_t vibe_f8_exponent(float top)
{
    /* 448 is 7/4 of 2^8: a power of two more for what is above 7/4 of one */
    const uint32_t e = (vibe_float_bits(top) + 0x1FFFFF) >> 23;

    if (e < VIBE_F8_LEAST + 8)
        return VIBE_F8_LEAST;
    return (uint8_t)(e - 8 < VIBE_F8_MOST ? e - 8 : (uint32_t)VIBE_F8_MOST);
}

/* What codes with that exponent are to be multiplied by. */
static inline float vibe_f8_scale(uint8_t exponent)
{
    return vibe_float_of((uint32_t)exponent << 23);
}

/* Round a row of n numbers; NaN is cut off as infinity is. */
void vibe_f8_row(uint8_t *codes, uint8_t *exponent, const float *in, size_t n);

#endif /* VIBE_BASE_FLOAT8_H */
