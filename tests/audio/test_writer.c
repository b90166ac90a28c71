#include <fcntl.h>
#include <math.h>
#include <sndfile.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "audio/writer.h"
#include "engine/base/error.h"
#include "tests/support/speech.h"
#include "tests/support/vibe_test.h"

/* The names that VIBE_TEST() asks for. */
#define setup    speech_setup
#define teardown speech_teardown

static void finish_of_nothing_is_an_empty_file(void **state)
{
    struct speech *f = *state;

    speech_open(f, "out.wav", &speech_plain);
    speech_finish(f);

    assert_int_equal(speech_length("out.wav"), 0);
}

static void finish_of_nothing_can_be_read_in_every_format(void **state)
{
    struct speech *f = *state;
    static float got[N];
    char path[32];

    for (int k = 0; k < N_EXTENSIONS; k++) {
        long n;
        int rate;

        snprintf(path, sizeof(path), "out.%s", speech_extensions[k]);
        speech_open(f, path, &speech_plain);
        speech_finish(f);
        n = speech_decode(path, got, &rate);
        if (n < 0 || n > 1) /* an encoder's one sample of silence */
            fail_msg("%s: %ld samples", path, n);
    }
}

/* Root mean square of a - b over that of b. */
static double distance(const float *a, const float *b, size_t n)
{
    double noise = 0.0;
    double signal = 0.0;

    for (size_t i = 0; i < n; i++) {
        noise += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        signal += (double)b[i] * (double)b[i];
    }
    return sqrt(noise / signal);
}

static void every_format_reads_back(void **state)
{
    struct speech *f = *state;
    /* Twice what was measured: 2.8e-5 is the rounding to 16 bits; Vorbis,
     * Opus and MP3 gave 0.023, 0.12 and 0.0053.  A sample of delay would give
     * 0.14, a wrong rate 1.4. */
    static const double tolerance[] = {6e-5, 6e-5, 0.05, 0.25, 0.01, 6e-5};
    static float got[N];
    char path[32];

    for (int k = 0; k < N_EXTENSIONS; k++) {
        double off;
        int rate;

        snprintf(path, sizeof(path), "out.%s", speech_extensions[k]);
        speech_make(f, path, &speech_plain);
        assert_int_equal(speech_decode(path, got, &rate), N);
        assert_int_equal(rate, RATE);
        off = distance(got, f->samples, N);
        if (off > tolerance[k])
            fail_msg("%s: off by %g", path, off);
    }
}

static void a_name_without_extension_is_a_wav(void **state)
{
    struct speech *f = *state;
    unsigned char bytes[2 * N + 1000];

    speech_make(f, "out", &speech_plain);

    vibe_file_read("out", bytes, sizeof(bytes));
    assert_memory_equal(bytes, "RIFF", 4);
}

static void an_asked_format_wins_over_the_extension(void **state)
{
    struct speech *f = *state;
    const struct vibe_writer_options opt = {.rate = RATE,
                                            .format = VIBE_AUDIO_FLAC};
    unsigned char bytes[2 * N];

    speech_make(f, "out.wav", &opt);

    vibe_file_read("out.wav", bytes, sizeof(bytes));
    assert_memory_equal(bytes, "fLaC", 4);
}

static void integers_are_rounded_and_saturated(void **state)
{
    struct speech *f = *state;
    const float step = 0x1p-15f;
    const float in[] = {0.0f,         0.25f,         -0.5f,
                        1.0f,         -1.0f,         1.5f,
                        -7e30f,       0.75f * step,  -0.75f * step,
                        0.25f * step, -0.25f * step, 3 * step};
    const short want[] = {0,      8192, -16384, 32767, -32768, 32767,
                          -32768, 1,    -1,     0,     0,      3};
    short got[12];

    speech_open(f, "out.raw", &speech_plain);
    assert_int_equal(vibe_writer_write(f->writer, in, 12, &f->err), VIBE_OK);
    speech_finish(f);

    assert_int_equal(
        vibe_file_read("out.raw", (unsigned char *)got, sizeof(got) + 1),
        sizeof(got));
    assert_memory_equal(got, want, sizeof(want));
}

static void wider_samples_keep_more(void **state)
{
    struct speech *f = *state;
    const struct vibe_writer_options s24 = {.rate = RATE,
                                            .sample = VIBE_SAMPLE_S24};
    const struct vibe_writer_options f32 = {.rate = RATE,
                                            .sample = VIBE_SAMPLE_F32};
    const float in[] = {1e-3f, -1e-3f, 1.5f};
    float got[N];
    int rate;

    speech_open(f, "out.wav", &f32);
    assert_int_equal(vibe_writer_write(f->writer, in, 3, &f->err), VIBE_OK);
    speech_finish(f);
    assert_int_equal(speech_decode("out.wav", got, &rate), 3);
    assert_memory_equal(got, in, sizeof(in));

    speech_open(f, "out.flac", &s24);
    assert_int_equal(vibe_writer_write(f->writer, in, 3, &f->err), VIBE_OK);
    speech_finish(f);
    assert_int_equal(speech_decode("out.flac", got, &rate), 3);
    assert_float_equal(got[0], in[0], 0x1p-24f); /* half a step */
    assert_float_equal(got[1], in[1], 0x1p-24f);
    assert_float_equal(got[2], 1.0f, 0x1p-23f);
}

static void a_16_bit_file_written_again_is_the_same(void **state)
{
    struct speech *f = *state;
    unsigned char first[2 * N + 100];
    unsigned char second[2 * N + 100];
    size_t n;
    int rate;

    speech_make(f, "first.wav", &speech_plain);
    assert_int_equal(speech_decode("first.wav", f->samples, &rate), N);
    speech_make(f, "second.wav", &speech_plain);

    n = vibe_file_read("first.wav", first, sizeof(first));
    assert_int_equal(vibe_file_read("second.wav", second, sizeof(second)), n);
    assert_memory_equal(first, second, n);
}

static void the_same_samples_give_the_same_bytes(void **state)
{
    struct speech *f = *state;
    const char *const names[] = {"a.wav", "a.flac", "a.mp3", "a.raw"};
    unsigned char first[4 * N + 1000];
    unsigned char second[4 * N + 1000];

    for (size_t k = 0; k < sizeof(names) / sizeof(names[0]); k++) {
        const struct vibe_writer_options opt = {
            .rate = RATE, .title = "Tea", .comment = "seed 42"};
        size_t n;

        speech_make(f, names[k], &opt);
        n = vibe_file_read(names[k], first, sizeof(first));
        /* All at once instead of frame by frame. */
        speech_open(f, names[k], &opt);
        assert_int_equal(vibe_writer_write(f->writer, f->samples, N, &f->err),
                         VIBE_OK);
        speech_finish(f);
        assert_int_equal(vibe_file_read(names[k], second, sizeof(second)), n);
        assert_memory_equal(first, second, n);
    }
}

static void a_float_wav_does_not_tell_the_time(void **state)
{
    struct speech *f = *state;
    const struct vibe_writer_options opt = {.rate = RATE,
                                            .sample = VIBE_SAMPLE_F32};
    unsigned char bytes[4 * N + 1000];

    speech_make(f, "out.wav", &opt);

    /* libsndfile's PEAK chunk would: it holds the second it was made in. */
    assert_null(memmem(bytes, vibe_file_read("out.wav", bytes, sizeof(bytes)),
                       "PEAK", 4));
}

static void title_and_comment_are_kept(void **state)
{
    struct speech *f = *state;
    const struct vibe_writer_options opt = {
        .rate = RATE, .title = "Tea at five", .comment = "seed 42, cfg 1.3"};
    char path[32];

    for (int k = 0; k < N_EXTENSIONS - 1; k++) { /* raw has no room */
        SF_INFO info = {0};
        SNDFILE *file;

        snprintf(path, sizeof(path), "out.%s", speech_extensions[k]);
        speech_make(f, path, &opt);
        file = sf_open(path, SFM_READ, &info);
        assert_non_null(file);
        assert_string_equal(sf_get_string(file, SF_STR_TITLE), opt.title);
        assert_string_equal(sf_get_string(file, SF_STR_COMMENT), opt.comment);
        sf_close(file);
    }
}

static void raw_is_samples_and_nothing_else(void **state)
{
    struct speech *f = *state;
    const struct vibe_writer_options opt = {.rate = RATE, .comment = "none"};
    unsigned char raw[2 * N + 1];
    unsigned char wav[2 * N + 100];

    speech_make(f, "out.raw", &opt);
    speech_make(f, "out.wav", &speech_plain);

    assert_int_equal(vibe_file_read("out.raw", raw, sizeof(raw)), 2 * N);
    assert_int_equal(vibe_file_read("out.wav", wav, sizeof(wav)), 44 + 2 * N);
    assert_memory_equal(raw, wav + 44, sizeof(raw) - 1);
}

static void a_pipe_gets_a_header_without_end(void **state)
{
    struct speech *f = *state;
    static const unsigned char
        header[44] = "RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0"
                     "\xc0\x5d\0\0\x80\xbb\0\0\x02\0\x10\0data\xff\xff\xff\xff";
    unsigned char got[44 + 2 * FRAME + 1];
    unsigned char wav[44 + 2 * FRAME + 1];
    size_t n = 0;
    ssize_t more;
    int ends[2];

    assert_int_equal(pipe(ends), 0);
    speech_open_stdout(f, ends[1], &speech_plain);
    close(ends[1]);
    speech_write(f, 1); /* fits in a pipe */
    speech_finish(f);
    while ((more = read(ends[0], got + n, sizeof(got) - n)) > 0)
        n += (size_t)more;
    close(ends[0]);

    assert_int_equal(n, 44 + 2 * FRAME);
    assert_memory_equal(got, header, 44);
    speech_open(f, "out.wav", &speech_plain);
    speech_write(f, 1);
    speech_finish(f);
    vibe_file_read("out.wav", wav, sizeof(wav));
    assert_memory_equal(got + 44, wav + 44, sizeof(short) * FRAME);
}

static void stdout_in_a_file_ends_as_the_file_would(void **state)
{
    struct speech *f = *state;
    static const enum vibe_sample_format samples[] = {VIBE_SAMPLE_S16,
                                                      VIBE_SAMPLE_S24};

    for (int k = 0; k < 2; k++) {
        const struct vibe_writer_options opt = {
            .rate = RATE, .sample = samples[k], .comment = "no room for it"};
        const struct vibe_writer_options bare = {.rate = RATE,
                                                 .sample = samples[k]};
        unsigned char got[3 * N + 100];
        unsigned char want[3 * N + 100];
        size_t n;
        int fd = open("stdout.wav", O_WRONLY | O_CREAT | O_TRUNC, 0600);

        speech_open_stdout(f, fd, &opt);
        close(fd);
        speech_write(f, N_FRAMES);
        speech_finish(f);
        speech_make(f, "file.wav", &bare);

        n = vibe_file_read("file.wav", want, sizeof(want));
        assert_int_equal(vibe_file_read("stdout.wav", got, sizeof(got)), n);
        assert_memory_equal(got, want, n);
    }
}

static void a_float_stream_reads_back(void **state)
{
    struct speech *f = *state;
    const struct vibe_writer_options opt = {.rate = RATE,
                                            .sample = VIBE_SAMPLE_F32};
    static float got[N];
    int rate;
    int fd = open("stdout.wav", O_WRONLY | O_CREAT | O_APPEND, 0600);

    speech_open_stdout(f, fd,
                       &opt); /* O_APPEND: the sizes stay "until the end" */
    close(fd);
    speech_write(f, N_FRAMES);
    speech_finish(f);

    assert_int_equal(speech_decode("stdout.wav", got, &rate), N);
    assert_int_equal(rate, RATE);
    assert_memory_equal(got, f->samples, sizeof(got));
}

static void names_are_parsed_and_given(void **state)
{
    enum vibe_audio_format format = VIBE_AUDIO_AUTO;
    enum vibe_sample_format sample = VIBE_SAMPLE_S16;

    (void)state;
    for (int k = 0; k < N_EXTENSIONS; k++) {
        assert_true(vibe_audio_format_parse(&format, speech_extensions[k]));
        assert_int_equal(format, VIBE_AUDIO_WAV + k);
        assert_string_equal(vibe_audio_format_name(format),
                            speech_extensions[k]);
    }
    assert_true(vibe_audio_format_parse(&format, "WAV"));
    assert_false(vibe_audio_format_parse(&format, "auto"));
    assert_false(vibe_audio_format_parse(&format, ""));
    assert_int_equal(format, VIBE_AUDIO_WAV);

    assert_true(vibe_sample_format_parse(&sample, "f32"));
    assert_int_equal(sample, VIBE_SAMPLE_F32);
    assert_false(vibe_sample_format_parse(&sample, "s32"));
    assert_string_equal(vibe_sample_format_name(VIBE_SAMPLE_S24), "s24");
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(finish_of_nothing_is_an_empty_file),
    VIBE_TEST(finish_of_nothing_can_be_read_in_every_format),
    VIBE_TEST(every_format_reads_back),
    VIBE_TEST(a_name_without_extension_is_a_wav),
    VIBE_TEST(an_asked_format_wins_over_the_extension),
    VIBE_TEST(integers_are_rounded_and_saturated),
    VIBE_TEST(wider_samples_keep_more),
    VIBE_TEST(a_16_bit_file_written_again_is_the_same),
    VIBE_TEST(the_same_samples_give_the_same_bytes),
    VIBE_TEST(a_float_wav_does_not_tell_the_time),
    VIBE_TEST(title_and_comment_are_kept),
    VIBE_TEST(raw_is_samples_and_nothing_else),
    VIBE_TEST(a_pipe_gets_a_header_without_end),
    VIBE_TEST(stdout_in_a_file_ends_as_the_file_would),
    VIBE_TEST(a_float_stream_reads_back),
    VIBE_TEST(names_are_parsed_and_given),
};

VIBE_TEST_MAIN(tests)
