/*
 * resample.h - change the sample rate of a voice.
 *
 * libsoxr at its HQ setting in one thread: what librosa, and so the reference,
 * uses by default.  Linear phase, no delay: sample 0 stays at time 0.
 */
#ifndef VIBE_AUDIO_RESAMPLE_H
#define VIBE_AUDIO_RESAMPLE_H

#include <stddef.h>

struct vibe_audio;
struct vibe_error;

/*
 * How many samples n become: ceil(n * rate_to / rate_from), in the double
 * arithmetic of librosa, where a second of 44.1 kHz becomes 24,001 samples.
 */
size_t vibe_resample_length(size_t n, int rate_from, int rate_to);

/*
 * Convert a whole clip; equal rates give a plain copy.
 *
 *   out      untouched on error; release with vibe_audio_release; not in
 *   in       borrowed for this call; rate > 0
 *   rate_to  Hz, > 0
 *
 * Errors: VIBE_E_NOMEM
 */
int vibe_resample(struct vibe_audio *out, const struct vibe_audio *in,
                  int rate_to, struct vibe_error *err);

#endif /* VIBE_AUDIO_RESAMPLE_H */
