/* Everything about audio/writer.h that goes wrong, or is cut short. */
#include <errno.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "audio/wav.h"
#include "audio/writer.h"
#include "engine/base/error.h"
#include "tests/support/speech.h"
#include "tests/support/vibe_test.h"

/* The names that VIBE_TEST() asks for. */
#define setup    speech_setup
#define teardown speech_teardown

static void assert_refused(struct speech *f, const char *path,
                           const struct vibe_writer_options *opt, int code,
                           const char *message)
{
    assert_int_equal(vibe_writer_check(path, opt, &f->err), code);
    assert_string_equal(f->err.msg, message);
    f->err = (struct vibe_error){0};
    f->writer = (struct vibe_writer *)f; /* anything but NULL */
    assert_int_equal(vibe_writer_open(&f->writer, path, opt, &f->err), code);
    assert_string_equal(f->err.msg, message);
    assert_null(f->writer);
    assert_int_equal(vibe_file_count(), 0);
}

static void open_refuses_a_missing_folder(void **state)
{
    assert_refused(*state, "no/out.wav", &speech_plain, VIBE_E_IO,
                   "no/out.wav: No such directory");
}

static void open_refuses_an_unknown_extension(void **state)
{
    assert_refused(*state, "out.xyz", &speech_plain, VIBE_E_UNSUPPORTED,
                   "out.xyz: unknown extension '.xyz' (have wav, flac, ogg, "
                   "opus, mp3, raw)");
}

static void open_refuses_samples_that_the_format_cannot_hold(void **state)
{
    const struct vibe_writer_options f32 = {.rate = RATE,
                                            .sample = VIBE_SAMPLE_F32};
    const struct vibe_writer_options s24 = {.rate = RATE,
                                            .sample = VIBE_SAMPLE_S24};

    assert_refused(*state, "out.flac", &f32, VIBE_E_UNSUPPORTED,
                   "out.flac: f32 is not possible in flac");
    assert_refused(*state, "out.mp3", &s24, VIBE_E_UNSUPPORTED,
                   "out.mp3: s24 is not possible in mp3");
}

static void open_refuses_to_stream_what_needs_a_file(void **state)
{
    const struct vibe_writer_options flac = {.rate = RATE,
                                             .format = VIBE_AUDIO_FLAC};

    assert_refused(*state, "/dev/null", &flac, VIBE_E_UNSUPPORTED,
                   "/dev/null: flac cannot be streamed (have wav, raw)");
}

static void open_refuses_a_rate_that_opus_does_not_have(void **state)
{
    struct speech *f = *state;
    const struct vibe_writer_options opt = {.rate = 22050};

    assert_int_equal(vibe_writer_open(&f->writer, "out.opus", &opt, &f->err),
                     VIBE_E_UNSUPPORTED);
    assert_non_null(strstr(f->err.msg, "out.opus: opus at 22050 Hz: "));
    assert_int_equal(vibe_file_count(), 0);
}

static void open_refuses_a_comment_longer_than_a_page(void **state)
{
    struct speech *f = *state;
    char comment[4098];
    const struct vibe_writer_options opt = {.rate = RATE, .comment = comment};

    memset(comment, 'x', sizeof(comment));
    comment[4097] = '\0';

    assert_int_equal(vibe_writer_open(&f->writer, "out.wav", &opt, &f->err),
                     VIBE_E_UNSUPPORTED);
    assert_string_equal(f->err.msg, "out.wav: title or comment of 4097 bytes, "
                                    "more than 4096");
    assert_int_equal(vibe_file_count(), 0);
}

static void write_refuses_nan_and_infinity(void **state)
{
    struct speech *f = *state;
    const float bad[] = {NAN, INFINITY, -INFINITY};

    speech_open(f, "out.wav", &speech_plain);
    speech_write(f, 1);
    for (int i = 0; i < 3; i++) {
        f->samples[7] = bad[i];
        assert_int_equal(
            vibe_writer_write(f->writer, f->samples, FRAME, &f->err),
            VIBE_E_FORMAT);
        assert_string_equal(f->err.msg, "out.wav: sample 3207 to write is not "
                                        "a finite number");
    }
    speech_finish(f);

    assert_int_equal(speech_length("out.wav"), FRAME);
}

/* Let files grow to limit bytes only, as on a disk that has no more. */
static void limit_files(rlim_t limit)
{
    struct rlimit now;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &now), 0);
    now.rlim_cur = limit < now.rlim_max ? limit : now.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &now), 0);
}

/* Write until it fails, or all of speech ten times. */
static int speak_until_full(struct speech *f)
{
    int rc = VIBE_OK;

    for (int i = 0; i < 10 * N_FRAMES && !rc; i++)
        rc = vibe_writer_write(f->writer, f->samples, FRAME, &f->err);
    return rc;
}

static void a_full_disk_leaves_nothing_in_any_format(void **state)
{
    struct speech *f = *state;
    char path[32];

    for (int k = 0; k < N_EXTENSIONS; k++) {
        int rc;

        snprintf(path, sizeof(path), "out.%s", speech_extensions[k]);
        speech_open(f, path, &speech_plain);
        limit_files(10000);
        rc = speak_until_full(f);
        f->err = (struct vibe_error){0};
        /* However the error came up, it stays. */
        rc = rc ? vibe_writer_finish(f->writer, &f->err) : VIBE_OK;
        limit_files(RLIM_INFINITY);

        if (rc != VIBE_E_IO)
            fail_msg("%s: finish gave %d", path, rc);
        assert_int_equal(vibe_writer_errno(f->writer), EFBIG);
        assert_non_null(strstr(f->err.msg, ": File too large"));
        assert_int_equal(vibe_file_count(), 0);
    }
}

static void a_disk_that_fills_at_the_last_moment_leaves_nothing(void **state)
{
    struct speech *f = *state;
    struct stat st;

    /* FLAC holds its last block back until it is finished. */
    speech_open(f, "out.flac", &speech_plain);
    speech_write(f, 2);
    assert_int_equal(stat("out.part.flac", &st), 0);
    limit_files((rlim_t)st.st_size + 10);
    assert_int_equal(vibe_writer_finish(f->writer, &f->err), VIBE_E_IO);
    limit_files(RLIM_INFINITY);

    assert_string_equal(f->err.msg, "out.flac: File too large");
    assert_int_equal(vibe_file_count(), 0);
}

static void a_disk_full_from_the_start_fails_open(void **state)
{
    struct speech *f = *state;
    int rc;

    limit_files(10);
    rc = vibe_writer_open(&f->writer, "out.wav", &speech_plain, &f->err);
    limit_files(RLIM_INFINITY);

    assert_int_equal(rc, VIBE_E_IO);
    assert_int_equal(vibe_file_count(), 0);
}

static void a_full_disk_does_not_touch_the_old_file(void **state)
{
    struct speech *f = *state;

    speech_make(f, "out.wav", &speech_plain);
    speech_open(f, "out.wav", &speech_plain);
    limit_files(10000);
    assert_int_equal(speak_until_full(f), VIBE_E_IO);
    assert_int_equal(speak_until_full(f), VIBE_E_IO); /* it stays failed */
    vibe_writer_free(f->writer);
    f->writer = NULL;
    limit_files(RLIM_INFINITY);

    assert_int_equal(speech_length("out.wav"), N);
    assert_int_equal(vibe_file_count(), 1);
}

static void what_fitted_on_a_full_disk_can_be_kept(void **state)
{
    struct speech *f = *state;
    const char *part;

    speech_open(f, "out.wav", &speech_plain);
    limit_files(10000);
    assert_int_equal(speak_until_full(f), VIBE_E_IO);
    assert_int_equal(vibe_writer_keep(f->writer, &part, &f->err), VIBE_E_IO);
    limit_files(RLIM_INFINITY);

    assert_string_equal(part, "out.part.wav");
    assert_int_equal(speech_length(part), FRAME); /* one fits in 10,000 bytes */
}

/* In a child: write to a file system of 64 KiB; 0 if all is as it should. */
static int fill_small_disk(struct speech *f)
{
    if (unshare(CLONE_NEWNS))
        return 77;
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("tmpfs", f->scratch.folder, "tmpfs", 0, "size=64k") ||
        chdir(f->scratch.folder))
        return 77;
    if (vibe_writer_open(&f->writer, "out.wav", &speech_plain, &f->err))
        return 1;
    if (speak_until_full(f) != VIBE_E_IO ||
        strcmp(f->err.msg, "out.wav: No space left on device") != 0 ||
        vibe_writer_errno(f->writer) != ENOSPC)
        return 2;
    if (vibe_writer_finish(f->writer, &f->err) != VIBE_E_IO)
        return 3;
    return vibe_file_exists("out.wav") || vibe_file_exists("out.part.wav") ? 4
                                                                           : 0;
}

static void a_small_disk_is_filled_and_left_empty(void **state)
{
    struct speech *f = *state;
    pid_t child = fork();
    int status;

    assert_true(child >= 0);
    if (child == 0)
        _exit(fill_small_disk(f));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        skip(); /* only root may mount */
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void a_full_device_is_named(void **state)
{
    struct speech *f = *state;

    assert_int_equal(
        vibe_writer_open(&f->writer, "/dev/full", &speech_plain, &f->err),
        VIBE_E_IO); /* not even the header */
    assert_string_equal(f->err.msg, "/dev/full: No space left on device");
}

static void a_reader_that_leaves_is_told_from_other_errors(void **state)
{
    struct speech *f = *state;
    int ends[2];

    assert_int_equal(pipe(ends), 0);
    speech_open_stdout(f, ends[1], &speech_plain);
    close(ends[1]);
    close(ends[0]);

    assert_int_equal(vibe_writer_write(f->writer, f->samples, FRAME, &f->err),
                     VIBE_E_IO);
    assert_string_equal(f->err.msg, "standard output: Broken pipe");
    assert_int_equal(vibe_writer_errno(f->writer), EPIPE);
    assert_int_equal(vibe_writer_finish(f->writer, NULL), VIBE_E_IO);
}

static void abort_and_free_leave_nothing(void **state)
{
    struct speech *f = *state;
    char path[32];

    for (int k = 0; k < N_EXTENSIONS; k++) {
        snprintf(path, sizeof(path), "out.%s", speech_extensions[k]);
        speech_open(f, path, &speech_plain);
        speech_write(f, 2);
        assert_int_equal(vibe_file_count(), 1);
        if (k % 2)
            vibe_writer_abort(f->writer);
        vibe_writer_free(f->writer);
        f->writer = NULL;
        assert_int_equal(vibe_file_count(), 0);
    }
}

/* In a child: write frames for ever, and a byte to fd after each. */
static void speak_for_ever(struct speech *f, int fd)
{
    if (vibe_writer_open(&f->writer, "out.wav", &speech_plain, &f->err))
        _exit(1);
    for (;;) {
        if (vibe_writer_write(f->writer, f->samples, FRAME, &f->err) ||
            write(fd, "", 1) != 1)
            _exit(1);
    }
}

static void a_killed_run_leaves_a_wav_of_what_it_said(void **state)
{
    struct speech *f = *state;
    char byte;
    int ends[2];
    int status;
    pid_t child;

    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0)
        speak_for_ever(f, ends[1]);
    close(ends[1]);
    for (int i = 0; i < N_FRAMES; i++)
        assert_int_equal(read(ends[0], &byte, 1), 1);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, &status, 0), child);
    close(ends[0]);
    assert_true(WIFSIGNALED(status));

    /* speech_decode() reads no further than the frames that were reported. */
    assert_int_equal(speech_length("out.part.wav"), N);
    assert_false(vibe_file_exists("out.wav"));
}

static void the_header_is_right_after_every_call(void **state)
{
    struct speech *f = *state;

    speech_open(f, "out.wav", &speech_plain);
    assert_int_equal(speech_length("out.part.wav"), 0);
    for (int i = 1; i <= N_FRAMES; i++) {
        speech_write(f, 1);
        assert_int_equal(speech_length("out.part.wav"), i * FRAME);
    }
    assert_false(vibe_file_exists("out.wav"));

    speech_finish(f);
    assert_int_equal(speech_length("out.wav"), N);
    assert_false(vibe_file_exists("out.part.wav"));
}

static void an_unfinished_flac_is_a_voice_up_to_its_last_block(void **state)
{
    struct speech *f = *state;
    struct vibe_audio voice = {0};

    speech_open(f, "out.flac", &speech_plain);
    speech_write(f, 5); /* 16,000 samples, in blocks of 4,096 */

    assert_int_equal(vibe_wav_read(&voice, "out.part.flac", &f->err), VIBE_OK);
    assert_int_equal(voice.n, 3 * 4096);
    vibe_audio_release(&voice);
}

static void a_damaged_flac_of_unknown_length_is_no_voice(void **state)
{
    struct speech *f = *state;
    struct vibe_audio voice = {0};
    unsigned char bytes[2 * N];
    size_t n;

    speech_open(f, "out.flac", &speech_plain);
    speech_write(f, 5);
    n = vibe_file_read("out.part.flac", bytes, sizeof(bytes));
    memset(bytes + n / 2, 0, n / 4);
    vibe_file_write("bad.flac", bytes, n);

    assert_int_equal(vibe_wav_read(&voice, "bad.flac", &f->err), VIBE_E_FORMAT);
    assert_null(voice.samples);
}

static void keep_leaves_a_readable_part_in_any_format(void **state)
{
    struct speech *f = *state;
    char path[32];
    char want[32];
    const char *part;

    for (int k = 0; k < N_EXTENSIONS; k++) {
        snprintf(path, sizeof(path), "out.%s", speech_extensions[k]);
        snprintf(want, sizeof(want), "out.part.%s", speech_extensions[k]);
        speech_open(f, path, &speech_plain);
        speech_write(f, 5);
        assert_int_equal(vibe_writer_keep(f->writer, &part, &f->err), VIBE_OK);
        assert_string_equal(part, want);
        assert_int_equal(speech_length(part), 5 * FRAME);
        assert_false(vibe_file_exists(path));
    }
}

static void keep_of_nothing_leaves_nothing(void **state)
{
    struct speech *f = *state;
    const char *part = "";

    speech_open(f, "out.wav", &speech_plain);
    assert_int_equal(vibe_writer_keep(f->writer, &part, &f->err), VIBE_OK);

    assert_null(part);
    assert_int_equal(vibe_file_count(), 0);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(open_refuses_a_missing_folder),
    VIBE_TEST(open_refuses_an_unknown_extension),
    VIBE_TEST(open_refuses_samples_that_the_format_cannot_hold),
    VIBE_TEST(open_refuses_to_stream_what_needs_a_file),
    VIBE_TEST(open_refuses_a_rate_that_opus_does_not_have),
    VIBE_TEST(open_refuses_a_comment_longer_than_a_page),
    VIBE_TEST(write_refuses_nan_and_infinity),
    VIBE_TEST(a_full_disk_leaves_nothing_in_any_format),
    VIBE_TEST(a_disk_that_fills_at_the_last_moment_leaves_nothing),
    VIBE_TEST(a_disk_full_from_the_start_fails_open),
    VIBE_TEST(a_full_disk_does_not_touch_the_old_file),
    VIBE_TEST(what_fitted_on_a_full_disk_can_be_kept),
    VIBE_TEST(a_small_disk_is_filled_and_left_empty),
    VIBE_TEST(a_full_device_is_named),
    VIBE_TEST(a_reader_that_leaves_is_told_from_other_errors),
    VIBE_TEST(abort_and_free_leave_nothing),
    VIBE_TEST(a_killed_run_leaves_a_wav_of_what_it_said),
    VIBE_TEST(the_header_is_right_after_every_call),
    VIBE_TEST(an_unfinished_flac_is_a_voice_up_to_its_last_block),
    VIBE_TEST(a_damaged_flac_of_unknown_length_is_no_voice),
    VIBE_TEST(keep_leaves_a_readable_part_in_any_format),
    VIBE_TEST(keep_of_nothing_leaves_nothing),
};

VIBE_TEST_MAIN(tests)
