#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audio/level.h"
#include "engine/base/error.h"
#include "engine/format/safetensors.h"
#include "tests/support/vibe_test.h"

#define FIXTURES "tests/fixtures/audio/"

enum { CAPACITY = 30000 };

/* As published in preprocessor_config.json. */
static const float target_db = -25.0f;
static const float eps = 1e-6f;

struct fixture {
    struct vibe_safetensors *st;
    float got[CAPACITY];
};

static int setup(void **state)
{
    *state = calloc(1, sizeof(struct fixture));
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vibe_safetensors_free(f->st);
    free(f);
    return 0;
}

static size_t read_floats(const char *path, float *out, size_t capacity)
{
    FILE *file = fopen(path, "rb");
    size_t n;

    assert_non_null(file);
    n = fread(out, sizeof(*out), capacity, file);
    fclose(file);
    return n;
}

/*
 * Normalize raw as published and compare.  The reference sums in float32 and
 * we in double; all came out bit-equal, but its mean of squares is only good
 * to 1e-7 and the gain could have fallen on the next float: 1e-6 allows that
 * and is a hundredth of what the golden vectors allow.
 */
static void assert_normalized(struct fixture *f, const float *raw,
                              const float *want, size_t n)
{
    assert_true(n > 0 && n <= CAPACITY);
    memcpy(f->got, raw, n * sizeof(*raw));
    vibe_level_normalize(f->got, n, target_db, eps);
    for (size_t i = 0; i < n; i++)
        assert_float_equal(f->got[i], want[i], 1e-6f);
}

static void normalize_survives_silence(void **state)
{
    struct fixture *f = *state;

    vibe_level_normalize(f->got, 100, target_db, eps);
    for (int i = 0; i < 100; i++)
        assert_true(f->got[i] == 0.0f);

    vibe_level_normalize(f->got, 0, target_db, eps); /* no samples: no crash */
}

static void normalize_survives_values_whose_squares_overflow(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 100; i++)
        f->got[i] = i % 2 ? 1e30f : -1e30f;
    vibe_level_normalize(f->got, 100, target_db, eps);

    /* A square wave at -25 dB; float32 has 24 bits for it. */
    for (int i = 0; i < 100; i++)
        assert_float_equal(fabsf(f->got[i]), 0.0562341f, 1e-7f);
}

/* A recorded tensor; borrowed from f->st. */
static const float *recorded(struct fixture *f, size_t voice, const char *what,
                             size_t *n)
{
    const struct vibe_st_tensor *tensor;
    char name[64];

    snprintf(name, sizeof(name), "prompt.voice%zu_%s", voice, what);
    tensor = vibe_safetensors_find(f->st, name);
    assert_non_null(tensor);
    assert_int_equal(tensor->dtype, VIBE_F32);
    *n = tensor->n;
    return tensor->data;
}

static void normalize_equals_the_recorded_reference(void **state)
{
    struct fixture *f = *state;
    static const char *const files[] = {
        "tests/golden/tiny_tied/golden.safetensors",
        "tests/golden/tiny_fp8/golden.safetensors",
    };

    for (size_t i = 0; i < 4; i++) { /* two voices in each */
        const float *raw;
        const float *want;
        size_t n;

        vibe_safetensors_free(f->st);
        assert_int_equal(vibe_safetensors_open(&f->st, files[i / 2], NULL),
                         VIBE_OK);
        want = recorded(f, i % 2, "normalized", &n);
        raw = recorded(f, i % 2, "raw", &n);
        assert_normalized(f, raw, want, n);
    }
}

static void normalize_brings_peaks_back_below_full_scale(void **state)
{
    struct fixture *f = *state;
    float raw[2401];
    float want[2401];
    float peak = 0.0f;

    assert_int_equal(read_floats(FIXTURES "loud.f32", raw, 2401), 2400);
    read_floats(FIXTURES "loud_normalized.f32", want, 2401);
    assert_normalized(f, raw, want, 2400);
    for (int i = 0; i < 2400; i++)
        peak = fmaxf(peak, fabsf(f->got[i]));
    assert_true(peak < 1.0f && peak > 0.99999f);
}

static void normalize_limits_a_peak_just_above_full_scale(void **state)
{
    struct fixture *f = *state;

    f->got[7] = 1.0f; /* alone in 400: 20 times the rms, so 1.12 at -25 dB */
    vibe_level_normalize(f->got, 400, target_db, eps);

    assert_true(f->got[7] < 1.0f && f->got[7] > 0.99999f);
}

static void normalize_reaches_another_target(void **state)
{
    struct fixture *f = *state;
    struct vibe_meter meter = {0};

    for (int i = 0; i < 1000; i++)
        f->got[i] = 0.01f * sinf((float)i);
    vibe_level_normalize(f->got, 1000, -40.0f, eps);
    vibe_meter_add(&meter, f->got, 1000);

    /* eps itself takes rms / (rms + 1e-6) = 1.4e-4 off. */
    assert_float_equal((float)vibe_meter_rms(&meter), 0.01f, 0.01f * 1.5e-4f);
}

static void silence_is_recognized(void **state)
{
    struct fixture *f = *state;

    assert_true(vibe_level_is_silent(f->got, 0));
    assert_true(vibe_level_is_silent(f->got, 100));

    for (int i = 0; i < 100; i++) /* hum of one step of 16 bits, off centre */
        f->got[i] = 0.3f + (i % 2 ? 1.0f : 0.0f) / 32768.0f;
    assert_true(vibe_level_is_silent(f->got, 100));
}

static void a_whisper_is_not_silence(void **state)
{
    struct fixture *f = *state;

    f->got[50] = 0.0003f; /* -70 dB */

    assert_false(vibe_level_is_silent(f->got, 100));
}

static void meter_counts_over_all_frames(void **state)
{
    static const float first[] = {0.5f, -0.5f, 1.0f};
    static const float second[] = {-1.25f};
    struct vibe_meter meter = {0};

    (void)state;
    assert_true(vibe_meter_rms(&meter) == 0.0);
    vibe_meter_add(&meter, first, 3);
    vibe_meter_add(&meter, second, 1);

    assert_int_equal(meter.n, 4);
    assert_int_equal(meter.n_clipped, 1); /* 1.0 itself is not beyond */
    assert_true(meter.peak == 1.25f);
    /* 0.25 + 0.25 + 1 + 1.5625 are exact, and so is their sum. */
    assert_true(vibe_meter_rms(&meter) == sqrt(3.0625 / 4));
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(normalize_survives_silence),
    VIBE_TEST(normalize_survives_values_whose_squares_overflow),
    VIBE_TEST(normalize_equals_the_recorded_reference),
    VIBE_TEST(normalize_brings_peaks_back_below_full_scale),
    VIBE_TEST(normalize_limits_a_peak_just_above_full_scale),
    VIBE_TEST(normalize_reaches_another_target),
    VIBE_TEST(silence_is_recognized),
    VIBE_TEST(a_whisper_is_not_silence),
    VIBE_TEST(meter_counts_over_all_frames),
};

VIBE_TEST_MAIN(tests)
