/*
 * noise.h - normal numbers that have a name instead of a past.
 *
 * Number i of draw (seed, dialogue, frame) is a function of those four alone,
 * so neither batches nor threads nor the device change it.  Our generator:
 *
 *   r[0..3]  Philox4x32-10, key = seed (low, high word),
 *            counter = (i / 2, frame, dialogue, 0)
 *   a, b     the upper 52 bits of r[1]:r[0] and of r[3]:r[2] (high:low)
 *   u, v     (a + 1/2) / 2^52 and (b + 1/2) / 2^52, in (0, 1)
 *   normal   sqrt(-2 ln u) * cos(2 pi v) for even i, * sin(2 pi v) for odd i
 *
 * ln, cos and sin are the polynomials below, made of IEEE double operations
 * that round exactly (+ - * / sqrt), never fused: the bits are the same on
 * every device.  Their errors, below 2e-15, vanish when rounding to float.
 */
#ifndef VIBE_BACKEND_NOISE_H
#define VIBE_BACKEND_NOISE_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define VIBE_NOISE_FN static __host__ __device__ inline
#else
#define VIBE_NOISE_FN static inline
#endif

/* A compiler may fuse a * b + c; these it may not. */
#ifdef __CUDA_ARCH__
#define VIBE_NOISE_ADD(a, b) __dadd_rn(a, b)
#define VIBE_NOISE_MUL(a, b) __dmul_rn(a, b)
#define VIBE_NOISE_DIV(a, b) __ddiv_rn(a, b)
#define VIBE_NOISE_SQRT(a)   __dsqrt_rn(a)
#else
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif
#define VIBE_NOISE_ADD(a, b) ((a) + (b))
#define VIBE_NOISE_MUL(a, b) ((a) * (b))
#define VIBE_NOISE_DIV(a, b) ((a) / (b))
#define VIBE_NOISE_SQRT(a)   sqrt(a)
#endif

/* Philox4x32 with 10 rounds (Salmon et al., 2011), in place. */
VIBE_NOISE_FN void vibe_noise_philox(uint32_t r[4], uint32_t k0, uint32_t k1)
{
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * r[0];
        uint64_t p1 = (uint64_t)0xCD9E8D57u * r[2];

        r[0] = (uint32_t)(p1 >> 32) ^ r[1] ^ k0;
        r[1] = (uint32_t)p1;
        r[2] = (uint32_t)(p0 >> 32) ^ r[3] ^ k1;
        r[3] = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

/* (k + 1/2) / 2^52, exactly. */
VIBE_NOISE_FN double vibe_noise_uniform(uint64_t k)
{
    return VIBE_NOISE_MUL(VIBE_NOISE_ADD((double)k, 0.5), 0x1p-52);
}

/* c[0] + c[1] z + ... + c[n - 1] z^(n - 1) */
VIBE_NOISE_FN double vibe_noise_poly(const double *c, int n, double z)
{
    double y = c[n - 1];

    for (int i = n - 2; i >= 0; i--)
        y = VIBE_NOISE_ADD(VIBE_NOISE_MUL(y, z), c[i]);
    return y;
}

/* ln u for a normal double u in (0, 1). */
VIBE_NOISE_FN double vibe_noise_log(double u)
{
    /* ln m = 2 s (1 + z/3 + z^2/5 + ...), s = (m - 1)/(m + 1), z = s^2 <= 0.03;
     * the first term left out is 2 s z^10 / 21 < 1e-17 */
    const double c[] = {1.0,      1.0 / 3,  1.0 / 5,  1.0 / 7,  1.0 / 9,
                        1.0 / 11, 1.0 / 13, 1.0 / 15, 1.0 / 17, 1.0 / 19};
    uint64_t bits;
    double m, s, log_m;
    int e;

    memcpy(&bits, &u, sizeof(bits));
    e = (int)(bits >> 52) - 1023;
    bits = (bits & 0xFFFFFFFFFFFFFu) | 0x3FF0000000000000u;
    memcpy(&m, &bits, sizeof(m)); /* in [1, 2) */
    if (m > 1.4142135623730951) {
        m = VIBE_NOISE_MUL(m, 0.5);
        e++;
    }
    s = VIBE_NOISE_DIV(VIBE_NOISE_ADD(m, -1.0), VIBE_NOISE_ADD(m, 1.0));
    log_m = VIBE_NOISE_MUL(VIBE_NOISE_ADD(s, s),
                           vibe_noise_poly(c, 10, VIBE_NOISE_MUL(s, s)));
    return VIBE_NOISE_ADD(VIBE_NOISE_MUL((double)e, 0.6931471805599453), log_m);
}

/* cos(2 pi v) for even i, sin(2 pi v) for odd i, v in (0, 1). */
VIBE_NOISE_FN double vibe_noise_wave(double v, uint32_t i)
{
    /* Taylor in z = x^2, |x| <= pi/4: the first terms left out are
     * x^17/17! < 1e-16 and x^16/16! < 1e-15 */
    const double sine[] = {1.0,
                           -1.0 / 6,
                           1.0 / 120,
                           -1.0 / 5040,
                           1.0 / 362880,
                           -1.0 / 39916800,
                           1.0 / 6227020800.0,
                           -1.0 / 1307674368000.0};
    const double cosine[] = {
        1.0,         -1.0 / 2,       1.0 / 24,          -1.0 / 720,
        1.0 / 40320, -1.0 / 3628800, 1.0 / 479001600.0, -1.0 / 87178291200.0};
    uint32_t quarter = (uint32_t)VIBE_NOISE_ADD(VIBE_NOISE_MUL(4.0, v), 0.5);
    double rest = VIBE_NOISE_ADD(VIBE_NOISE_MUL(4.0, v), -(double)quarter);
    double x = VIBE_NOISE_MUL(rest, 1.5707963267948966);
    double z = VIBE_NOISE_MUL(x, x);
    double y;

    /* cos(q pi/2 + x) and sin(q pi/2 + x) = cos((q + 3) pi/2 + x) */
    quarter = (quarter + 3 * (i & 1)) & 3;
    if (quarter & 1)
        y = VIBE_NOISE_MUL(x, vibe_noise_poly(sine, 8, z));
    else
        y = vibe_noise_poly(cosine, 8, z);
    return quarter == 1 || quarter == 2 ? -y : y;
}

/* Number i of the draw (seed, dialogue, frame). */
VIBE_NOISE_FN float vibe_noise_normal(uint64_t seed, uint32_t dialogue,
                                      uint32_t frame, uint32_t i)
{
    uint32_t r[4];
    double u, v, radius;

    r[0] = i / 2;
    r[1] = frame;
    r[2] = dialogue;
    r[3] = 0;
    vibe_noise_philox(r, (uint32_t)seed, (uint32_t)(seed >> 32));
    u = vibe_noise_uniform(((uint64_t)r[1] << 32 | r[0]) >> 12);
    v = vibe_noise_uniform(((uint64_t)r[3] << 32 | r[2]) >> 12);
    radius = VIBE_NOISE_SQRT(VIBE_NOISE_MUL(-2.0, vibe_noise_log(u)));
    return (float)VIBE_NOISE_MUL(radius, vibe_noise_wave(v, i));
}

#endif /* VIBE_BACKEND_NOISE_H */
