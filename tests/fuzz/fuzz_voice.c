/*
 * fuzz_voice.c - any bytes as a voice: read, resample, measure, normalize.
 *
 * A voice that is accepted must be usable to the end: finite, of the length
 * that was promised, and within full scale once normalized.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "audio/resample.h"
#include "audio/wav.h"
#include "engine/base/error.h"
#include "engine/format/config.h"
#include "engine/vibevoice.h"
#include "engine/voice.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/*
 * Read by the leak checker: libsndfile 1.2.0 forgets what its codecs
 * allocated when it refuses a damaged file.
 */
/* NOLINTBEGIN(readability-identifier-naming): the name is the checker's */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libsndfile\nleak:libvorbis\nleak:libogg\nleak:libopus\n"
           "leak:libFLAC\nleak:libmpg123";
}
/* NOLINTEND(readability-identifier-naming) */

static void require(int holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "fuzz_voice: broken: %s\n", what);
    abort();
}

static void use(const struct vibe_audio *voice)
{
    const struct vibe_preprocessor how = {.target_db = -25.0f, .eps = 1e-6f};
    struct vibe_voice clip = {.name = "a voice"};
    struct vibe_audio heard = {0};
    float peak = 0.0f;

    require(voice->n > 0 && voice->rate > 0, "an accepted voice has sound");
    /* Ten minutes take seconds to resample: too slow to try often. */
    if (voice->n > 200000)
        return;
    if (vibe_resample(&heard, voice, 24000, NULL))
        return;
    require(heard.rate == 24000 &&
                heard.n == vibe_resample_length(voice->n, voice->rate, 24000),
            "the length is the promised one");
    clip.samples = heard.samples;
    clip.n = heard.n;
    if (vibe_voice_check(&clip, NULL) == VIBE_OK) {
        vibe_voice_normalize(heard.samples, heard.samples, heard.n, &how);
        for (size_t i = 0; i < heard.n; i++)
            peak = fmaxf(peak, fabsf(heard.samples[i]));
        require(peak <= 1.0f, "a normalized voice is within full scale");
    }
    vibe_audio_release(&heard);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vibe_audio voice = {0};
    struct vibe_error err = {0};
    char path[64];
    int fd = memfd_create("voice", MFD_CLOEXEC);

    require(fd >= 0, "memfd_create works");
    require(write(fd, data, size) == (ssize_t)size, "memory takes the input");
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (vibe_wav_read(&voice, path, &err)) {
        require(strncmp(err.msg, path, strlen(path)) == 0,
                "errors name the file");
        require(!voice.samples, "nothing comes out of a refused file");
    } else {
        use(&voice);
    }
    vibe_audio_release(&voice);
    close(fd);
    return 0;
}
