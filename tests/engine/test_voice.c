#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/format/config.h"
#include "engine/format/safetensors.h"
#include "engine/vibevoice.h"
#include "engine/voice.h"
#include "tests/support/vibe_test.h"

#define FIXTURES "tests/fixtures/audio/"

enum { CAPACITY = 30000 };

/* As published in preprocessor_config.json. */
static const struct vibe_preprocessor published = {
    .db_normalize = 1,
    .target_db = -25.0f,
    .eps = 1e-6f,
    .sampling_rate = 24000,
};

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
    vibe_voice_normalize(f->got, f->got, n, &published);
    for (size_t i = 0; i < n; i++)
        assert_float_equal(f->got[i], want[i], 1e-6f);
}

static void normalize_survives_silence(void **state)
{
    struct fixture *f = *state;

    vibe_voice_normalize(f->got, f->got, 100, &published);
    for (int i = 0; i < 100; i++)
        assert_true(f->got[i] == 0.0f);

    vibe_voice_normalize(f->got, f->got, 0,
                         &published); /* no samples: no crash */
}

static void normalize_survives_values_whose_squares_overflow(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 100; i++)
        f->got[i] = i % 2 ? 1e30f : -1e30f;
    vibe_voice_normalize(f->got, f->got, 100, &published);

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
    vibe_voice_normalize(f->got, f->got, 400, &published);

    assert_true(f->got[7] < 1.0f && f->got[7] > 0.99999f);
}

static void normalize_reaches_another_target(void **state)
{
    struct fixture *f = *state;
    const struct vibe_preprocessor quiet = {.target_db = -40.0f, .eps = 1e-6f};
    double sum = 0.0;

    for (int i = 0; i < 1000; i++)
        f->got[i] = 0.01f * sinf((float)i);
    vibe_voice_normalize(f->got, f->got, 1000, &quiet);
    for (int i = 0; i < 1000; i++)
        sum += (double)f->got[i] * (double)f->got[i];

    /* eps itself takes rms / (rms + 1e-6) = 1.4e-4 off. */
    assert_float_equal((float)sqrt(sum / 1000), 0.01f, 0.01f * 1.5e-4f);
}

/* What vibe_voice_check says of the first n samples. */
static int check(struct fixture *f, size_t n)
{
    const struct vibe_voice voice = {
        .samples = f->got,
        .n = n,
        .name = "a clip",
    };

    return vibe_voice_check(&voice, NULL);
}

static void silence_is_recognized(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(check(f, 0), VIBE_E_FORMAT);
    assert_int_equal(check(f, 100), VIBE_E_FORMAT);

    for (int i = 0; i < 100; i++) /* hum of one step of 16 bits, off centre */
        f->got[i] = 0.3f + (i % 2 ? 1.0f : 0.0f) / 32768.0f;
    assert_int_equal(check(f, 100), VIBE_E_FORMAT);
}

static void a_whisper_is_not_silence(void **state)
{
    struct fixture *f = *state;

    f->got[50] = 0.0003f; /* -70 dB */

    assert_int_equal(check(f, 100), VIBE_OK);
}

static void ten_minutes_are_no_voice(void **state)
{
    /* told by the length alone: the samples are not looked at */
    assert_int_equal(check(*state, (size_t)VIBE_CLIP_MAX_S * VIBE_SAMPLE_RATE),
                     VIBE_E_FORMAT);
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
    VIBE_TEST(ten_minutes_are_no_voice),
};

VIBE_TEST_MAIN(tests)
