#include <math.h>
#include <stdint.h>
#include <string.h>

#include "engine/backend/noise.h"
#include "tests/support/vibe_test.h"

static int setup(void **state)
{
    (void)state;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return 0;
}

/* Known answers that the generator's authors publish (Random123). */
static void philox_gives_the_published_numbers(void **state)
{
    const uint32_t zeros[4] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
    const uint32_t ones[4] = {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd};
    uint32_t r[4] = {0, 0, 0, 0};

    (void)state;
    vibe_noise_philox(r, 0, 0);
    assert_memory_equal(r, zeros, sizeof(r));
    memset(r, 0xFF, sizeof(r));
    vibe_noise_philox(r, 0xFFFFFFFFu, 0xFFFFFFFFu);
    assert_memory_equal(r, ones, sizeof(r));
}

/* 2e-15: a few roundings of results below 1, or of logarithms below 16. */
static void log_and_waves_are_those_of_libm(void **state)
{
    (void)state;
    for (int k = 1; k < 20000; k++) {
        double v = k / 20000.0;

        assert_true(fabs(vibe_noise_log(v) - log(v)) < 2e-15 * 2);
        assert_true(fabs(vibe_noise_wave(v, 0) - cos(2 * M_PI * v)) < 2e-15);
        assert_true(fabs(vibe_noise_wave(v, 1) - sin(2 * M_PI * v)) < 2e-15);
    }
    assert_true(fabs(vibe_noise_log(0x1p-53) + 53 * M_LN2) < 1e-14);
}

/* The bits of every device, from the definition in 60 decimal digits; a change
 * here changes what a seed means. */
static void normals_have_the_recorded_bits(void **state)
{
    static const struct {
        uint64_t seed;
        uint32_t dialogue, frame, i;
        uint32_t bits;
    } known[] = {
        {0, 0, 0, 0, 0xbecb9b14u},   /* -0.397668 */
        {0, 0, 0, 1, 0xbe9eec28u},   /* -0.310395 */
        {42, 0, 0, 0, 0xbf2a5602u},  /* -0.665375 */
        {42, 0, 0, 63, 0x3fe2731au}, /* 1.769138 */
        {42, 0, 1, 17, 0xbed155d9u}, /* -0.408858 */
        {42, 7, 0, 17, 0xbf93660du}, /* -1.151552 */
        {0x8000000000000005, 0xFFFFFFFFu, 0xFFFFFFFFu, 1000,
         0xbe75a650u},                            /* -0.239892 */
        {0x7048860ddf79, 2, 900, 5, 0xbefe344du}, /* -0.496493 */
    };

    (void)state;
    for (size_t n = 0; n < sizeof(known) / sizeof(*known); n++) {
        float x = vibe_noise_normal(known[n].seed, known[n].dialogue,
                                    known[n].frame, known[n].i);

        assert_memory_equal(&x, &known[n].bits, sizeof(x));
    }
}

/* A million numbers: five deviations of each mean, of variance 1, 2, 15 and
 * 96, over a thousand. */
static void normals_have_the_moments_of_a_normal(void **state)
{
    enum { N = 1000000 };
    double sum[5] = {0};

    (void)state;
    for (uint32_t i = 0; i < N; i++) {
        double x = vibe_noise_normal(42, 3, i / 64, i % 64);

        for (int k = 1; k < 5; k++)
            sum[k] += pow(x, k) / N;
    }
    assert_true(fabs(sum[1]) < 5e-3);
    assert_true(fabs(sum[2] - 1.0) < 5e-3 * 1.42);
    assert_true(fabs(sum[3]) < 5e-3 * 3.88);
    assert_true(fabs(sum[4] - 3.0) < 5e-3 * 9.8);
}

static void neighbours_are_not_correlated(void **state)
{
    enum { N = 1000000 };
    double pair = 0.0, frame = 0.0, dialogue = 0.0, seed = 0.0;

    (void)state;
    for (uint32_t i = 0; i < N; i++) {
        double x = vibe_noise_normal(1, 0, 0, i);

        pair += x * vibe_noise_normal(1, 0, 0, i ^ 1);
        frame += x * vibe_noise_normal(1, 0, 1, i);
        dialogue += x * vibe_noise_normal(1, 1, 0, i);
        seed += x * vibe_noise_normal((uint64_t)1 << 32 | 1, 0, 0, i);
    }
    /* products of variance 1; pairs are counted twice */
    assert_true(fabs(pair / N) < 5e-3 * 1.42);
    assert_true(fabs(frame / N) < 5e-3);
    assert_true(fabs(dialogue / N) < 5e-3);
    assert_true(fabs(seed / N) < 5e-3);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(philox_gives_the_published_numbers),
    VIBE_TEST(log_and_waves_are_those_of_libm),
    VIBE_TEST(normals_have_the_recorded_bits),
    VIBE_TEST(normals_have_the_moments_of_a_normal),
    VIBE_TEST(neighbours_are_not_correlated),
};

VIBE_TEST_MAIN(tests)
