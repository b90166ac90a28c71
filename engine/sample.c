#include "engine/sample.h"

#include <math.h>

#include "engine/backend/noise.h"
#include "engine/vibevoice.h"

/* A uniform number in (0, 1) for the choice of token number step. */
static double uniform(uint64_t seed, size_t step)
{
    /* the last "dialogue": no voice and no frame of speech draws from it */
    uint32_t r[4] = {(uint32_t)step, 0, UINT32_MAX, 0};

    vibe_noise_philox(r, (uint32_t)seed, (uint32_t)(seed >> 32));
    return vibe_noise_uniform(((uint64_t)r[1] << 32 | r[0]) >> 12);
}

enum vibe_control vibe_sample(const float *logits,
                              const struct vibe_sampling *how, uint64_t seed,
                              size_t step)
{
    int order[VIBE_N_CONTROL];
    double p[VIBE_N_CONTROL];
    double sum = 0.0;
    double kept = 0.0;
    double u;
    int n = 0;

    for (int i = 0; i < VIBE_N_CONTROL; i++) {
        int at = i;

        for (; at > 0 && logits[order[at - 1]] < logits[i]; at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
    for (int i = 0; i < VIBE_N_CONTROL; i++) {
        p[i] = exp(((double)logits[order[i]] - (double)logits[order[0]]) /
                   (double)how->temperature);
        sum += p[i];
    }
    while (n < VIBE_N_CONTROL && (n == 0 || kept < (double)how->top_p * sum))
        kept += p[n++];
    u = uniform(seed, step) * kept;
    for (int i = 0; i < n - 1; i++) {
        if (u < p[i])
            return (enum vibe_control)order[i];
        u -= p[i];
    }
    return (enum vibe_control)order[n - 1];
}
