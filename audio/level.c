#include "audio/level.h"

#include <math.h>

/* Half of the swing below which a clip counts as silent; see the header. */
static const float silent_swing = 1e-4f;

void vibe_level_normalize(float *samples, size_t n, float target_db, float eps)
{
    struct vibe_meter meter = {0};
    float peak = 0.0f;
    float gain;

    vibe_meter_add(&meter, samples, n);
    gain = (float)(pow(10.0, (double)target_db / 20.0) /
                   (vibe_meter_rms(&meter) + (double)eps));
    for (size_t i = 0; i < n; i++) {
        samples[i] *= gain;
        peak = fmaxf(peak, fabsf(samples[i]));
    }
    if (peak > 1.0f) {
        for (size_t i = 0; i < n; i++)
            samples[i] /= peak + eps;
    }
}

bool vibe_level_is_silent(const float *samples, size_t n)
{
    float low = INFINITY;
    float high = -INFINITY;

    for (size_t i = 0; i < n; i++) {
        low = fminf(low, samples[i]);
        high = fmaxf(high, samples[i]);
    }
    return n == 0 || high - low < 2.0f * silent_swing;
}

void vibe_meter_add(struct vibe_meter *meter, const float *samples, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double x = (double)samples[i];

        meter->square_sum += x * x;
        meter->peak = fmaxf(meter->peak, fabsf(samples[i]));
        if (fabsf(samples[i]) > 1.0f)
            meter->n_clipped++;
    }
    meter->n += n;
}

double vibe_meter_rms(const struct vibe_meter *meter)
{
    if (meter->n == 0)
        return 0.0;
    return sqrt(meter->square_sum / (double)meter->n);
}
