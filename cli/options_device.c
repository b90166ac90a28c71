#include "cli/options.h"
#include "cli/options_parse.h"
#include "cli/options_table.h"
#include "cli/options_words.h"

#define AT(field) offsetof(struct vibe_options, field)

static const struct vibe_option device[] = {
    {
        .names = "--device",
        .kind = VIBE_OPT_PARSED,
        .offset = AT(device),
        .meta = "DEV",
        .def = "auto",
        .parse = vibe_parse_device,
        .files = "=auto cuda cuda:0 cpu",
        .is_everyday = 1,
        .help = "where to compute: auto, cuda, cuda:N or cpu",
    },
    {
        .names = "--threads -t",
        .kind = VIBE_OPT_INT,
        .offset = AT(threads),
        .meta = "N",
        .min = 1,
        .max = 1024,
        .help = "CPU threads; all that this process may use if not given",
    },
    {
        .names = "--auto",
        .kind = VIBE_OPT_SET,
        .offset = AT(residency),
        .value = VIBE_RESIDENCY_AUTO,
        .team = VIBE_TEAM_RESIDENCY,
        .help = "keep as many layers on the GPU as --target-utilization of "
                "its free memory holds, and stream the others; this is the "
                "default",
    },
    {
        .names = "--num-gpu-layers -n -ngl --gpu-layers",
        .kind = VIBE_OPT_INT,
        .offset = AT(gpu_layers),
        .meta = "N",
        .def = "auto",
        .min = 0,
        .max = INT64_MAX,
        .note = "or \"all\", \"auto\"",
        .choices = vibe_layer_words,
        .files = "=all auto",
        .team = VIBE_TEAM_RESIDENCY,
        .is_everyday = 1,
        .help = "layers of the language model that stay on the GPU, fewer "
                "when they do not fit",
    },
    {
        .names = "--no-offload",
        .kind = VIBE_OPT_SET,
        .offset = AT(residency),
        .value = VIBE_RESIDENCY_WHOLE,
        .team = VIBE_TEAM_RESIDENCY,
        .help = "keep the whole model on the GPU, or fail before loading it",
    },
    {
        .names = "--preset",
        .kind = VIBE_OPT_STRING,
        .offset = AT(preset),
        .meta = "NAME",
        .files = "=high_end mid_range consumer budget minimal light moderate "
                 "balanced aggressive extreme",
        .team = VIBE_TEAM_RESIDENCY,
        .help = "share of the layers that stay, of 28: high_end 28, mid_range "
                "20, consumer 12, budget 8, minimal 4; light 20, moderate 16, "
                "balanced 12, aggressive 8, extreme 4; --config takes these "
                "names, too",
    },
    {
        .names = "--target-utilization",
        .kind = VIBE_OPT_FLOAT,
        .offset = AT(target_utilization),
        .meta = "X",
        .def = "0.8",
        .low = 0,
        .is_above_low = 1,
        .high = 1,
        .help = "share of the GPU's free memory that --auto may use",
    },
    {
        .names = "--max-vram",
        .kind = VIBE_OPT_PARSED,
        .offset = AT(max_vram),
        .meta = "SIZE",
        .parse = vibe_parse_max_vram,
        .is_everyday = 1,
        .help = "use at most so much memory of the GPU, in GiB or with M or "
                "G; if negative, leave so much free",
    },
    {
        .names = "--vram-reserve",
        .kind = VIBE_OPT_INT,
        .offset = AT(vram_reserve),
        .meta = "MIB",
        .min = 0,
        .max = 1 << 24,
        .help = "leave so many MiB of the GPU free, whatever else is asked; "
                "512 if layers are asked for and no cap is given",
    },
    {
        .names = "--offload-kv-cache",
        .kind = VIBE_OPT_FLAG,
        .offset = AT(offload_kv_cache),
        .help = "keep keys and values on the host, where each frame reads "
                "them through the link",
    },
    {
        .names = "--offload-prediction-head",
        .kind = VIBE_OPT_FLAG,
        .offset = AT(offload_prediction_head),
        .help = "keep the diffusion head on the host, where each step reads "
                "it through the link: slow, the last resort",
    },
    {
        .names = "--memory-mode",
        .kind = VIBE_OPT_CHOICE,
        .offset = AT(memory_mode),
        .meta = "MODE",
        .choices = vibe_memory_words,
        .help = "lightweight keeps the codec on the host, beefy everything on "
                "the GPU, the encoder of voices too, and reads the checkpoint "
                "ahead of loading it",
    },
    {
        .names = "--pin-memory",
        .kind = VIBE_OPT_CHOICE,
        .offset = AT(pin_memory),
        .meta = "WHEN",
        .def = "auto",
        .choices = vibe_switch_words,
        .help = "page-lock what is streamed: auto as much as the system "
                "allows, off none",
    },
    {
        .names = "--no-pin-memory",
        .kind = VIBE_OPT_SET,
        .offset = AT(pin_memory),
        .value = VIBE_SWITCH_OFF,
        .help = "the same as --pin-memory off",
    },
    {
        .names = "--prefetch",
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_prefetching),
        .def = "on",
        .help = "copy what is streamed before it is needed; --no-prefetch "
                "when it is",
    },
    {
        .names = "--async-transfer",
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_async),
        .def = "on",
        .help = "copy while something is computed",
    },
    {
        .names = "--disable-async --no-async",
        .kind = VIBE_OPT_SET,
        .offset = AT(is_async),
        .value = 0,
        .help = "the same as --no-async-transfer",
    },
    {
        .names = "--cache-clear-interval",
        .kind = VIBE_OPT_INT,
        .offset = AT(clear_interval),
        .meta = "N",
        .def = "50",
        .min = 0,
        .max = 1 << 30,
        .help = "return unused GPU memory to the system each time N layers "
                "were streamed; 0 never does",
    },
    {
        .names = "--ring-slots",
        .kind = VIBE_OPT_INT,
        .offset = AT(ring_slots),
        .meta = "N",
        .min = 1,
        .max = 64,
        .help = "chunks of streamed weights that are on the GPU at once; 3, or "
                "as many as the link brings while head and codec compute",
    },
    {
        .names = "--chunk-size",
        .kind = VIBE_OPT_INT,
        .offset = AT(chunk_mib),
        .meta = "MIB",
        .min = 1,
        .max = 1024,
        .help = "streamed weights are copied in chunks of at most so many MiB; "
                "32, or less where they would not fit",
    },
    {
        .names = "--cpu-layers",
        .kind = VIBE_OPT_INT,
        .offset = AT(cpu_layers),
        .meta = "N",
        .def = "0",
        .min = 0,
        .max = 1 << 20,
        .note = "or \"auto\"",
        .choices = vibe_auto_word,
        .help = "have the CPU multiply so many layers' worth of the rows that "
                "would be streamed; auto: as many as are measured to be worth "
                "it, which may be none.  Samples depend on how many they are",
    },
    {
        .names = "--hybrid",
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_hybrid),
        .help = "the same as --cpu-layers auto",
    },
    {
        .names = "--attn-implementation",
        .kind = VIBE_OPT_STRING,
        .offset = AT(attn_implementation),
        .meta = "X",
        .files = "=sdpa eager flash_attention_2",
        .help = "accepted so that old command lines run, and ignored",
    },
};

const struct vibe_option_section vibe_device_options = {
    .title = "Device",
    .rows = device,
    .n = sizeof(device) / sizeof(device[0]),
};
