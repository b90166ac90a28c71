#include <math.h>
#include <sndfile.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audio/wav.h"
#include "engine/base/error.h"
#include "tests/support/scratch.h"
#include "tests/support/vibe_test.h"

/*
 * libsndfile 1.2.0 forgets a vorbis_info when it refuses a damaged Ogg file.
 * Read by the leak checker, if there is one.
 */
/* NOLINTBEGIN(readability-identifier-naming): the name is the checker's */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libvorbis";
}
/* NOLINTEND(readability-identifier-naming) */

struct fixture {
    struct vibe_scratch scratch;
    const char *path;
    struct vibe_audio got;
    struct vibe_error err;
};

/* Each test works inside its own folder. */
static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f)
        return -1;
    f->path = "voice";
    *state = f;
    return vibe_scratch_enter(&f->scratch);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    int rc;

    vibe_audio_release(&f->got);
    rc = vibe_scratch_leave(&f->scratch);
    free(f);
    return rc;
}

static void write_audio(const char *path, const float *pcm, int frames,
                        int channels, int rate, int format)
{
    SF_INFO info = {.samplerate = rate, .channels = channels, .format = format};
    SNDFILE *file = sf_open(path, SFM_WRITE, &info);

    assert_non_null(file);
    assert_int_equal(sf_writef_float(file, pcm, frames), frames);
    assert_int_equal(sf_close(file), 0);
}

static void write_wav(const char *path, const float *pcm, int frames,
                      int channels)
{
    write_audio(path, pcm, frames, channels, 24000,
                SF_FORMAT_WAV | SF_FORMAT_FLOAT);
}

/* Expect a refusal that names the file and says why, and leaves got alone. */
static void assert_refused(struct fixture *f, int code, const char *why)
{
    assert_int_equal(vibe_wav_read(&f->got, f->path, &f->err), code);
    assert_int_equal(f->err.code, code);
    assert_ptr_equal(strstr(f->err.msg, f->path), f->err.msg);
    if (!strstr(f->err.msg, why))
        fail_msg("'%s' does not say '%s'", f->err.msg, why);
    assert_null(f->got.samples);
    assert_int_equal(f->got.n, 0);
}

static void read_names_the_missing_file(void **state)
{
    assert_refused(*state, VIBE_E_IO, ": No such file or directory");
}

static void read_refuses_a_directory(void **state)
{
    struct fixture *f = *state;

    f->path = f->scratch.folder;

    assert_refused(f, VIBE_E_IO, ": is a directory");
}

static void read_refuses_a_pipe_without_waiting(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(mkfifo(f->path, 0600), 0);

    assert_refused(f, VIBE_E_IO, ": is not a regular file");
}

static void read_refuses_a_file_of_no_bytes(void **state)
{
    struct fixture *f = *state;

    vibe_file_write(f->path, "", 0);

    assert_refused(f, VIBE_E_FORMAT, ": file is empty");
}

static void read_refuses_text(void **state)
{
    struct fixture *f = *state;
    static const char text[] = "Speaker 1: I am a script, not a voice.\n";

    vibe_file_write(f->path, text, sizeof(text) - 1);

    assert_refused(f, VIBE_E_FORMAT, ": Format not recognised");
    assert_int_not_equal(f->err.msg[strlen(f->err.msg) - 1], '.');
}

static void read_refuses_a_file_of_no_samples(void **state)
{
    struct fixture *f = *state;

    write_wav(f->path, NULL, 0, 1);

    assert_refused(f, VIBE_E_FORMAT, ": holds no audio");
}

/* Write a 16-bit WAV of 4 samples, with what it says about itself given. */
static void write_claims(const char *path, unsigned rate, unsigned channels,
                         unsigned bytes)
{
    unsigned char h[44 + 8] = "RIFF....WAVEfmt ....................data";
    unsigned width = 2 * channels;
    const unsigned fields[][3] = {
        /* offset, value, bytes */
        {4, bytes + 36, 4}, {16, 16, 4},   {20, 1, 2},
        {22, channels, 2},  {24, rate, 4}, {28, rate * width, 4},
        {32, width, 2},     {34, 16, 2},   {40, bytes, 4}};

    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        for (unsigned b = 0; b < fields[i][2]; b++)
            h[fields[i][0] + b] = (unsigned char)(fields[i][1] >> (8 * b));
    }
    h[45] = 0x40; /* 0.5, and three zeros */
    vibe_file_write(path, h, sizeof(h));
}

static void read_refuses_a_rate_of_0_hz(void **state)
{
    struct fixture *f = *state;

    write_claims(f->path, 0, 1, 8);

    assert_refused(f, VIBE_E_FORMAT, ": header says 0 Hz or 0 channels");
}

static void read_refuses_rates_that_no_voice_has(void **state)
{
    struct fixture *f = *state;

    write_claims(f->path, 3999, 1, 8);
    assert_refused(f, VIBE_E_FORMAT, ": sample rate 3999 Hz is not from 4000");

    write_claims(f->path, 384001, 1, 8);
    assert_refused(f, VIBE_E_FORMAT, ": sample rate 384001 Hz");
}

static void read_refuses_65_channels(void **state)
{
    struct fixture *f = *state;
    static const float pcm[65];

    write_wav(f->path, pcm, 1, 65);

    assert_refused(f, VIBE_E_FORMAT, ": has 65 channels, not 1 to 64");
}

static void read_refuses_nan_and_infinity_in_any_channel(void **state)
{
    struct fixture *f = *state;
    const float bad[] = {NAN, INFINITY, -INFINITY};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        float pcm[6] = {0.1f, 0.2f, 0.3f, bad[i], 0.5f, 0.6f};

        write_wav(f->path, pcm, 3, 2);
        assert_refused(f, VIBE_E_FORMAT, ": sample 1 is not a finite number");
    }
}

static void read_refuses_ten_minutes_and_takes_a_sample_less(void **state)
{
    struct fixture *f = *state;
    const int frames = VIBE_VOICE_MAX_S * VIBE_VOICE_MIN_RATE;
    float *pcm = calloc((size_t)frames, sizeof(*pcm));

    assert_non_null(pcm);
    write_audio(f->path, pcm, frames, 1, VIBE_VOICE_MIN_RATE,
                SF_FORMAT_WAV | SF_FORMAT_PCM_U8);
    assert_refused(f, VIBE_E_FORMAT, ": is 10 minutes or longer");

    write_audio(f->path, pcm, frames - 1, 1, VIBE_VOICE_MIN_RATE,
                SF_FORMAT_WAV | SF_FORMAT_PCM_U8);
    free(pcm);
    assert_int_equal(vibe_wav_read(&f->got, f->path, &f->err), VIBE_OK);
    assert_int_equal(f->got.n, frames - 1);
}

/* A second of a sine, which no encoder finds difficult. */
static void fill_tone(float *pcm)
{
    for (int i = 0; i < 24000; i++)
        pcm[i] = 0.5f * sinf((float)i * 0.05f);
}

static void cut_file(const char *path, int percent)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, st.st_size * percent / 100), 0);
}

static void read_refuses_a_flac_that_is_cut_short(void **state)
{
    struct fixture *f = *state;
    float pcm[24000];

    fill_tone(pcm);
    write_audio(f->path, pcm, 24000, 1, 24000,
                SF_FORMAT_FLAC | SF_FORMAT_PCM_16);
    cut_file(f->path, 60);

    assert_refused(f, VIBE_E_FORMAT, " of 24000 frames");
}

static void read_refuses_an_ogg_that_is_cut_short(void **state)
{
    struct fixture *f = *state;
    float pcm[24000];

    fill_tone(pcm);
    write_audio(f->path, pcm, 24000, 1, 24000,
                SF_FORMAT_OGG | SF_FORMAT_VORBIS);
    cut_file(f->path, 60);

    assert_refused(f, VIBE_E_FORMAT, ": ");
}

static void read_works_without_an_error_struct(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(vibe_wav_read(&f->got, f->path, NULL), VIBE_E_IO);
}

static void read_believes_the_data_and_not_the_header(void **state)
{
    struct fixture *f = *state;

    write_claims(f->path, 24000, 1, 0xffffffff - 36); /* 4 GiB */

    assert_int_equal(vibe_wav_read(&f->got, f->path, &f->err), VIBE_OK);
    assert_int_equal(f->got.n, 4);
    assert_float_equal(f->got.samples[0], 0.5f, 0.0f); /* 16 bits: exact */
}

static void read_takes_an_mp3_of_unknown_length(void **state)
{
    struct fixture *f = *state;
    float pcm[24000];
    unsigned char mp3[40000];
    size_t n;
    size_t second = 4;

    /* Silence first: small frames, from which too great a length follows. */
    fill_tone(pcm);
    memset(pcm, 0, 12000 * sizeof(*pcm));
    write_audio(f->path, pcm, 24000, 1, 24000,
                SF_FORMAT_MPEG | SF_FORMAT_MPEG_LAYER_III);
    n = vibe_file_read(f->path, mp3, sizeof(mp3));
    /* The first MPEG frame holds the lengths; the second starts the sound. */
    while (second < n && memcmp(mp3 + second, mp3, 2) != 0)
        second++;
    assert_true(second < n);
    vibe_file_write(f->path, mp3 + second, n - second);

    assert_int_equal(vibe_wav_read(&f->got, f->path, &f->err), VIBE_OK);
    /* The encoder's lead-in is cut off no longer: up to 3 frames of 576. */
    assert_in_range(f->got.n, 24000, 24000 + 3 * 576);
}

static void read_averages_stereo_into_mono(void **state)
{
    struct fixture *f = *state;
    const float pcm[] = {0.5f, -0.5f, 1.0f, 0.0f};

    write_wav(f->path, pcm, 2, 2);

    assert_int_equal(vibe_wav_read(&f->got, f->path, &f->err), VIBE_OK);
    assert_int_equal(f->got.n, 2);
    assert_int_equal(f->got.rate, 24000);
    /* Sums and halves of these are exact. */
    assert_float_equal(f->got.samples[0], 0.0f, 0.0f);
    assert_float_equal(f->got.samples[1], 0.5f, 0.0f);
}

static void read_keeps_what_is_beyond_full_scale(void **state)
{
    struct fixture *f = *state;
    const float pcm[] = {1.5f, -3.0f};

    write_wav(f->path, pcm, 2, 1);

    assert_int_equal(vibe_wav_read(&f->got, f->path, &f->err), VIBE_OK);
    assert_memory_equal(f->got.samples, pcm, sizeof(pcm));
}

static void read_joins_its_chunks(void **state)
{
    struct fixture *f = *state;
    float pcm[2 * 10001]; /* more than two chunks, and odd */

    for (int i = 0; i < 2 * 10001; i++)
        pcm[i] = (float)(i - i % 2) / 32768.0f;
    write_wav(f->path, pcm, 10001, 2);

    assert_int_equal(vibe_wav_read(&f->got, f->path, &f->err), VIBE_OK);
    assert_int_equal(f->got.n, 10001);
    for (size_t i = 0; i < f->got.n; i++)
        assert_true(f->got.samples[i] == (float)i / 16384.0f);
}

static void read_takes_every_format_whole(void **state)
{
    struct fixture *f = *state;
    /* Lossless ones give the samples to 16 bits, the others nearly. */
    const struct {
        int format;
        float tolerance;
    } kinds[] = {
        {SF_FORMAT_WAV | SF_FORMAT_PCM_16, 0x1p-15f},
        {SF_FORMAT_WAV | SF_FORMAT_PCM_24, 0x1p-23f},
        {SF_FORMAT_WAVEX | SF_FORMAT_PCM_32, 0x1p-23f},
        {SF_FORMAT_RF64 | SF_FORMAT_DOUBLE, 0.0f},
        {SF_FORMAT_W64 | SF_FORMAT_FLOAT, 0.0f},
        {SF_FORMAT_AIFF | SF_FORMAT_PCM_16, 0x1p-15f},
        {SF_FORMAT_AU | SF_FORMAT_PCM_16, 0x1p-15f},
        {SF_FORMAT_CAF | SF_FORMAT_PCM_16, 0x1p-15f},
        {SF_FORMAT_FLAC | SF_FORMAT_PCM_16, 0x1p-15f},
        {SF_FORMAT_AU | SF_FORMAT_ULAW, 0.05f},
        {SF_FORMAT_OGG | SF_FORMAT_VORBIS, 0.05f},
        {SF_FORMAT_OGG | SF_FORMAT_OPUS, 0.05f},
        {SF_FORMAT_MPEG | SF_FORMAT_MPEG_LAYER_III, 0.05f},
    };
    float pcm[24000];

    fill_tone(pcm);
    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        write_audio(f->path, pcm, 24000, 1, 24000, kinds[k].format);
        assert_int_equal(vibe_wav_read(&f->got, f->path, &f->err), VIBE_OK);
        assert_int_equal(f->got.n, 24000);
        assert_int_equal(f->got.rate, 24000);
        /* Codecs blur the first samples, where the tone begins. */
        for (int i = 1000; i < 23000; i++) {
            float off = fabsf(f->got.samples[i] - pcm[i]);

            if (off > kinds[k].tolerance)
                fail_msg("format 0x%x: sample %d is off by %g",
                         (unsigned)kinds[k].format, i, (double)off);
        }
        vibe_audio_release(&f->got);
        unlink(f->path);
    }
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(read_names_the_missing_file),
    VIBE_TEST(read_refuses_a_directory),
    VIBE_TEST(read_refuses_a_pipe_without_waiting),
    VIBE_TEST(read_refuses_a_file_of_no_bytes),
    VIBE_TEST(read_refuses_text),
    VIBE_TEST(read_refuses_a_file_of_no_samples),
    VIBE_TEST(read_refuses_a_rate_of_0_hz),
    VIBE_TEST(read_refuses_rates_that_no_voice_has),
    VIBE_TEST(read_refuses_65_channels),
    VIBE_TEST(read_refuses_nan_and_infinity_in_any_channel),
    VIBE_TEST(read_refuses_ten_minutes_and_takes_a_sample_less),
    VIBE_TEST(read_refuses_a_flac_that_is_cut_short),
    VIBE_TEST(read_refuses_an_ogg_that_is_cut_short),
    VIBE_TEST(read_works_without_an_error_struct),
    VIBE_TEST(read_believes_the_data_and_not_the_header),
    VIBE_TEST(read_takes_an_mp3_of_unknown_length),
    VIBE_TEST(read_averages_stereo_into_mono),
    VIBE_TEST(read_keeps_what_is_beyond_full_scale),
    VIBE_TEST(read_joins_its_chunks),
    VIBE_TEST(read_takes_every_format_whole),
};

VIBE_TEST_MAIN(tests)
