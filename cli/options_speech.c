#include "cli/options.h"
#include "cli/options_table.h"
#include "cli/options_words.h"

#define AT(field) offsetof(struct vibe_options, field)

static const struct vibe_option input[] = {
    {
        .names = "--txt-path -f --text-file",
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
        .kind = VIBE_OPT_STRING,
        .offset = AT(text),
        .meta = "STR",
        .team = VIBE_TEAM_SCRIPT,
        .is_everyday = 1,
        .help = "speak this text instead of a file",
    },
    {
        .names = "--voice-files -r --ref-audio",
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
        .kind = VIBE_OPT_APPEND,
        .offset = AT(voices),
        .meta = "N=FILE",
        .files = "wav flac ogg opus mp3 aiff",
        .help = "the recorded voice of speaker N; repeat it for others",
    },
    {
        .names = "--speaker-names",
        .kind = VIBE_OPT_WORDS,
        .offset = AT(speaker_names),
        .meta = "NAME...",
        .help = "voices by the names of their files in --voices-dir, or parts "
                "of them, in the order of the speakers' numbers",
    },
    {
        .names = "--voices-dir",
        .kind = VIBE_OPT_STRING,
        .offset = AT(voices_dir),
        .meta = "DIR",
        .def = "voices",
        .files = "/",
        .help = "where the recordings of --speaker-names are",
    },
};

const struct vibe_option_section vibe_input_options = {
    .title = "Input and voices",
    .rows = input,
    .n = sizeof(input) / sizeof(input[0]),
};

static const struct vibe_option model[] = {
    {
        .names = "--model -m --model-path --model-file --model-dir",
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
        .kind = VIBE_OPT_STRING,
        .offset = AT(config),
        .meta = "FILE",
        .files = "json",
        .help = "config.json of the model, if it is not beside it; or a "
                "preset, see --preset",
    },
    {
        .names = "--tokenizer",
        .kind = VIBE_OPT_STRING,
        .offset = AT(tokenizer),
        .meta = "DIR",
        .files = "/",
        .help = "folder with tokenizer.json, or vocab.json and merges.txt, if "
                "it is not the model's",
    },
    {
        .names = "--dtype",
        .kind = VIBE_OPT_CHOICE,
        .offset = AT(dtype),
        .meta = "TYPE",
        .def = "auto",
        .choices = vibe_dtype_words,
        .is_everyday = 1,
        .help = "how the language model's weights are kept; auto is what the "
                "file holds, or less where a GPU has no room for that",
    },
    {
        .names = "--head-dtype",
        .kind = VIBE_OPT_CHOICE,
        .offset = AT(head_dtype),
        .meta = "TYPE",
        .def = "auto",
        .choices = vibe_dtype_words,
        .help = "the same for the diffusion head, which errors reach first",
    },
    {
        .names = "--codec-dtype",
        .kind = VIBE_OPT_CHOICE,
        .offset = AT(codec_dtype),
        .meta = "TYPE",
        .def = "auto",
        .choices = vibe_dtype_words,
        .help = "the same for the codec, which is heard",
    },
    {
        .names = "--kv-dtype",
        .kind = VIBE_OPT_CHOICE,
        .offset = AT(kv_dtype),
        .meta = "TYPE",
        .def = "auto",
        .choices = vibe_kv_dtype_words,
        .help = "how keys and values are kept; float8 takes half the memory; "
                "auto is bfloat16 on a GPU, and float8 where the language "
                "model is int4",
    },
};

const struct vibe_option_section vibe_model_options = {
    .title = "Model",
    .rows = model,
    .n = sizeof(model) / sizeof(model[0]),
};

static const struct vibe_option generation[] = {
    {
        .names = "--cfg-scale --cfg",
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
        .kind = VIBE_OPT_INT,
        .offset = AT(max_frames),
        .meta = "N",
        .min = 1,
        .max = INT64_MAX,
        .help = "stop after so many frames of 2/15 s",
    },
    {
        .names = "--max-seconds --max-length",
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
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_sampling),
        .help = "draw the control tokens instead of taking the most probable",
    },
    {
        .names = "--temperature",
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
};

const struct vibe_option_section vibe_generation_options = {
    .title = "Generation",
    .rows = generation,
    .n = sizeof(generation) / sizeof(generation[0]),
};
