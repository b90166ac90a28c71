#include "audio/wav.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sndfile.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/error.h"
#include "engine/base/size.h"

enum { CHUNK_FRAMES = 4096 };

/* Open path if it is a regular file that holds something. */
static int open_regular(int *out, const char *path, struct vibe_error *err)
{
    struct stat st;
    int fd = -1;
    int rc = VIBE_OK;

    /* O_NONBLOCK: opening a pipe without a writer must not hang. */
    fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st)) {
        rc = vibe_fail(err, VIBE_E_IO, "%s: %s", path, strerror(errno));
        goto out;
    }
    if (S_ISDIR(st.st_mode)) {
        rc = vibe_fail(err, VIBE_E_IO, "%s: is a directory", path);
        goto out;
    }
    if (!S_ISREG(st.st_mode)) {
        rc = vibe_fail(err, VIBE_E_IO, "%s: is not a regular file", path);
        goto out;
    }
    if (st.st_size == 0) {
        rc = vibe_fail(err, VIBE_E_FORMAT, "%s: file is empty", path);
        goto out;
    }
    *out = fd;
    fd = -1; /* now the caller's */

out:
    if (fd >= 0)
        close(fd);
    return rc;
}

/* Report why libsndfile refused, without the full stop it ends with. */
static int refuse(const char *path, SNDFILE *file, struct vibe_error *err)
{
    const char *why = sf_strerror(file);
    size_t n = strlen(why);

    /* its word for a header that is whole and says so */
    if (strstr(why, "SF_INFO struct incomplete"))
        return vibe_fail(err, VIBE_E_FORMAT,
                         "%s: header says 0 Hz or 0 channels", path);
    while (n > 0 && (why[n - 1] == '.' || why[n - 1] == '\n'))
        n--;
    return vibe_fail(err, VIBE_E_FORMAT, "%s: %.*s", path, (int)n, why);
}

static int check_info(const SF_INFO *info, const char *path,
                      struct vibe_error *err)
{
    if (info->samplerate < VIBE_VOICE_MIN_RATE ||
        info->samplerate > VIBE_VOICE_MAX_RATE)
        return vibe_fail(
            err, VIBE_E_FORMAT, "%s: sample rate %d Hz is not from %d to %d",
            path, info->samplerate, VIBE_VOICE_MIN_RATE, VIBE_VOICE_MAX_RATE);
    if (info->channels < 1 || info->channels > VIBE_VOICE_MAX_CHANNELS)
        return vibe_fail(err, VIBE_E_FORMAT, "%s: has %d channels, not 1 to %d",
                         path, info->channels, VIBE_VOICE_MAX_CHANNELS);
    return VIBE_OK;
}

/* Average each frame of interleaved in[n * channels] into out[n]. */
static void downmix(float *out, const float *in, size_t n, size_t channels)
{
    for (size_t i = 0; i < n; i++) {
        float sum = 0.0f;

        for (size_t c = 0; c < channels; c++)
            sum += in[i * channels + c];
        out[i] = sum / (float)channels;
    }
}

/* Make room for n more samples after the n there; capacity doubles. */
static int reserve(struct vibe_audio *audio, size_t *capacity, size_t n)
{
    size_t want = *capacity ? *capacity : CHUNK_FRAMES;
    size_t bytes;
    float *grown;

    while (want < audio->n + n)
        want *= 2; /* cannot wrap: the length is bounded by the caller */
    if (want == *capacity)
        return VIBE_OK;
    if (vibe_size_mul(&bytes, want, sizeof(*grown)))
        return VIBE_E_NOMEM;
    grown = realloc(audio->samples, bytes);
    if (!grown)
        return VIBE_E_NOMEM;
    audio->samples = grown;
    *capacity = want;
    return VIBE_OK;
}

/* Take n decoded frames into audio. */
static int append(struct vibe_audio *audio, size_t *capacity,
                  const float *chunk, size_t n, size_t channels,
                  const char *path, struct vibe_error *err)
{
    const float *added;

    if (n >= (size_t)VIBE_VOICE_MAX_S * (size_t)audio->rate - audio->n)
        return vibe_fail(err, VIBE_E_FORMAT,
                         "%s: is %d minutes or longer; a voice is 10 to 60 "
                         "seconds",
                         path, VIBE_VOICE_MAX_S / 60);
    if (reserve(audio, capacity, n))
        return vibe_fail(err, VIBE_E_NOMEM, "%s: no memory for %zu samples",
                         path, audio->n + n);
    downmix(audio->samples + audio->n, chunk, n, channels);

    /* A NaN or infinity in any channel survives the mean. */
    added = audio->samples + audio->n;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(added[i]))
            return vibe_fail(err, VIBE_E_FORMAT,
                             "%s: sample %zu is not a finite number", path,
                             audio->n + i);
    }
    audio->n += n;
    return VIBE_OK;
}

/* Judge what was decoded against what the header promised. */
static int check_end(size_t n, SNDFILE *file, const SF_INFO *info,
                     const char *path, struct vibe_error *err)
{
    /*
     * An MP3 without a Xing header has its length guessed from the size of
     * its first frame, too long by a factor of three after a quiet start; a
     * FLAC whose writer was killed says 2^63 - 1 for "unknown".  Elsewhere
     * the count is exact.
     */
    int is_exact = (info->format & SF_FORMAT_TYPEMASK) != SF_FORMAT_MPEG &&
                   info->frames < SF_COUNT_MAX;

    if (is_exact && info->frames > 0 && n < (size_t)info->frames)
        return vibe_fail(err, VIBE_E_FORMAT,
                         "%s: ends after %zu of %lld frames", path, n,
                         (long long)info->frames);
    if (sf_error(file))
        return refuse(path, file, err);
    if (n == 0)
        return vibe_fail(err, VIBE_E_FORMAT, "%s: holds no audio", path);
    return VIBE_OK;
}

/* Decode to the end; audio->samples is the caller's to free on error too. */
static int read_mono(struct vibe_audio *audio, SNDFILE *file,
                     const SF_INFO *info, const char *path,
                     struct vibe_error *err)
{
    size_t channels = (size_t)info->channels;
    size_t capacity = 0;
    float *chunk = calloc(CHUNK_FRAMES * channels, sizeof(*chunk));
    int rc = VIBE_OK;

    if (!chunk)
        return vibe_fail(err, VIBE_E_NOMEM, "%s: no memory for %zu channels",
                         path, channels);
    audio->rate = info->samplerate;
    while (!rc) {
        sf_count_t got = sf_readf_float(file, chunk, CHUNK_FRAMES);

        if (got <= 0)
            break;
        rc = append(audio, &capacity, chunk, (size_t)got, channels, path, err);
    }
    free(chunk);
    return rc ? rc : check_end(audio->n, file, info, path, err);
}

int vibe_wav_read(struct vibe_audio *out, const char *path,
                  struct vibe_error *err)
{
    struct vibe_audio audio = {0};
    SF_INFO info = {0};
    SNDFILE *file = NULL;
    int fd = -1;
    int rc;

    rc = open_regular(&fd, path, err);
    if (rc)
        goto out;
    /* By descriptor, so that the file checked above is the file read. */
    file = sf_open_fd(fd, SFM_READ, &info, SF_FALSE);
    if (!file) {
        rc = refuse(path, NULL, err);
        goto out;
    }
    rc = check_info(&info, path, err);
    if (rc)
        goto out;
    rc = read_mono(&audio, file, &info, path, err);
    if (rc)
        goto out;
    *out = audio;
    audio.samples = NULL; /* now owned by *out */

out:
    free(audio.samples);
    if (file)
        sf_close(file);
    if (fd >= 0)
        close(fd);
    return rc;
}

void vibe_audio_release(struct vibe_audio *audio)
{
    free(audio->samples);
    *audio = (struct vibe_audio){0};
}
