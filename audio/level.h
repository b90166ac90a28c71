/*
 * level.h - loudness of a voice before it is encoded, and meters for reports.
 *
 * Samples are f32 with full scale 1.  Sums are kept in double, so a result
 * does not depend on how a clip was cut into calls beyond its last bits.
 */
#ifndef VIBE_AUDIO_LEVEL_H
#define VIBE_AUDIO_LEVEL_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Bring a clip to a loudness in place, as the reference does:
 * x *= 10^(target_db / 20) / (rms + eps), and then, if the peak m is above 1,
 * x /= m + eps.
 *
 *   target_db  dB below full scale of the root mean square; -25 as published
 *   eps        keeps the divisions finite, > 0; 1e-6 as published
 */
void vibe_level_normalize(float *samples, size_t n, float target_db, float eps);

/*
 * Whether a clip holds nothing to learn a voice from: no samples, or a swing
 * within +-1e-4 (-80 dB) around whatever constant it rests on.  That is three
 * steps of 16 bits, quieter than the noise of a recording with a voice in it;
 * normalizing it would turn its noise up by more than 50 dB.
 */
bool vibe_level_is_silent(const float *samples, size_t n);

/* Runs over the frames of a clip; start from {0}. */
struct vibe_meter {
    size_t n;         /* samples seen */
    size_t n_clipped; /* of these beyond full scale, cut in integer files */
    float peak;       /* max |x| */
    double square_sum;
};

void vibe_meter_add(struct vibe_meter *meter, const float *samples, size_t n);

/* Root mean square of all that was added; 0 before that. */
double vibe_meter_rms(const struct vibe_meter *meter);

#endif /* VIBE_AUDIO_LEVEL_H */
