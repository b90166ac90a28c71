#include "cli/options.h"
#include "cli/options_table.h"
#include "cli/options_words.h"

#define AT(field) offsetof(struct vibe_options, field)

static const struct vibe_option inspect[] = {
    {
        .names = "--plan",
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_plan),
        .team = VIBE_TEAM_ACTION,
        .help = "say what would stay on the GPU, what would be streamed, and "
                "why; load nothing",
    },
    {
        .names = "--print-table",
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_print_table),
        .team = VIBE_TEAM_ACTION,
        .help = "memory, streamed bytes and time of a frame for each number "
                "of layers and kind of weights, here and on other cards; "
                "needs no GPU",
    },
    {
        .names = "--dry-run",
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_dry_run),
        .team = VIBE_TEAM_ACTION,
        .help = "check everything, say what would be done, speak nothing",
    },
    {
        .names = "--list-devices",
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_list_devices),
        .team = VIBE_TEAM_ACTION,
        .help = "print what there is to compute on",
    },
    {
        .names = "--info",
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_info),
        .team = VIBE_TEAM_ACTION,
        .help = "describe the model; with --dtype, what that would cost each "
                "matrix in decibels",
    },
    {
        .names = "--convert",
        .kind = VIBE_OPT_STRING,
        .offset = AT(convert),
        .meta = "FILE",
        .files = "safetensors",
        .team = VIBE_TEAM_ACTION,
        .help = "write the model with its matrices in --dtype, --head-dtype "
                "and --codec-dtype",
    },
    {
        .names = "--dump-tokens",
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_dump_tokens),
        .team = VIBE_TEAM_ACTION,
        .help = "print the prompt of each script, a token id and its text a "
                "line",
    },
    {
        .names = "--dump-tensors",
        .kind = VIBE_OPT_STRING,
        .offset = AT(dump_tensors),
        .meta = "DIR",
        .files = "/",
        .help = "while speaking one script, write intermediate tensors there",
    },
    {
        .names = "--verify",
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
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_test_speed),
        .team = VIBE_TEAM_ACTION,
        .help = "time frames of speech and say what bounds them",
    },
    {
        .names = "--benchmark",
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_benchmark),
        .team = VIBE_TEAM_ACTION,
        .help = "time frames with more and more layers on the GPU, or with as "
                "many as --num-gpu-layers or --preset says",
    },
    {
        .names = "--bench-format",
        .kind = VIBE_OPT_CHOICE,
        .offset = AT(bench_format),
        .meta = "FORMAT",
        .def = "md",
        .choices = vibe_sweep_words,
        .help = "what --benchmark prints",
    },
    {
        .names = "--repeats -R",
        .kind = VIBE_OPT_INT,
        .offset = AT(repeats),
        .meta = "N",
        .def = "3",
        .min = 1,
        .max = 1000,
        .help = "with --benchmark: how often, for the mean and its deviation",
    },
    {
        .names = "--frames",
        .kind = VIBE_OPT_INT,
        .offset = AT(frames),
        .meta = "N",
        .def = "20",
        .min = 1,
        .max = 100000,
        .help = "with --test-speed, --benchmark: frames to time",
    },
    {
        .names = "--context",
        .kind = VIBE_OPT_INT,
        .offset = AT(context),
        .meta = "N",
        .def = "0",
        .min = 0,
        .max = 1 << 24,
        .help = "with --test-speed, --benchmark: tokens that lie behind "
                "the frames",
    },
    {
        .names = "--prompt",
        .kind = VIBE_OPT_INT,
        .offset = AT(prompt),
        .meta = "N",
        .def = "0",
        .min = 0,
        .max = 1 << 24,
        .help = "with --test-speed, --benchmark: time a prompt of so many "
                "tokens, too",
    },
    {
        .names = "--self-test",
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_self_test),
        .team = VIBE_TEAM_ACTION,
        .help = "compare every op of the device with plain C on the CPU",
    },
};

const struct vibe_option_section vibe_inspect_options = {
    .title = "Instead of speaking",
    .rows = inspect,
    .n = sizeof(inspect) / sizeof(inspect[0]),
};
