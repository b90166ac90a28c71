#include "offload/preset.h"

#include <ctype.h>

const struct vibe_preset vibe_presets[] = {
    {"high_end", 28},  {"mid_range", 20}, {"consumer", 12}, {"budget", 8},
    {"minimal", 4},    {"light", 20},     {"moderate", 16}, {"balanced", 12},
    {"aggressive", 8}, {"extreme", 4},
};

const size_t vibe_n_presets = sizeof(vibe_presets) / sizeof(vibe_presets[0]);

static int folded(char c)
{
    return c == '-' ? '_' : tolower((unsigned char)c);
}

const struct vibe_preset *vibe_preset_find(const char *name)
{
    for (size_t i = 0; i < vibe_n_presets; i++) {
        const char *a = vibe_presets[i].name;
        const char *b = name;

        while (*a && *a == folded(*b)) {
            a++;
            b++;
        }
        if (!*a && !*b)
            return &vibe_presets[i];
    }
    return NULL;
}

double vibe_preset_layers(const struct vibe_preset *preset, size_t n_layers)
{
    return (double)preset->layers * (double)n_layers / VIBE_PRESET_DEPTH;
}
