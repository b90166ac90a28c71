/*
 * options.h - the command line as one table.
 *
 * Each option is a row of a section.  Parsing, ranges, --help, the manual page
 * and the shell completion are made from it, so an option is added by adding a
 * row and a field of struct vibe_options, and nowhere else.
 *
 * Rules, for every row: '_' and '-' are equal inside names; "--opt value" and
 * "--opt=value"; no abbreviations; "--" ends options; the last of several
 * values wins with a warning; every option can also be set in an options file
 * (one word per line) and as VIBEVOICE_<OPTION>.  The command line wins over
 * the environment, which wins over the file, which wins over the default.
 */
#ifndef VIBE_CLI_OPTIONS_H
#define VIBE_CLI_OPTIONS_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

struct vibe_error;

/* A growing list of strings; the strings are borrowed, the array is owned. */
struct vibe_words {
    const char **items; /* [n] */
    size_t n, capacity;
};

/* A text that lives as long as the options. */
struct vibe_option_text {
    struct vibe_option_text *next;
    char text[];
};

/* What to do with an output file that is there already. */
enum vibe_on_existing {
    VIBE_EXISTING_DEFAULT, /* overwrite, and say so */
    VIBE_EXISTING_OVERWRITE,
    VIBE_EXISTING_REFUSE,
    VIBE_EXISTING_SKIP,
    VIBE_EXISTING_RESUME,
};

enum vibe_progress_mode {
    VIBE_PROGRESS_AUTO,
    VIBE_PROGRESS_BAR,
    VIBE_PROGRESS_PLAIN,
    VIBE_PROGRESS_JSON,
    VIBE_PROGRESS_NONE,
};

enum vibe_color_mode {
    VIBE_COLOR_AUTO,
    VIBE_COLOR_ALWAYS,
    VIBE_COLOR_NEVER,
};

/* How --benchmark prints: a table, lines, an array, objects on lines. */
enum vibe_sweep_format {
    VIBE_SWEEP_MD,
    VIBE_SWEEP_CSV,
    VIBE_SWEEP_JSON,
    VIBE_SWEEP_JSONL,
};

/* Which print-and-exit option was met; --help wins as soon as it is read. */
enum vibe_show {
    VIBE_SHOW_NOTHING,
    VIBE_SHOW_HELP_SHORT,
    VIBE_SHOW_HELP,
    VIBE_SHOW_VERSION,
    VIBE_SHOW_COMPLETION,
    VIBE_SHOW_MAN,
};

/* How much of the model a GPU keeps, where no number or name says so. */
enum vibe_residency_kind {
    VIBE_RESIDENCY_DEFAULT,
    VIBE_RESIDENCY_AUTO,
    VIBE_RESIDENCY_WHOLE,
};

/* Words that stand for numbers of layers. */
enum { VIBE_LAYERS_AUTO = -1, VIBE_LAYERS_ALL = INT_MAX };

enum vibe_switch { VIBE_SWITCH_AUTO, VIBE_SWITCH_ON, VIBE_SWITCH_OFF };

/* Where a value came from, weakest first. */
enum vibe_option_source {
    VIBE_FROM_DEFAULT,
    VIBE_FROM_FILE,
    VIBE_FROM_ENV,
    VIBE_FROM_ARGV,
};

/* Rows that struct vibe_options has room for. */
enum { VIBE_OPTIONS_MAX = 128 };

/*
 * The values.  Numbers that were not given and have no default are 0, strings
 * NULL, lists empty.
 */
struct vibe_options {
    /* Input */
    struct vibe_words scripts; /* paths; "-" is stdin */
    const char *text;
    struct vibe_words voices; /* "FILE" or "N=FILE" */
    struct vibe_words speaker_names;
    const char *voices_dir;

    /* Model */
    const char *model, *config, *tokenizer;
    int dtype, head_dtype, codec_dtype, kv_dtype; /* enum vibe_weight_dtype */
    const char *convert;                          /* file to write */

    /* Generation */
    double cfg_scale;
    int64_t steps;
    int64_t seed; /* -1: random */
    double max_length_times, max_seconds;
    int64_t max_frames;
    int is_sampling;
    double temperature, top_p;

    /* Device */
    int device; /* enum vibe_device */
    int device_index;
    int64_t threads;
    const char *attn_implementation;

    /* Where weights are */
    int residency;      /* enum vibe_residency_kind */
    int64_t gpu_layers; /* or VIBE_LAYERS_AUTO, VIBE_LAYERS_ALL */
    const char *preset;
    double target_utilization;
    int64_t max_vram;     /* bytes; negative: to be left free */
    int64_t vram_reserve; /* MiB */
    int offload_kv_cache, offload_prediction_head;
    int memory_mode;        /* enum vibe_memory_mode */
    int pin_memory;         /* enum vibe_switch */
    int64_t clear_interval; /* layer transfers; 0: never */
    int64_t ring_slots;
    int64_t chunk_mib;  /* 0: as usual */
    int64_t cpu_layers; /* or VIBE_LAYERS_AUTO */
    int is_hybrid;      /* the latter */
    int is_prefetching, is_async, is_stats, is_profile, is_plan, is_print_table;

    /* Output */
    const char *output, *output_dir;
    int format, sample_format; /* enum vibe_audio_format, vibe_sample_format */
    int on_existing;           /* enum vibe_on_existing */

    /* Batches */
    const char *batch;
    int64_t takes;
    int64_t batch_size; /* dialogues at once; 0: auto */
    /* part shard of n_shards, from 1; 0 of 0: all, 0 of -1: as Slurm says */
    int64_t shard, n_shards;
    double chunk_minutes; /* 0: no chunks */
    int is_fail_fast;
    const char *report;
    const char *devices;
    int is_replicated;

    /* Instead of speaking */
    int is_dry_run, is_info, is_dump_tokens, is_test_speed, is_self_test;
    int is_list_devices, is_benchmark;
    int64_t frames, context, prompt; /* of --test-speed */
    int64_t repeats;                 /* of --benchmark */
    int bench_format;                /* enum vibe_sweep_format */
    const char *dump_tensors, *verify;
    int show; /* enum vibe_show */

    /* Messages */
    int is_json, is_quiet, verbosity;
    int progress, color; /* enum vibe_progress_mode, vibe_color_mode */
    const char *trace, *log_file;
    const char *options_file;

    unsigned char source[VIBE_OPTIONS_MAX]; /* enum vibe_option_source by row */
    struct vibe_option_text *owned; /* texts that were copied, the last first */
};

enum vibe_option_kind {
    VIBE_OPT_FLAG,   /* int; --x is 1, --no-x is 0 */
    VIBE_OPT_SET,    /* int becomes row->value; takes no argument */
    VIBE_OPT_COUNT,  /* int; one more each time; -vv counts twice */
    VIBE_OPT_STRING, /* const char * */
    VIBE_OPT_INT,    /* int64_t from min to max, or a row->choices word */
    VIBE_OPT_FLOAT,  /* double from low to high */
    VIBE_OPT_CHOICE, /* int; the value of a row->choices word */
    VIBE_OPT_WORDS,  /* struct vibe_words; all words until the next option */
    VIBE_OPT_APPEND, /* struct vibe_words; one word each time */
    VIBE_OPT_PARSED, /* what row->parse makes of the word */
};

/* A word of a choice.  Case does not matter, '_' and '-' are equal. */
struct vibe_choice {
    const char *word; /* NULL ends the list */
    int value;
    int is_alias; /* accepted, but not offered */
};

/* Options of one team cannot be combined. */
enum vibe_option_team {
    VIBE_TEAM_NONE,
    VIBE_TEAM_SCRIPT,    /* --txt-path, --text, --batch */
    VIBE_TEAM_TARGET,    /* --output, --output-dir */
    VIBE_TEAM_RESIDENCY, /* --auto, --num-gpu-layers, --no-offload, --preset */
    VIBE_TEAM_EXISTING,  /* --overwrite, --no-clobber, --skip-existing,
                           --resume */
    VIBE_TEAM_LOUDNESS,  /* --quiet, --verbose */
    VIBE_TEAM_ACTION,    /* --info, --dump-tokens, --verify, --dry-run,
                           --test-speed, --benchmark, --self-test, --plan,
                           --print-table */
};

struct vibe_option {
    const char *names; /* "--canonical -c --alias", separated by a space */
    size_t offset;     /* of the field in struct vibe_options */
    enum vibe_option_kind kind;
    enum vibe_option_team team;
    const char *meta;  /* what its value is called, NULL when it takes none */
    const char *def;   /* the default, as a user would write it, or NULL */
    const char *help;  /* one sentence, no full stop */
    const char *files; /* for completion: "txt json", "*" any, "/" folders */

    int64_t min, max; /* VIBE_OPT_INT; max INT64_MAX: no bound is named */
    double low, high; /* VIBE_OPT_FLOAT; high INFINITY: likewise */
    int is_above_low; /* low itself is not allowed */
    int value;        /* VIBE_OPT_SET */
    const char *note; /* after the range: "-1 = random" */
    const struct vibe_choice *choices; /* VIBE_OPT_CHOICE, VIBE_OPT_INT */
    /* VIBE_OPT_PARSED: 0, or -1 after writing what was expected to want. */
    int (*parse)(struct vibe_options *out, const char *word, const char **want);

    int is_everyday; /* shown by -h */
    int stops;       /* nothing after it is looked at */
};

/* What --help lists under one title. */
struct vibe_option_section {
    const char *title;
    const struct vibe_option *rows; /* [n] */
    size_t n;
};

/* In the order of --help; NULL ends the list. */
extern const struct vibe_option_section *const vibe_option_sections[];

/* Row i of all sections, one after another; NULL behind the last. */
const struct vibe_option *vibe_option_at(size_t i);

/* Told of each value that was given twice; msg is borrowed for the call. */
struct vibe_option_listener {
    void (*on_warning)(void *user, const char *msg);
    void *user;
};

/* Set every default.  Errors: VIBE_E_NOMEM */
int vibe_options_init(struct vibe_options *out, struct vibe_error *err);

/*
 * Take the words of a command line; strings are borrowed from argv.
 *
 *   argv      [argc], the words after the program's name
 *   listener  may be NULL
 *
 * Errors: VIBE_E_ARG (msg is what the user is told), VIBE_E_NOMEM
 */
int vibe_options_apply_argv(struct vibe_options *out, size_t argc,
                            const char *const *argv,
                            const struct vibe_option_listener *listener,
                            struct vibe_error *err);

/*
 * Take VIBEVOICE_<OPTION>=value from an environment (ends with NULL); strings
 * are borrowed from it.  An empty value is as good as none, lists have one
 * word per line.  What the command line has set stays.
 */
int vibe_options_apply_env(struct vibe_options *out,
                           const char *const *environment,
                           struct vibe_error *err);

/*
 * Take an options file: one word per line, blanks around it are dropped, '#'
 * starts a comment line.  What is set already stays.
 *
 *   name  for messages
 *   text  [n], need not end with a zero; copied
 */
int vibe_options_apply_text(struct vibe_options *out, const char *name,
                            const char *text, size_t n, struct vibe_error *err);

/*
 * All of it: defaults, command line, environment, and the options file that
 * these name (--options, VIBEVOICE_OPTIONS or VIBEVOICE_CONFIG_PATH).
 *
 *   out   release with vibe_options_release, also after an error
 *
 * Errors: VIBE_E_ARG; VIBE_E_IO when the options file cannot be read
 */
int vibe_options_parse(struct vibe_options *out, size_t argc,
                       const char *const *argv, const char *const *environment,
                       const struct vibe_option_listener *listener,
                       struct vibe_error *err);

void vibe_options_release(struct vibe_options *options);

/* Where the value of the option called name ("--steps") came from. */
enum vibe_option_source vibe_options_source(const struct vibe_options *options,
                                            const char *name);

/* Copy the canonical name of a row, without blanks after it, into buf. */
const char *vibe_option_name(const struct vibe_option *row, char *buf,
                             size_t size);

/*
 * Step through the spellings of a row: *at starts at row->names; copies the
 * next one into buf and returns it, or NULL at the end.
 */
const char *vibe_option_next_name(const char **at, char *buf, size_t size);

/* Append a borrowed string.  Errors: VIBE_E_NOMEM */
int vibe_words_add(struct vibe_words *words, const char *word,
                   struct vibe_error *err);

#endif /* VIBE_CLI_OPTIONS_H */
