#include "cli/options.h"
#include "cli/options_parse.h"
#include "cli/options_table.h"
#include "cli/options_words.h"

#define AT(field) offsetof(struct vibe_options, field)

static const struct vibe_option output[] = {
    {
        .names = "--output -o --out",
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
        .kind = VIBE_OPT_CHOICE,
        .offset = AT(format),
        .meta = "F",
        .choices = vibe_audio_words,
        .help = "kind of file; by the extension if not given",
    },
    {
        .names = "--sample-format",
        .kind = VIBE_OPT_CHOICE,
        .offset = AT(sample_format),
        .meta = "S",
        .def = "s16",
        .choices = vibe_sample_words,
        .help = "16 or 24 bit integers or 32 bit floats",
    },
    {
        .names = "--overwrite -y",
        .kind = VIBE_OPT_SET,
        .offset = AT(on_existing),
        .value = VIBE_EXISTING_OVERWRITE,
        .team = VIBE_TEAM_EXISTING,
        .help = "replace files without a word about it",
    },
    {
        .names = "--no-clobber",
        .kind = VIBE_OPT_SET,
        .offset = AT(on_existing),
        .value = VIBE_EXISTING_REFUSE,
        .team = VIBE_TEAM_EXISTING,
        .help = "fail before anything is spoken if a file exists",
    },
    {
        .names = "--skip-existing",
        .kind = VIBE_OPT_SET,
        .offset = AT(on_existing),
        .value = VIBE_EXISTING_SKIP,
        .team = VIBE_TEAM_EXISTING,
        .help = "leave out the scripts whose file exists",
    },
};

const struct vibe_option_section vibe_output_options = {
    .title = "Output",
    .rows = output,
    .n = sizeof(output) / sizeof(output[0]),
};

static const struct vibe_option batch[] = {
    {
        .names = "--batch",
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
        .kind = VIBE_OPT_PARSED,
        .offset = AT(n_shards),
        .meta = "I/N",
        .parse = vibe_parse_shard,
        .files = "=auto 1/2 2/2",
        .help = "speak only part I of N of the scripts; auto asks "
                "SLURM_ARRAY_TASK_ID and _COUNT",
    },
    {
        .names = "--resume",
        .kind = VIBE_OPT_SET,
        .offset = AT(on_existing),
        .value = VIBE_EXISTING_RESUME,
        .team = VIBE_TEAM_EXISTING,
        .help = "leave out what an earlier run of this batch has finished, and "
                "what has not changed since",
    },
    {
        .names = "--fail-fast",
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_fail_fast),
        .help = "stop at the first script that fails",
    },
    {
        .names = "--chunk-minutes",
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
        .kind = VIBE_OPT_STRING,
        .offset = AT(report),
        .meta = "FILE",
        .files = "json",
        .help = "write what became of each script, and the totals, as JSON",
    },
    {
        .names = "--devices",
        .kind = VIBE_OPT_STRING,
        .offset = AT(devices),
        .meta = "LIST",
        .files = "=0,1 cpu,cpu",
        .help = "split the layers among several GPUs by their numbers, as in "
                "0,1; the last one also has the head and the codec; or see "
                "--replicas",
    },
    {
        .names = "--replicas",
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_replicated),
        .help = "open the model on each of --devices and share the scripts "
                "among them; --batch-size counts for each",
    },
    {
        .names = "--batch-size -b",
        .kind = VIBE_OPT_PARSED,
        .offset = AT(batch_size),
        .meta = "B",
        .def = "auto",
        .parse = vibe_parse_batch_size,
        .files = "=auto 1 2 4 8 16",
        .help = "speak so many scripts at once: the weights are read once for "
                "all; auto is 8 on a GPU, 4 on the CPU",
    },
};

const struct vibe_option_section vibe_batch_options = {
    .title = "Batches",
    .rows = batch,
    .n = sizeof(batch) / sizeof(batch[0]),
};
