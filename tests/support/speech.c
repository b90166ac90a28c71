#include "tests/support/speech.h"

#include <math.h>
#include <signal.h>
#include <sndfile.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/vibe_test.h"

const char *const speech_extensions[] = {"wav",  "flac", "ogg",
                                         "opus", "mp3",  "raw"};

const struct vibe_writer_options speech_plain = {.rate = RATE};

int speech_setup(void **state)
{
    struct speech *f = calloc(1, sizeof(*f));

    if (!f)
        return -1;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    for (int i = 0; i < N; i++)
        f->samples[i] = 0.4f * sinf((float)i * 0.03f) +
                        0.2f * sinf((float)i * 0.31f);
    *state = f;
    return vibe_scratch_enter(&f->scratch);
}

int speech_teardown(void **state)
{
    struct speech *f = *state;
    int rc;

    vibe_writer_free(f->writer);
    rc = vibe_scratch_leave(&f->scratch);
    free(f);
    return rc;
}

void speech_open(struct speech *f, const char *path,
                 const struct vibe_writer_options *opt)
{
    vibe_writer_free(f->writer);
    if (vibe_writer_open(&f->writer, path, opt, &f->err))
        fail_msg("%s", f->err.msg);
}

void speech_open_stdout(struct speech *f, int fd,
                        const struct vibe_writer_options *opt)
{
    int saved = vibe_stdout_redirect(fd);
    int rc;

    vibe_writer_free(f->writer);
    rc = vibe_writer_open(&f->writer, "-", opt, &f->err);
    vibe_stdout_restore(saved);
    if (rc)
        fail_msg("%s", f->err.msg);
}

void speech_write(struct speech *f, int n_frames)
{
    for (size_t i = 0; i < (size_t)n_frames; i++) {
        if (vibe_writer_write(f->writer, f->samples + i * FRAME, FRAME,
                              &f->err))
            fail_msg("%s", f->err.msg);
    }
}

void speech_finish(struct speech *f)
{
    if (vibe_writer_finish(f->writer, &f->err))
        fail_msg("%s", f->err.msg);
}

void speech_make(struct speech *f, const char *path,
                 const struct vibe_writer_options *opt)
{
    speech_open(f, path, opt);
    speech_write(f, N_FRAMES);
    speech_finish(f);
}

long speech_decode(const char *path, float *out, int *rate)
{
    SF_INFO info = {0};
    SNDFILE *file;
    long n;

    if (strstr(path, ".raw")) /* which says nothing about itself */
        info = (SF_INFO){.samplerate = RATE,
                         .channels = 1,
                         .format = SF_FORMAT_RAW | SF_FORMAT_PCM_16 |
                                   SF_ENDIAN_LITTLE};
    file = sf_open(path, SFM_READ, &info);
    if (!file)
        return -1;
    n = info.channels == 1 ? (long)sf_read_float(file, out, N) : -1;
    *rate = info.samplerate;
    sf_close(file);
    return n;
}

long speech_length(const char *path)
{
    float *scratch = calloc(N, sizeof(*scratch));
    int rate;
    long n;

    assert_non_null(scratch);
    n = speech_decode(path, scratch, &rate);
    free(scratch);
    return n;
}
