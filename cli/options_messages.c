#include "cli/options.h"
#include "cli/options_table.h"
#include "cli/options_words.h"

#define AT(field) offsetof(struct vibe_options, field)

static const struct vibe_option messages[] = {
    {
        .names = "--json",
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_json),
        .help = "print one JSON object a file instead of its path",
    },
    {
        .names = "--progress",
        .kind = VIBE_OPT_CHOICE,
        .offset = AT(progress),
        .meta = "MODE",
        .def = "auto",
        .choices = vibe_progress_words,
        .help = "how to show progress; auto is a bar on a terminal, else a "
                "line every 10 s",
    },
    {
        .names = "--quiet -q",
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_quiet),
        .team = VIBE_TEAM_LOUDNESS,
        .is_everyday = 1,
        .help = "errors only",
    },
    {
        .names = "--verbose -v",
        .kind = VIBE_OPT_COUNT,
        .offset = AT(verbosity),
        .team = VIBE_TEAM_LOUDNESS,
        .help = "say more; -vv says still more",
    },
    {
        .names = "--stats",
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_stats),
        .help = "at the end say what was streamed, how fast, and how much "
                "memory was used",
    },
    {
        .names = "--profile",
        .kind = VIBE_OPT_FLAG,
        .offset = AT(is_profile),
        .help = "--stats, and what was streamed of each layer",
    },
    {
        .names = "--color",
        .kind = VIBE_OPT_CHOICE,
        .offset = AT(color),
        .meta = "WHEN",
        .def = "auto",
        .choices = vibe_color_words,
        .help = "colour in messages; auto is on a terminal without NO_COLOR",
    },
    {
        .names = "--trace",
        .kind = VIBE_OPT_STRING,
        .offset = AT(trace),
        .meta = "FILE",
        .files = "json",
        .help = "write a timeline of the stages of each frame, of copies and "
                "of memory, for ui.perfetto.dev",
    },
    {
        .names = "--log-file",
        .kind = VIBE_OPT_STRING,
        .offset = AT(log_file),
        .meta = "FILE",
        .files = "*",
        .help = "append every message there with its time, also those that "
                "--quiet keeps from the screen",
    },
    {
        .names = "--options",
        .kind = VIBE_OPT_STRING,
        .offset = AT(options_file),
        .meta = "FILE",
        .files = "*",
        .help = "read options from a file, one word per line, # comments; "
                "VIBEVOICE_CONFIG_PATH names one too",
    },
    {
        .names = "--completion",
        .kind = VIBE_OPT_CHOICE,
        .offset = AT(show),
        .meta = "SHELL",
        .choices = vibe_shell_words,
        .stops = 1,
        .help = "print a completion script for this shell",
    },
    {
        .names = "--man",
        .kind = VIBE_OPT_SET,
        .offset = AT(show),
        .value = VIBE_SHOW_MAN,
        .stops = 1,
        .help = "print the manual page; read it with: vibevoice --man | man -l "
                "-",
    },
    {
        .names = "-h",
        .kind = VIBE_OPT_SET,
        .offset = AT(show),
        .value = VIBE_SHOW_HELP_SHORT,
        .stops = 1,
        .is_everyday = 1,
        .help = "this short help",
    },
    {
        .names = "--help",
        .kind = VIBE_OPT_SET,
        .offset = AT(show),
        .value = VIBE_SHOW_HELP,
        .stops = 1,
        .is_everyday = 1,
        .help = "all options",
    },
    {
        .names = "--version -V",
        .kind = VIBE_OPT_SET,
        .offset = AT(show),
        .value = VIBE_SHOW_VERSION,
        .stops = 1,
        .help = "the version and what this build can do",
    },
};

const struct vibe_option_section vibe_message_options = {
    .title = "Messages and help",
    .rows = messages,
    .n = sizeof(messages) / sizeof(messages[0]),
};
