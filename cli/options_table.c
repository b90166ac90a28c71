#include "cli/options.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "audio/writer.h"
#include "engine/vibevoice.h"

#define AT(field) offsetof(struct vibe_options, field)

static const struct vibe_choice dtypes[] = {
    {"bfloat16", VIBE_WEIGHTS_BF16, 0},
    {"bf16", VIBE_WEIGHTS_BF16, 1},
    {"float8_e4m3fn", VIBE_WEIGHTS_F8_E4M3, 0},
    {"float8", VIBE_WEIGHTS_F8_E4M3, 1},
    {"fp8", VIBE_WEIGHTS_F8_E4M3, 1},
    {"int8", VIBE_WEIGHTS_I8, 0},
    {"int4", VIBE_WEIGHTS_I4, 0},
    {"bf16-packed", VIBE_WEIGHTS_BF16_PACKED, 0},
    {"float32", VIBE_WEIGHTS_F32, 0},
    {"f32", VIBE_WEIGHTS_F32, 1},
    {"fp32", VIBE_WEIGHTS_F32, 1},
    {"auto", VIBE_WEIGHTS_AUTO, 0},
    {NULL, 0, 0},
};

static const struct vibe_choice formats[] = {
    {"wav", VIBE_AUDIO_WAV, 0},   {"flac", VIBE_AUDIO_FLAC, 0},
    {"ogg", VIBE_AUDIO_OGG, 0},   {"opus", VIBE_AUDIO_OPUS, 0},
    {"mp3", VIBE_AUDIO_MP3, 0},   {"raw", VIBE_AUDIO_RAW, 0},
    {"auto", VIBE_AUDIO_AUTO, 1}, {NULL, 0, 0},
};

static const struct vibe_choice sample_formats[] = {
    {"s16", VIBE_SAMPLE_S16, 0},
    {"s24", VIBE_SAMPLE_S24, 0},
    {"f32", VIBE_SAMPLE_F32, 0},
    {NULL, 0, 0},
};

static const struct vibe_choice progress_modes[] = {
    {"auto", VIBE_PROGRESS_AUTO, 0},   {"bar", VIBE_PROGRESS_BAR, 0},
    {"plain", VIBE_PROGRESS_PLAIN, 0}, {"json", VIBE_PROGRESS_JSON, 0},
    {"none", VIBE_PROGRESS_NONE, 0},   {NULL, 0, 0},
};

static const struct vibe_choice color_modes[] = {
    {"auto", VIBE_COLOR_AUTO, 0},
    {"always", VIBE_COLOR_ALWAYS, 0},
    {"never", VIBE_COLOR_NEVER, 0},
    {NULL, 0, 0},
};

static const struct vibe_choice shells[] = {
    {"bash", VIBE_SHOW_COMPLETION, 0},
    {NULL, 0, 0},
};

static const struct vibe_choice layer_words[] = {
    {"all", VIBE_LAYERS_ALL, 0},
    {"auto", VIBE_LAYERS_AUTO, 0},
    {NULL, 0, 0},
};

static const struct vibe_choice memory_modes[] = {
    {"lightweight", VIBE_MEMORY_LIGHTWEIGHT, 0},
    {"beefy", VIBE_MEMORY_BEEFY, 0},
    {"normal", VIBE_MEMORY_NORMAL, 1},
    {NULL, 0, 0},
};

static const struct vibe_choice switches[] = {
    {"auto", VIBE_SWITCH_AUTO, 0},
    {"on", VIBE_SWITCH_ON, 0},
    {"off", VIBE_SWITCH_OFF, 0},
    {NULL, 0, 0},
};

/* "8", "7.5G", "7500MiB", "-1": bytes; a bare number counts GiB. */
static int parse_max_vram(struct vibe_options *out, const char *word,
                          const char **want)
{
    static const struct {
        const char *unit;
        double bytes;
    } units[] = {
        {"", 1073741824.0}, {"G", 1073741824.0},   {"GB", 1e9},
        {"M", 1048576.0},   {"GIB", 1073741824.0}, {"MB", 1e6},
        {"MIB", 1048576.0},
    };
    char *end = NULL;
    const double value = strtod(word, &end);

    *want = "is not a size like 8, 7.5G, 7500M or -1";
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (end == word || strcasecmp(end, units[i].unit) != 0)
            continue;
        if (!(fabs(value) * units[i].bytes < 1e18) || value == 0)
            return -1;
        out->max_vram = (int64_t)(value * units[i].bytes);
        return 0;
    }
    return -1;
}

/* auto, cpu, cuda or cuda:N. */
static int parse_device(struct vibe_options *out, const char *word,
                        const char **want)
{
    int index = 0;

    *want = "is not one of auto, cuda, cuda:N, cpu";
    if (strncasecmp(word, "cuda:", 5) == 0) {
        const char *digit = word + 5;

        if (!*digit || strlen(digit) > 3)
            return -1;
        for (; *digit; digit++) {
            if (*digit < '0' || *digit > '9')
                return -1;
            index = index * 10 + (*digit - '0');
        }
        out->device = VIBE_DEVICE_CUDA;
    } else if (strcasecmp(word, "cuda") == 0) {
        out->device = VIBE_DEVICE_CUDA;
    } else if (strcasecmp(word, "cpu") == 0) {
        out->device = VIBE_DEVICE_CPU;
    } else if (strcasecmp(word, "auto") == 0) {
        out->device = VIBE_DEVICE_AUTO;
    } else {
        return -1;
    }
    out->device_index = index;
    return 0;
}

/* A whole number from 1 to max at the start of word; what follows it in end.
 * Returns 0 if there is none. */
static int64_t read_number(const char *word, int64_t max, const char **end)
{
    int64_t value = 0;

    for (*end = word; **end >= '0' && **end <= '9'; (*end)++) {
        value = 10 * value + (**end - '0');
        if (value > max)
            return 0;
    }
    return value;
}

/* auto, or how many. */
static int parse_batch_size(struct vibe_options *out, const char *word,
                            const char **want)
{
    const char *end = word;
    int64_t n = read_number(word, 256, &end);

    *want = "is not auto or a whole number from 1 to 256";
    if (strcasecmp(word, "auto") != 0 && (n < 1 || *end))
        return -1;
    out->batch_size = n;
    return 0;
}

/* auto, or I/N. */
static int parse_shard(struct vibe_options *out, const char *word,
                       const char **want)
{
    const int64_t max = 1000000;
    const char *end = word;
    int64_t i = read_number(word, max, &end);
    int64_t n = *end == '/' ? read_number(end + 1, max, &end) : -1;
    const int is_auto = strcasecmp(word, "auto") == 0;

    *want = "is not auto or I/N, as in 1/4";
    if (!is_auto && (i < 1 || n < i || *end))
        return -1;
    out->shard = is_auto ? 0 : i;
    out->n_shards = is_auto ? -1 : n;
    return 0;
}

const struct vibe_option vibe_option_rows[] = {
    {
        .names = "--txt-path -f --text-file",
        .group = VIBE_GROUP_INPUT,
        .kind = VIBE_OPT_WORDS,
        .offset = AT(scripts),
        .meta = "FILE...",
        .files = "txt json",
        .team = VIBE_TEAM_SCRIPT,
        .is_everyday = 1,
        .help = "scripts to speak, one after another: .txt with lines "
                "\"Speaker N: ...\" or plain text, .json, - for standard "
                "input; words without an option are scripts too",
    },
    {
        .names = "--text",
        .group = VIBE_GROUP_INPUT,
        .kind = VIBE_OPT_STRING,
        .offset = AT(text),
        .meta = "STR",
        .team = VIBE_TEAM_SCRIPT,
        .is_everyday = 1,
        .help = "speak this text instead of a file",
    },
    {
        .names = "--voice-files -r --ref-audio",
        .group = VIBE_GROUP_INPUT,
        .kind = VIBE_OPT_WORDS,
        .offset = AT(voices),
        .meta = "WAV...",
        .files = "wav flac ogg opus mp3 aiff",
        .is_everyday = 1,
        .help = "recorded voices for the speakers, in the order of their "
                "numbers; without any the model invents voices",
    },
    {
        .names = "--voice",
        .group = VIBE_GROUP_INPUT,
        .kind = VIBE_OPT_APPEND,
        .offset = AT(voices),
        .meta = "N=FILE",
        .files = "wav flac ogg opus mp3 aiff",
        .is_everyday = 1,
        .help = "the recorded voice of speaker N; repeat it for others",
    },
    {
        .names = "--speaker-names",
        .group = VIBE_GROUP_INPUT,
        .kind = VIBE_OPT_WORDS,
        .offset = AT(speaker_names),
        .meta = "NAME...",
        .help = "voices by the names of their files in --voices-dir, or parts "
                "of them, in the order of the speakers' numbers",
    },
    {
        .names = "--voices-dir",
        .group = VIBE_GROUP_INPUT,
        .kind = VIBE_OPT_STRING,
        .offset = AT(voices_dir),
        .meta = "DIR",
        .def = "voices",
        .files = "/",
        .help = "where the recordings of --speaker-names are",
    },
    {
        .names = "--model -m --model-path --model-file --model-dir",
        .group = VIBE_GROUP_MODEL,
        .kind = VIBE_OPT_STRING,
        .offset = AT(model),
        .meta = "PATH",
        .files = "safetensors",
        .is_everyday = 1,
        .help = "folder of a checkpoint, or its .safetensors file; ./models "
                "if there is one",
    },
    {
        .names = "--config",
        .group = VIBE_GROUP_MODEL,
        .kind = VIBE_OPT_STRING,
        .offset = AT(config),
        .meta = "FILE",
        .files = "json",
        .help = "config.json of the model, if it is not beside it; or a "
                "preset, see --preset",
    },
    {
        .names = "--tokenizer",
        .group = VIBE_GROUP_MODEL,
        .kind = VIBE_OPT_STRING,
        .offset = AT(tokenizer),
        .meta = "DIR",
        .files = "/",
        .help = "folder with tokenizer.json, or vocab.json and merges.txt, if "
                "it is not the model's",
    },
    {
        .names = "--dtype",
        .group = VIBE_GROUP_MODEL,
        .kind = VIBE_OPT_CHOICE,
        .offset = AT(dtype),
        .meta = "TYPE",
        .def = "auto",
        .choices = dtypes,
        .is_everyday = 1,
        .help = "how the language model's weights are kept; auto is what the "
                "file holds",
    },
    {
        .names = "--head-dtype",
        .group = VIBE_GROUP_MODEL,
        .kind = VIBE_OPT_CHOICE,
        .offset = AT(head_dtype),
        .meta = "TYPE",
        .def = "auto",
        .choices = dtypes,
        .help = "the same for the diffusion head, which errors reach first",
    },
    {
        .names = "--codec-dtype",
        .group = VIBE_GROUP_MODEL,
        .kind = VIBE_OPT_CHOICE,
        .offset = AT(codec_dtype),
        .meta = "TYPE",
        .def = "auto",
        .choices = dtypes,
        .help = "the same for the codec, which is heard",
    },
    {
        .names = "--cfg-scale --cfg",
        .group = VIBE_GROUP_GENERATION,
        .kind = VIBE_OPT_FLOAT,
        .offset = AT(cfg_scale),
        .meta = "X",
        .def = "1.3",
        .low = 0,
        .high = 10,
        .is_everyday = 1,
        .help = "strength of classifier-free guidance; 1 is none",
    },
    {
        .names = "--steps --ddpm-steps --ddpm-inference-steps",
        .group = VIBE_GROUP_GENERATION,
        .kind = VIBE_OPT_INT,
        .offset = AT(steps),
        .meta = "N",
        .def = "10",
        .min = 1,
        .max = 1000,
        .is_everyday = 1,
        .help = "diffusion steps for each frame",
    },
    {
        .names = "--seed -s",
        .group = VIBE_GROUP_GENERATION,
        .kind = VIBE_OPT_INT,
        .offset = AT(seed),
        .meta = "N",
        .def = "42",
        .min = -1,
        .max = INT64_MAX,
        .note = "-1 = random",
        .is_everyday = 1,
        .help = "the same seed gives the same file; -1 draws one and prints it",
    },
    {
        .names = "--max-length-times",
        .group = VIBE_GROUP_GENERATION,
        .kind = VIBE_OPT_FLOAT,
        .offset = AT(max_length_times),
        .meta = "X",
        .def = "2",
        .low = 0,
        .is_above_low = 1,
        .high = 1000,
        .help = "stop after so many times the length of the prompt, in tokens",
    },
    {
        .names = "--max-frames",
        .group = VIBE_GROUP_GENERATION,
        .kind = VIBE_OPT_INT,
        .offset = AT(max_frames),
        .meta = "N",
        .min = 1,
        .max = INT64_MAX,
        .help = "stop after so many frames of 2/15 s",
    },
    {
        .names = "--max-seconds --max-length",
        .group = VIBE_GROUP_GENERATION,
        .kind = VIBE_OPT_FLOAT,
        .offset = AT(max_seconds),
        .meta = "X",
        .low = 0,
        .is_above_low = 1,
        .high = 100000,
        .help = "stop after so many seconds of speech, in whole frames",
    },
    {
        .names = "--sample",
        .group = VIBE_GROUP_GENERATION,
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_sampling),
        .help = "draw the control tokens instead of taking the most probable",
    },
    {
        .names = "--temperature",
        .group = VIBE_GROUP_GENERATION,
        .kind = VIBE_OPT_FLOAT,
        .offset = AT(temperature),
        .meta = "X",
        .def = "1",
        .low = 0,
        .is_above_low = 1,
        .high = 100,
        .help = "with --sample: above 1 is more random, below 1 less",
    },
    {
        .names = "--top-p",
        .group = VIBE_GROUP_GENERATION,
        .kind = VIBE_OPT_FLOAT,
        .offset = AT(top_p),
        .meta = "X",
        .def = "1",
        .low = 0,
        .is_above_low = 1,
        .high = 1,
        .help = "with --sample: draw from the tokens that make up this "
                "probability",
    },
    {
        .names = "--device",
        .group = VIBE_GROUP_DEVICE,
        .kind = VIBE_OPT_PARSED,
        .offset = AT(device),
        .meta = "DEV",
        .def = "auto",
        .parse = parse_device,
        .files = "=auto cuda cuda:0 cpu",
        .is_everyday = 1,
        .help = "where to compute: auto, cuda, cuda:N or cpu",
    },
    {
        .names = "--threads -t",
        .group = VIBE_GROUP_DEVICE,
        .kind = VIBE_OPT_INT,
        .offset = AT(threads),
        .meta = "N",
        .min = 1,
        .max = 1024,
        .help = "CPU threads; all that this process may use if not given",
    },
    {
        .names = "--auto",
        .group = VIBE_GROUP_DEVICE,
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
        .group = VIBE_GROUP_DEVICE,
        .kind = VIBE_OPT_INT,
        .offset = AT(gpu_layers),
        .meta = "N",
        .def = "auto",
        .min = 0,
        .max = INT64_MAX,
        .note = "or \"all\", \"auto\"",
        .choices = layer_words,
        .files = "=all auto",
        .team = VIBE_TEAM_RESIDENCY,
        .is_everyday = 1,
        .help = "layers of the language model that stay on the GPU, fewer "
                "when they do not fit",
    },
    {
        .names = "--no-offload",
        .group = VIBE_GROUP_DEVICE,
        .kind = VIBE_OPT_SET,
        .offset = AT(residency),
        .value = VIBE_RESIDENCY_WHOLE,
        .team = VIBE_TEAM_RESIDENCY,
        .help = "keep the whole model on the GPU, or fail before loading it",
    },
    {
        .names = "--preset",
        .group = VIBE_GROUP_DEVICE,
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
        .group = VIBE_GROUP_DEVICE,
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
        .group = VIBE_GROUP_DEVICE,
        .kind = VIBE_OPT_PARSED,
        .offset = AT(max_vram),
        .meta = "SIZE",
        .parse = parse_max_vram,
        .is_everyday = 1,
        .help = "use at most so much memory of the GPU, in GiB or with M or "
                "G; if negative, leave so much free",
    },
    {
        .names = "--vram-reserve",
        .group = VIBE_GROUP_DEVICE,
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
        .group = VIBE_GROUP_DEVICE,
        .kind = VIBE_OPT_FLAG,
        .offset = AT(offload_kv_cache),
        .help = "keep keys and values on the host, where each frame reads "
                "them through the link",
    },
    {
        .names = "--offload-prediction-head",
        .group = VIBE_GROUP_DEVICE,
        .kind = VIBE_OPT_FLAG,
        .offset = AT(offload_prediction_head),
        .help = "keep the diffusion head on the host, where each step reads "
                "it through the link: slow, the last resort",
    },
    {
        .names = "--memory-mode",
        .group = VIBE_GROUP_DEVICE,
        .kind = VIBE_OPT_CHOICE,
        .offset = AT(memory_mode),
        .meta = "MODE",
        .choices = memory_modes,
        .help = "lightweight keeps the codec on the host, beefy everything on "
                "the GPU, the encoder of voices too",
    },
    {
        .names = "--pin-memory",
        .group = VIBE_GROUP_DEVICE,
        .kind = VIBE_OPT_CHOICE,
        .offset = AT(pin_memory),
        .meta = "WHEN",
        .def = "auto",
        .choices = switches,
        .help = "page-lock what is streamed: auto as much as the system "
                "allows, off none",
    },
    {
        .names = "--no-pin-memory",
        .group = VIBE_GROUP_DEVICE,
        .kind = VIBE_OPT_SET,
        .offset = AT(pin_memory),
        .value = VIBE_SWITCH_OFF,
        .help = "the same as --pin-memory off",
    },
    {
        .names = "--prefetch",
        .group = VIBE_GROUP_DEVICE,
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_prefetching),
        .def = "on",
        .help = "copy what is streamed before it is needed; --no-prefetch "
                "when it is",
    },
    {
        .names = "--async-transfer",
        .group = VIBE_GROUP_DEVICE,
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_async),
        .def = "on",
        .help = "copy while something is computed",
    },
    {
        .names = "--disable-async --no-async",
        .group = VIBE_GROUP_DEVICE,
        .kind = VIBE_OPT_SET,
        .offset = AT(is_async),
        .value = 0,
        .help = "the same as --no-async-transfer",
    },
    {
        .names = "--cache-clear-interval",
        .group = VIBE_GROUP_DEVICE,
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
        .group = VIBE_GROUP_DEVICE,
        .kind = VIBE_OPT_INT,
        .offset = AT(ring_slots),
        .meta = "N",
        .def = "3",
        .min = 1,
        .max = 64,
        .help = "chunks of streamed weights that are on the GPU at once",
    },
    {
        .names = "--chunk-size",
        .group = VIBE_GROUP_DEVICE,
        .kind = VIBE_OPT_INT,
        .offset = AT(chunk_mib),
        .meta = "MIB",
        .min = 1,
        .max = 1024,
        .help = "streamed weights are copied in chunks of at most so many MiB; "
                "32, or less where they would not fit",
    },
    {
        .names = "--stats",
        .group = VIBE_GROUP_INSPECT,
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_stats),
        .help = "at the end say what was streamed, how fast, and how much "
                "memory was used",
    },
    {
        .names = "--profile",
        .group = VIBE_GROUP_INSPECT,
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_profile),
        .help = "--stats, and what was streamed of each layer",
    },
    {
        .names = "--plan",
        .group = VIBE_GROUP_INSPECT,
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_plan),
        .team = VIBE_TEAM_ACTION,
        .help = "say what would stay on the GPU, what would be streamed, and "
                "why; load nothing",
    },
    {
        .names = "--print-table",
        .group = VIBE_GROUP_INSPECT,
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_print_table),
        .team = VIBE_TEAM_ACTION,
        .help = "memory, streamed bytes and time of a frame for each number "
                "of layers and kind of weights, here and on other cards; "
                "needs no GPU",
    },
    {
        .names = "--attn-implementation",
        .group = VIBE_GROUP_DEVICE,
        .kind = VIBE_OPT_STRING,
        .offset = AT(attn_implementation),
        .meta = "X",
        .files = "=sdpa eager flash_attention_2",
        .help = "accepted so that old command lines run, and ignored",
    },
    {
        .names = "--output -o --out",
        .group = VIBE_GROUP_OUTPUT,
        .kind = VIBE_OPT_STRING,
        .offset = AT(output),
        .meta = "FILE",
        .files = "wav flac ogg opus mp3 raw",
        .team = VIBE_TEAM_TARGET,
        .is_everyday = 1,
        .help = "where to write one script's speech, - is standard output; for "
                "several a name with {id}, {stem}, {seed}, {take} or {index}",
    },
    {
        .names = "--output-dir -d",
        .group = VIBE_GROUP_OUTPUT,
        .kind = VIBE_OPT_STRING,
        .offset = AT(output_dir),
        .meta = "DIR",
        .def = ".",
        .files = "/",
        .team = VIBE_TEAM_TARGET,
        .is_everyday = 1,
        .help = "write SCRIPT_generated.wav there; made if it is missing",
    },
    {
        .names = "--format",
        .group = VIBE_GROUP_OUTPUT,
        .kind = VIBE_OPT_CHOICE,
        .offset = AT(format),
        .meta = "F",
        .choices = formats,
        .help = "kind of file; by the extension if not given",
    },
    {
        .names = "--sample-format",
        .group = VIBE_GROUP_OUTPUT,
        .kind = VIBE_OPT_CHOICE,
        .offset = AT(sample_format),
        .meta = "S",
        .def = "s16",
        .choices = sample_formats,
        .help = "16 or 24 bit integers or 32 bit floats",
    },
    {
        .names = "--overwrite -y",
        .group = VIBE_GROUP_OUTPUT,
        .kind = VIBE_OPT_SET,
        .offset = AT(on_existing),
        .value = VIBE_EXISTING_OVERWRITE,
        .team = VIBE_TEAM_EXISTING,
        .help = "replace files without a word about it",
    },
    {
        .names = "--no-clobber",
        .group = VIBE_GROUP_OUTPUT,
        .kind = VIBE_OPT_SET,
        .offset = AT(on_existing),
        .value = VIBE_EXISTING_REFUSE,
        .team = VIBE_TEAM_EXISTING,
        .help = "fail before anything is spoken if a file exists",
    },
    {
        .names = "--skip-existing",
        .group = VIBE_GROUP_OUTPUT,
        .kind = VIBE_OPT_SET,
        .offset = AT(on_existing),
        .value = VIBE_EXISTING_SKIP,
        .team = VIBE_TEAM_EXISTING,
        .help = "leave out the scripts whose file exists",
    },
    {
        .names = "--batch",
        .group = VIBE_GROUP_BATCH,
        .kind = VIBE_OPT_STRING,
        .offset = AT(batch),
        .meta = "FILE",
        .files = "jsonl",
        .team = VIBE_TEAM_SCRIPT,
        .is_everyday = 1,
        .help = "speak many scripts: a folder of .txt and .json, a quoted "
                "pattern, or a manifest of JSON objects, one a line (- is "
                "standard input) with id, txt_path or text, voice_files, "
                "output, seed, cfg_scale, steps",
    },
    {
        .names = "--takes",
        .group = VIBE_GROUP_BATCH,
        .kind = VIBE_OPT_INT,
        .offset = AT(takes),
        .meta = "K",
        .def = "1",
        .min = 1,
        .max = 64,
        .help = "speak each script K times, with the seeds that follow; the "
                "names get .sSEED unless --output has {seed} or {take}",
    },
    {
        .names = "--shard",
        .group = VIBE_GROUP_BATCH,
        .kind = VIBE_OPT_PARSED,
        .offset = AT(n_shards),
        .meta = "I/N",
        .parse = parse_shard,
        .files = "=auto 1/2 2/2",
        .help = "speak only part I of N of the scripts; auto asks "
                "SLURM_ARRAY_TASK_ID and _COUNT",
    },
    {
        .names = "--resume",
        .group = VIBE_GROUP_BATCH,
        .kind = VIBE_OPT_SET,
        .offset = AT(on_existing),
        .value = VIBE_EXISTING_RESUME,
        .team = VIBE_TEAM_EXISTING,
        .help = "leave out what an earlier run of this batch has finished, and "
                "what has not changed since",
    },
    {
        .names = "--fail-fast",
        .group = VIBE_GROUP_BATCH,
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_fail_fast),
        .help = "stop at the first script that fails",
    },
    {
        .names = "--chunk-minutes",
        .group = VIBE_GROUP_BATCH,
        .kind = VIBE_OPT_FLOAT,
        .offset = AT(chunk_minutes),
        .meta = "X",
        .low = 0,
        .is_above_low = 1,
        .high = 1000,
        .help = "start afresh with the voices at the end of a turn, after "
                "about so many minutes of speech; --resume goes on after the "
                "last finished part",
    },
    {
        .names = "--report",
        .group = VIBE_GROUP_BATCH,
        .kind = VIBE_OPT_STRING,
        .offset = AT(report),
        .meta = "FILE",
        .files = "json",
        .help = "write what became of each script, and the totals, as JSON",
    },
    {
        .names = "--devices",
        .group = VIBE_GROUP_BATCH,
        .kind = VIBE_OPT_STRING,
        .offset = AT(devices),
        .meta = "LIST",
        .files = "=0,1 cpu,cpu",
        .help = "several GPUs by their numbers, as in 0,1; see --replicas",
    },
    {
        .names = "--replicas",
        .group = VIBE_GROUP_BATCH,
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_replicated),
        .help = "open the model on each of --devices and share the scripts "
                "among them; --batch-size counts for each",
    },
    {
        .names = "--batch-size -b",
        .group = VIBE_GROUP_BATCH,
        .kind = VIBE_OPT_PARSED,
        .offset = AT(batch_size),
        .meta = "B",
        .def = "auto",
        .parse = parse_batch_size,
        .files = "=auto 1 2 4 8 16",
        .help = "speak so many scripts at once: the weights are read once for "
                "all; auto is 8 on a GPU, 4 on the CPU",
    },
    {
        .names = "--dry-run",
        .group = VIBE_GROUP_INSPECT,
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_dry_run),
        .team = VIBE_TEAM_ACTION,
        .help = "check everything, say what would be done, speak nothing",
    },
    {
        .names = "--list-devices",
        .group = VIBE_GROUP_INSPECT,
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_list_devices),
        .team = VIBE_TEAM_ACTION,
        .help = "print what there is to compute on",
    },
    {
        .names = "--info",
        .group = VIBE_GROUP_INSPECT,
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_info),
        .team = VIBE_TEAM_ACTION,
        .help = "describe the model",
    },
    {
        .names = "--dump-tokens",
        .group = VIBE_GROUP_INSPECT,
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_dump_tokens),
        .team = VIBE_TEAM_ACTION,
        .help = "print the prompt of each script, a token id and its text a "
                "line",
    },
    {
        .names = "--dump-tensors",
        .group = VIBE_GROUP_INSPECT,
        .kind = VIBE_OPT_STRING,
        .offset = AT(dump_tensors),
        .meta = "DIR",
        .files = "/",
        .help = "while speaking one script, write intermediate tensors there",
    },
    {
        .names = "--verify",
        .group = VIBE_GROUP_INSPECT,
        .kind = VIBE_OPT_STRING,
        .offset = AT(verify),
        .meta = "FILE",
        .files = "safetensors json",
        .team = VIBE_TEAM_ACTION,
        .help = "compare with recorded results: golden.safetensors with "
                "--model, vectors.json with --tokenizer",
    },
    {
        .names = "--test-speed",
        .group = VIBE_GROUP_INSPECT,
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_test_speed),
        .team = VIBE_TEAM_ACTION,
        .help = "time frames of speech and say what bounds them",
    },
    {
        .names = "--frames",
        .group = VIBE_GROUP_INSPECT,
        .kind = VIBE_OPT_INT,
        .offset = AT(frames),
        .meta = "N",
        .def = "20",
        .min = 1,
        .max = 100000,
        .help = "with --test-speed: frames to time",
    },
    {
        .names = "--context",
        .group = VIBE_GROUP_INSPECT,
        .kind = VIBE_OPT_INT,
        .offset = AT(context),
        .meta = "N",
        .def = "0",
        .min = 0,
        .max = 1 << 24,
        .help = "with --test-speed: tokens that lie behind the frames",
    },
    {
        .names = "--prompt",
        .group = VIBE_GROUP_INSPECT,
        .kind = VIBE_OPT_INT,
        .offset = AT(prompt),
        .meta = "N",
        .def = "0",
        .min = 0,
        .max = 1 << 24,
        .help = "with --test-speed: time a prompt of so many tokens, too",
    },
    {
        .names = "--self-test",
        .group = VIBE_GROUP_INSPECT,
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_self_test),
        .team = VIBE_TEAM_ACTION,
        .help = "compare every op of the device with plain C on the CPU",
    },
    {
        .names = "--json",
        .group = VIBE_GROUP_MESSAGES,
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_json),
        .help = "print one JSON object a file instead of its path",
    },
    {
        .names = "--progress",
        .group = VIBE_GROUP_MESSAGES,
        .kind = VIBE_OPT_CHOICE,
        .offset = AT(progress),
        .meta = "MODE",
        .def = "auto",
        .choices = progress_modes,
        .help = "how to show progress; auto is a bar on a terminal, else a "
                "line every 10 s",
    },
    {
        .names = "--quiet -q",
        .group = VIBE_GROUP_MESSAGES,
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_quiet),
        .team = VIBE_TEAM_LOUDNESS,
        .is_everyday = 1,
        .help = "errors only",
    },
    {
        .names = "--verbose -v",
        .group = VIBE_GROUP_MESSAGES,
        .kind = VIBE_OPT_COUNT,
        .offset = AT(verbosity),
        .team = VIBE_TEAM_LOUDNESS,
        .help = "say more; -vv says still more",
    },
    {
        .names = "--color",
        .group = VIBE_GROUP_MESSAGES,
        .kind = VIBE_OPT_CHOICE,
        .offset = AT(color),
        .meta = "WHEN",
        .def = "auto",
        .choices = color_modes,
        .help = "colour in messages; auto is on a terminal without NO_COLOR",
    },
    {
        .names = "--trace",
        .group = VIBE_GROUP_MESSAGES,
        .kind = VIBE_OPT_STRING,
        .offset = AT(trace),
        .meta = "FILE",
        .files = "json",
        .help = "write a timeline of the stages of each frame, of copies and "
                "of memory, for ui.perfetto.dev",
    },
    {
        .names = "--log-file",
        .group = VIBE_GROUP_MESSAGES,
        .kind = VIBE_OPT_STRING,
        .offset = AT(log_file),
        .meta = "FILE",
        .files = "*",
        .help = "append every message there with its time, also those that "
                "--quiet keeps from the screen",
    },
    {
        .names = "--options",
        .group = VIBE_GROUP_MESSAGES,
        .kind = VIBE_OPT_STRING,
        .offset = AT(options_file),
        .meta = "FILE",
        .files = "*",
        .help = "read options from a file, one word per line, # comments; "
                "VIBEVOICE_CONFIG_PATH names one too",
    },
    {
        .names = "--completion",
        .group = VIBE_GROUP_MESSAGES,
        .kind = VIBE_OPT_CHOICE,
        .offset = AT(show),
        .meta = "SHELL",
        .choices = shells,
        .stops = 1,
        .help = "print a completion script for this shell",
    },
    {
        .names = "--man",
        .group = VIBE_GROUP_MESSAGES,
        .kind = VIBE_OPT_SET,
        .offset = AT(show),
        .value = VIBE_SHOW_MAN,
        .stops = 1,
        .help = "print the manual page; read it with: vibevoice --man | man -l "
                "-",
    },
    {
        .names = "-h",
        .group = VIBE_GROUP_MESSAGES,
        .kind = VIBE_OPT_SET,
        .offset = AT(show),
        .value = VIBE_SHOW_HELP_SHORT,
        .stops = 1,
        .is_everyday = 1,
        .help = "this short help",
    },
    {
        .names = "--help",
        .group = VIBE_GROUP_MESSAGES,
        .kind = VIBE_OPT_SET,
        .offset = AT(show),
        .value = VIBE_SHOW_HELP,
        .stops = 1,
        .is_everyday = 1,
        .help = "all options",
    },
    {
        .names = "--version -V",
        .group = VIBE_GROUP_MESSAGES,
        .kind = VIBE_OPT_SET,
        .offset = AT(show),
        .value = VIBE_SHOW_VERSION,
        .stops = 1,
        .help = "the version and what this build can do",
    },
};

const size_t vibe_option_n_rows = sizeof(vibe_option_rows) /
                                  sizeof(vibe_option_rows[0]);

_Static_assert(sizeof(vibe_option_rows) / sizeof(vibe_option_rows[0]) <=
                   VIBE_OPTIONS_MAX,
               "struct vibe_options needs room for more rows");
