#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audio/resample.h"
#include "audio/wav.h"
#include "engine/base/error.h"
#include "engine/base/worst.h"
#include "tests/support/vibe_test.h"

#define FIXTURES "tests/fixtures/audio/"

struct fixture {
    struct vibe_audio in;
    struct vibe_audio got;
    struct vibe_error err;
};

static int setup(void **state)
{
    *state = calloc(1, sizeof(struct fixture));
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vibe_audio_release(&f->in);
    vibe_audio_release(&f->got);
    free(f);
    return 0;
}

/* Give f->in a sine of amplitude 1. */
static void make_tone(struct fixture *f, size_t n, int rate, double hz)
{
    const double pi = 3.14159265358979323846;

    f->in.samples = calloc(n ? n : 1, sizeof(*f->in.samples));
    assert_non_null(f->in.samples);
    f->in.n = n;
    f->in.rate = rate;
    for (size_t i = 0; i < n; i++)
        f->in.samples[i] = (float)sin(2 * pi * hz * (double)i / rate);
}

static void length_is_that_of_librosa(void **state)
{
    /* From librosa 0.11.  147 samples of 44.1 kHz are exactly 80 at 24 kHz, but
     * 24000 / 44100 as a double is a little more than it should be. */
    static const struct {
        size_t n;
        int from;
        size_t want;
    } cases[] = {
        {0, 44100, 0},         {1, 44100, 1},         {1, 8000, 3},
        {3, 48000, 2},         {147, 44100, 81},      {441, 44100, 241},
        {44100, 44100, 24001}, {44101, 44100, 24001}, {22051, 22050, 24002},
        {16000, 16000, 24000}, {16001, 16000, 24002}, {1000, 24000, 1000},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(vibe_resample_length(cases[i].n, cases[i].from, 24000),
                         cases[i].want);
}

static void resample_of_nothing_is_nothing(void **state)
{
    struct fixture *f = *state;

    make_tone(f, 0, 44100, 100);

    assert_int_equal(vibe_resample(&f->got, &f->in, 24000, &f->err), VIBE_OK);
    assert_int_equal(f->got.n, 0);
    assert_int_equal(f->got.rate, 24000);
}

static void resample_takes_a_single_sample(void **state)
{
    struct fixture *f = *state;

    make_tone(f, 1, 8000, 100);
    f->in.samples[0] = 0.5f;

    assert_int_equal(vibe_resample(&f->got, &f->in, 24000, &f->err), VIBE_OK);
    assert_int_equal(f->got.n, 3);
    for (int i = 0; i < 3; i++)
        assert_true(fabsf(f->got.samples[i]) <= 0.5f);
}

static void resample_at_the_same_rate_copies(void **state)
{
    struct fixture *f = *state;

    make_tone(f, 1000, 24000, 440);

    assert_int_equal(vibe_resample(&f->got, &f->in, 24000, &f->err), VIBE_OK);
    assert_int_equal(f->got.n, 1000);
    assert_ptr_not_equal(f->got.samples, f->in.samples);
    assert_memory_equal(f->got.samples, f->in.samples, 1000 * sizeof(float));
}

/* Largest distance of got from a sine of 24 kHz, away from the ends. */
static double tone_error(const struct vibe_audio *got, double hz)
{
    const double pi = 3.14159265358979323846;
    double worst = 0.0;

    for (size_t i = 2400; i < got->n - 2400; i++) {
        double want = sin(2 * pi * hz * (double)i / 24000.0);

        worst = vibe_worst(worst, fabs((double)got->samples[i] - want));
    }
    return worst;
}

static void resample_neither_delays_nor_colours_a_tone(void **state)
{
    struct fixture *f = *state;
    static const int rates[] = {8000, 16000, 22050, 44100, 48000, 96000};

    for (size_t k = 0; k < sizeof(rates) / sizeof(rates[0]); k++) {
        make_tone(f, (size_t)rates[k], rates[k], 1000);
        assert_int_equal(vibe_resample(&f->got, &f->in, 24000, &f->err),
                         VIBE_OK);
        assert_int_equal(
            f->got.n, vibe_resample_length((size_t)rates[k], rates[k], 24000));
        /* The HQ setting promises 20 bits, 1e-6; a delay of one hundredth of
         * a sample would be 3e-3. */
        assert_true(tone_error(&f->got, 1000) < 3e-6);
        vibe_audio_release(&f->got);
        vibe_audio_release(&f->in);
    }
}

static void resample_removes_what_24_khz_cannot_hold(void **state)
{
    struct fixture *f = *state;

    make_tone(f, 44100, 44100, 13500); /* would come back at 10.5 kHz */

    assert_int_equal(vibe_resample(&f->got, &f->in, 24000, &f->err), VIBE_OK);
    for (size_t i = 2400; i < 21600; i++)
        assert_true(fabsf(f->got.samples[i]) < 3e-6f); /* 20 bits, as above */
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

static void voice_equals_that_of_librosa(void **state)
{
    struct fixture *f = *state;
    static const char *const names[] = {"8000_1",  "16000_1", "22050_1",
                                        "24000_2", "44100_2", "48000_1"};
    float want[4000];
    char path[128];

    for (size_t k = 0; k < sizeof(names) / sizeof(names[0]); k++) {
        size_t n;

        snprintf(path, sizeof(path), FIXTURES "voice_%s.24k.f32", names[k]);
        n = read_floats(path, want, 4000);
        snprintf(path, sizeof(path), FIXTURES "voice_%s.wav", names[k]);
        assert_int_equal(vibe_wav_read(&f->in, path, &f->err), VIBE_OK);
        assert_int_equal(vibe_resample(&f->got, &f->in, 24000, &f->err),
                         VIBE_OK);
        assert_int_equal(f->got.n, n);
        /* Bit-equal where recorded; another CPU may sum in another order:
         * 20 bits again. */
        for (size_t i = 0; i < n; i++)
            assert_float_equal(f->got.samples[i], want[i], 1e-6f);
        vibe_audio_release(&f->got);
        vibe_audio_release(&f->in);
    }
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(length_is_that_of_librosa),
    VIBE_TEST(resample_of_nothing_is_nothing),
    VIBE_TEST(resample_takes_a_single_sample),
    VIBE_TEST(resample_at_the_same_rate_copies),
    VIBE_TEST(resample_neither_delays_nor_colours_a_tone),
    VIBE_TEST(resample_removes_what_24_khz_cannot_hold),
    VIBE_TEST(voice_equals_that_of_librosa),
};

VIBE_TEST_MAIN(tests)
