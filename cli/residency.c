#include "cli/residency.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/failure.h"
#include "cli/options.h"
#include "cli/options_value.h"
#include "engine/vibevoice.h"

/* "--preset: 'medium' is not a preset; have high_end, mid_range, ...". */
static enum vibe_exit fail_preset(const char *option, const char *name,
                                  struct vibe_failure *why)
{
    const char *near = NULL;
    char list[160] = "";
    size_t n = 0;

    for (size_t i = 0; i < vibe_n_presets && n < sizeof(list); i++) {
        const char *preset = vibe_presets[i].name;

        if (!near && vibe_word_is_near(name, preset))
            near = preset;
        n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s", n ? ", " : "",
                              preset);
    }
    return vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                         "%s: '%s' is not a preset; have %s%s%s%s", option,
                         name, list, near ? "; did you mean '" : "",
                         near ? near : "", near ? "'?" : "");
}

static enum vibe_exit use_preset(struct vibe_plan_request *out,
                                 const char *option, const char *name,
                                 struct vibe_failure *why)
{
    const struct vibe_preset *preset = vibe_preset_find(name);

    if (!preset)
        return fail_preset(option, name, why);
    out->kind = VIBE_PLAN_SHARE;
    out->share = vibe_preset_layers(preset, 1);
    return VIBE_EXIT_OK;
}

/* A name with a dot or a slash is that of a file. */
static int is_path(const char *word)
{
    return access(word, F_OK) == 0 || strpbrk(word, "./") != NULL;
}

/* --config names a file; scripts of the Python program name presets. */
static enum vibe_exit use_config(struct vibe_engine_options *out,
                                 const struct vibe_options *o,
                                 struct vibe_failure *why)
{
    static const char *const others[] = {"--auto", "--num-gpu-layers",
                                         "--no-offload", "--preset"};

    if (is_path(o->config)) {
        out->config = o->config;
        if (access(o->config, F_OK) == 0)
            return VIBE_EXIT_OK;
        return vibe_cli_fail(why, VIBE_EXIT_INPUT, o->config,
                             "%s: No such file or directory", o->config);
    }
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        if (vibe_options_source(o, others[i]) == VIBE_FROM_ARGV &&
            vibe_preset_find(o->config))
            return vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                                 "--config %s cannot be combined with %s",
                                 o->config, others[i]);
    return use_preset(&out->plan, "--config", o->config, why);
}

const char *vibe_residency_way(const char *path)
{
    static const char *const ways[][2] = {
        {"direct", "from pinned memory"},
        {"bounce", "through pinned buffers"},
        {"disk", "from the file each time, for want of memory"},
        {"pageable", "from pageable memory, slowly"},
    };

    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
        if (strcmp(path, ways[i][0]) == 0)
            return ways[i][1];
    return path;
}

enum vibe_exit vibe_residency_fill(struct vibe_engine_options *out,
                                   const struct vibe_options *o,
                                   struct vibe_failure *why)
{
    const int has_reserve = vibe_options_source(o, "--vram-reserve") !=
                            VIBE_FROM_DEFAULT;
    struct vibe_plan_request *plan = &out->plan;

    plan->utilization = o->target_utilization;
    plan->max_vram = o->max_vram;
    plan->has_kv_on_host = o->offload_kv_cache;
    plan->has_head_on_host = o->offload_prediction_head;
    plan->mode = (enum vibe_memory_mode)o->memory_mode;
    out->streaming.is_unpinned = o->pin_memory == VIBE_SWITCH_OFF;
    out->streaming.is_on_demand = !o->is_prefetching;
    out->streaming.is_synchronous = !o->is_async;
    /* of which 0 is never, not as usual */
    out->streaming.clear_interval = o->clear_interval ? (int)o->clear_interval
                                                      : -1;
    out->streaming.cpu_layers = o->is_hybrid ? VIBE_LAYERS_AUTO
                                             : (double)o->cpu_layers;
    plan->ring_slots = (size_t)o->ring_slots;
    plan->chunk_bytes = (size_t)o->chunk_mib << 20;
    if (has_reserve) /* of which 0 is none, not as usual */
        plan->reserve = o->vram_reserve ? o->vram_reserve << 20 : -1;
    if (o->residency == VIBE_RESIDENCY_WHOLE)
        plan->kind = VIBE_PLAN_WHOLE;
    if (o->gpu_layers != VIBE_LAYERS_AUTO) {
        plan->kind = VIBE_PLAN_LAYERS;
        plan->n_layers = (double)o->gpu_layers;
    }
    if (o->preset && use_preset(plan, "--preset", o->preset, why))
        return why->status;
    return o->config ? use_config(out, o, why) : VIBE_EXIT_OK;
}
