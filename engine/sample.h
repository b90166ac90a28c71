/*
 * sample.h - choose a control token by chance.
 */
#ifndef VIBE_SAMPLE_H
#define VIBE_SAMPLE_H

#include <stddef.h>
#include <stdint.h>

#include "engine/model/qwen2.h"

struct vibe_sampling;

/*
 * Draw one of the four tokens that are allowed: softmax(logits /
 * temperature), cut to the smallest set of probable tokens that reaches top_p.
 * (The reference cuts the whole vocabulary first; we never compute it.)
 *
 *   logits   [VIBE_N_CONTROL]
 *   step     number of the token; with the seed it names the draw
 */
enum vibe_control vibe_sample(const float *logits,
                              const struct vibe_sampling *how, uint64_t seed,
                              size_t step);

#endif /* VIBE_SAMPLE_H */
