/*
 * wav.h - a recorded voice, read from any file libsndfile knows, as mono f32.
 *
 * Nothing a file says about itself is trusted: rate and channels are bounded
 * before memory is asked for, the length is what was decoded and not what the
 * header claims, and samples are finite.
 */
#ifndef VIBE_AUDIO_WAV_H
#define VIBE_AUDIO_WAV_H

#include <stddef.h>

struct vibe_error;

enum {
    /*
     * A reference voice is 10 to 60 seconds.  At ten minutes it is a podcast
     * given by mistake, and 4,500 positions of prompt.
     */
    VIBE_VOICE_MAX_S = 600,       /* a voice must be shorter than this */
    VIBE_VOICE_MIN_RATE = 4000,   /* Hz; below it no speech is left */
    VIBE_VOICE_MAX_RATE = 384000, /* Hz; bounds memory to 0.9 GB */
    VIBE_VOICE_MAX_CHANNELS = 64, /* 22.2 surround has 24 */
};

struct vibe_audio {
    float *samples; /* [n] mono, owned; full scale is 1, more is legal */
    size_t n;
    int rate; /* Hz */
};

/*
 * Read a whole file and average its channels, as the reference does before it
 * resamples.
 *
 *   out      untouched on error; release with vibe_audio_release
 *   path     a regular file: pipes cannot be searched for their format
 *
 * Errors: VIBE_E_IO      cannot be opened or read, or is no regular file
 *         VIBE_E_FORMAT  empty, not audio, damaged or cut short, too long,
 *                        rate or channels out of range, NaN or infinity
 *         VIBE_E_NOMEM
 */
int vibe_wav_read(struct vibe_audio *out, const char *path,
                  struct vibe_error *err);

/* Free the samples and forget them; a zeroed struct is allowed. */
void vibe_audio_release(struct vibe_audio *audio);

#endif /* VIBE_AUDIO_WAV_H */
