/*
 * level.h - a meter of what was spoken, for reports.
 *
 * Samples are f32 with full scale 1.  The loudness of voices is the engine's
 * business (engine/voice.h): the checkpoint says what it should be.
 */
#ifndef VIBE_AUDIO_LEVEL_H
#define VIBE_AUDIO_LEVEL_H

#include <stddef.h>

/* Runs over the frames of a clip; start from {0}. */
struct vibe_meter {
    size_t n;         /* samples seen */
    size_t n_clipped; /* of these beyond full scale, cut in integer files */
    float peak;       /* max |x| */
};

void vibe_meter_add(struct vibe_meter *meter, const float *samples, size_t n);

#endif /* VIBE_AUDIO_LEVEL_H */
