#include "audio/level.h"

#include <math.h>

void vibe_meter_add(struct vibe_meter *meter, const float *samples, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        meter->peak = fmaxf(meter->peak, fabsf(samples[i]));
        if (fabsf(samples[i]) > 1.0f)
            meter->n_clipped++;
    }
    meter->n += n;
}
