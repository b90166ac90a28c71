/*
 * preset.h - names for how many layers of a model stay on the GPU.
 *
 * The names come from programs that had a model of 28 layers in mind; of
 * another depth a preset is the same share.
 */
#ifndef VIBE_OFFLOAD_PRESET_H
#define VIBE_OFFLOAD_PRESET_H

#include <stddef.h>

enum { VIBE_PRESET_DEPTH = 28 };

struct vibe_preset {
    const char *name; /* "mid_range" */
    int layers;       /* of VIBE_PRESET_DEPTH */
};

extern const struct vibe_preset vibe_presets[];
extern const size_t vibe_n_presets;

/* The preset of that name, in any case and with '-' for '_'; or NULL. */
const struct vibe_preset *vibe_preset_find(const char *name);

/* How many of a model's layers stay: a share, so perhaps no whole number. */
double vibe_preset_layers(const struct vibe_preset *preset, size_t n_layers);

#endif /* VIBE_OFFLOAD_PRESET_H */
