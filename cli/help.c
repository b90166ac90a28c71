#include "cli/help.h"

#include <sndfile.h>
#include <string.h>

#include "cli/exit.h"
#include "cli/options.h"
#include "cli/options_value.h"
#include "cli/version.h"
#include "engine/vibevoice.h"

enum {
    WIDTH = 80,
    TEXT_COLUMN = 26, /* where descriptions start */
    NAME_LENGTH = 64,
    TEXT_MAX = 1024,
};

static const struct {
    const char *what, *how;
} examples[] = {
    {"Two voices for the two speakers of a script, to dialogue_generated.wav:",
     "vibevoice --model models/1.5b --txt-path dialogue.txt \\\n"
     "            --voice-files alice.wav frank.wav"},
    {"One sentence, with a voice that the model invents:",
     "vibevoice -m models/1.5b --text \"Good morning.\" -o morning.wav"},
    {"Hear it while it is made:",
     "vibevoice -m models/1.5b -f dialogue.txt -o - --format raw |\n"
     "            aplay -t raw -f S16_LE -r 24000 -c 1"},
};

static const char
    usage[] = "vibevoice -m MODEL -f SCRIPT... [-r VOICE...] [OPTION...]";

static const char
    summary[] = "Make speech from a script, with the voices of recordings.";

/* Add to a text of at most size bytes; n is its length so far. */
static size_t add(char *text, size_t size, size_t n, const char *more)
{
    size_t length = strlen(more);

    if (n + length >= size)
        length = size - 1 - n;
    memcpy(text + n, more, length);
    text[n + length] = '\0';
    return n + length;
}

/* "-f, --txt-path FILE...": letters first, no aliases. */
static void write_heading(char *text, size_t size,
                          const struct vibe_option *row)
{
    char spelling[NAME_LENGTH], name[NAME_LENGTH];
    const char *at = row->names;
    size_t n = add(text, size, 0, "");

    vibe_option_name(row, name, sizeof(name));
    while (vibe_option_next_name(&at, spelling, sizeof(spelling))) {
        if (spelling[1] == '-' || strcmp(spelling, name) == 0)
            continue;
        n = add(text, size, n, spelling);
        n = add(text, size, n, ", ");
    }
    n = add(text, size, n, name);
    if (row->meta) {
        n = add(text, size, n, " ");
        add(text, size, n, row->meta);
    }
}

/* Add a remark to the bracket that ends a description, opening it first. */
static size_t add_remark(char *text, size_t size, size_t n, int *is_open,
                         const char *label, const char *value)
{
    n = add(text, size, n, *is_open ? "; " : " [");
    *is_open = 1;
    n = add(text, size, n, label);
    return add(text, size, n, value);
}

static void write_choices(char *text, size_t size,
                          const struct vibe_choice *choices)
{
    size_t n = add(text, size, 0, "");

    for (const struct vibe_choice *c = choices; c->word; c++) {
        if (c->is_alias)
            continue;
        n = add(text, size, n, n ? ", " : "");
        n = add(text, size, n, c->word);
    }
}

/* The long spellings beside the first, after "also ". */
static size_t add_aliases(char *text, size_t size, size_t n, int *is_open,
                          const struct vibe_option *row)
{
    char spelling[NAME_LENGTH], name[NAME_LENGTH];
    const char *at = row->names, *label = "also ";

    vibe_option_name(row, name, sizeof(name));
    while (vibe_option_next_name(&at, spelling, sizeof(spelling))) {
        if (spelling[1] != '-' || strcmp(spelling, name) == 0)
            continue;
        if (*label) {
            n = add_remark(text, size, n, is_open, label, spelling);
        } else {
            n = add(text, size, n, ", ");
            n = add(text, size, n, spelling);
        }
        label = "";
    }
    return n;
}

/* "diffusion steps for each frame [1 to 1000; default 10; also ...]". */
static void write_description(char *text, size_t size,
                              const struct vibe_option *row)
{
    char range[160];
    size_t n = add(text, size, 0, row->help);
    int is_open = 0;

    if (row->kind == VIBE_OPT_INT || row->kind == VIBE_OPT_FLOAT)
        n = add_remark(text, size, n, &is_open, "",
                       vibe_option_range(row, range, sizeof(range)));
    if (row->note)
        n = add_remark(text, size, n, &is_open, "", row->note);
    if (row->kind == VIBE_OPT_CHOICE) {
        write_choices(range, sizeof(range), row->choices);
        n = add_remark(text, size, n, &is_open, "", range);
    }
    if (row->def)
        n = add_remark(text, size, n, &is_open, "default ", row->def);
    n = add_aliases(text, size, n, &is_open, row);
    if (is_open)
        add(text, size, n, "]");
}

/* Print words between two columns, starting where the cursor is. */
static void print_wrapped(FILE *out, const char *text, size_t at, size_t column)
{
    int is_first = 1;

    while (*text) {
        size_t n = strcspn(text, " ");

        if (!is_first && at + 1 + n > WIDTH - 1) {
            fprintf(out, "\n%*s", (int)column, "");
            at = column;
        } else if (!is_first) {
            fputc(' ', out);
            at++;
        }
        fprintf(out, "%.*s", (int)n, text);
        at += n;
        text += n;
        text += strspn(text, " ");
        is_first = 0;
    }
    fputc('\n', out);
}

/* Print one entry of a two-column list. */
static void print_entry(FILE *out, const char *heading, const char *text)
{
    size_t at = 2 + strlen(heading);

    fprintf(out, "  %s", heading);
    if (at + 2 > TEXT_COLUMN)
        fprintf(out, "\n%*s", TEXT_COLUMN, "");
    else
        fprintf(out, "%*s", (int)(TEXT_COLUMN - at), "");
    print_wrapped(out, text, TEXT_COLUMN, TEXT_COLUMN);
}

static void print_option(FILE *out, const struct vibe_option *row)
{
    char heading[TEXT_MAX], text[TEXT_MAX];

    write_heading(heading, sizeof(heading), row);
    write_description(text, sizeof(text), row);
    print_entry(out, heading, text);
}

static void print_examples(FILE *out)
{
    fputs("\nExamples:\n", out);
    for (size_t i = 0; i < sizeof(examples) / sizeof(examples[0]); i++)
        fprintf(out, "  %s\n    %s\n", examples[i].what, examples[i].how);
}

void vibe_help_short(FILE *out)
{
    const struct vibe_option *row;

    fprintf(out, "Usage: %s\n\n%s\n\n", usage, summary);
    for (size_t i = 0; (row = vibe_option_at(i)); i++)
        if (row->is_everyday)
            print_option(out, row);
    print_examples(out);
}

void vibe_help_full(FILE *out)
{
    const struct vibe_option_section *const *section = vibe_option_sections;

    fprintf(out, "Usage: %s\n\n%s\n", usage, summary);
    for (; *section; section++) {
        fprintf(out, "\n%s:\n", (*section)->title);
        for (size_t i = 0; i < (*section)->n; i++)
            print_option(out, &(*section)->rows[i]);
    }
    fputs("\nIn option names _ and - are the same.  Every option can also be "
          "set as\nVIBEVOICE_<OPTION> in the environment, or in an options "
          "file.\n\nExit status:\n",
          out);
    for (size_t i = 0; i < vibe_exit_n_meanings; i++) {
        char code[8];

        snprintf(code, sizeof(code), "%3d", vibe_exit_meanings[i].code);
        print_entry(out, code, vibe_exit_meanings[i].meaning);
    }
    print_examples(out);
}

/* Print text for troff: '-' is a minus sign, no line starts a request. */
static void print_troff(FILE *out, const char *text)
{
    int is_line_start = 1;

    for (; *text; text++) {
        if (is_line_start && (*text == '.' || *text == '\''))
            fputs("\\&", out);
        if (*text == '-')
            fputs("\\-", out);
        else if (*text == '\\')
            fputs("\\e", out);
        else
            fputc(*text, out);
        is_line_start = *text == '\n';
    }
}

static void print_man_option(FILE *out, const struct vibe_option *row)
{
    char heading[TEXT_MAX], text[TEXT_MAX];

    write_heading(heading, sizeof(heading), row);
    write_description(text, sizeof(text), row);
    fputs(".TP\n.B ", out);
    print_troff(out, heading);
    fputc('\n', out);
    print_troff(out, text);
    fputs(".\n", out);
}

static void print_man_options(FILE *out)
{
    const struct vibe_option_section *const *section = vibe_option_sections;

    for (; *section; section++) {
        fprintf(out, ".SS %s\n", (*section)->title);
        for (size_t i = 0; i < (*section)->n; i++)
            print_man_option(out, &(*section)->rows[i]);
    }
}

static void print_man_endings(FILE *out)
{
    fputs(".SH EXIT STATUS\n", out);
    for (size_t i = 0; i < vibe_exit_n_meanings; i++) {
        fprintf(out, ".TP\n.B %d\n", vibe_exit_meanings[i].code);
        print_troff(out, vibe_exit_meanings[i].meaning);
        fputs(".\n", out);
    }
    fputs(".SH ENVIRONMENT\n"
          ".TP\n.BR VIBEVOICE_ OPTION\n"
          "The value of any option that takes one, or 1 for one that does "
          "not:\n.B VIBEVOICE_CFG_SCALE=1.5\nis\n.BR \"\\-\\-cfg\\-scale "
          "1.5\" .\nLists have one word per line.\n"
          ".TP\n.B VIBEVOICE_CONFIG_PATH\n"
          "An options file, unless\n.B \\-\\-options\nnames another.\n"
          ".TP\n.B NO_COLOR\nNo colour in messages.\n"
          ".PP\nThe command line wins over the environment, which wins over "
          "the options file.\n"
          ".SH EXAMPLES\n",
          out);
    for (size_t i = 0; i < sizeof(examples) / sizeof(examples[0]); i++) {
        print_troff(out, examples[i].what);
        fputs("\n.PP\n.nf\n.RS\n", out);
        print_troff(out, examples[i].how);
        fputs("\n.RE\n.fi\n.PP\n", out);
    }
}

void vibe_help_man(FILE *out)
{
    fprintf(out, ".TH VIBEVOICE 1 \"\" \"vibevoice %s\" \"User Commands\"\n",
            VIBE_VERSION);
    fputs(".SH NAME\nvibevoice \\- make speech from a script\n.SH SYNOPSIS\n",
          out);
    print_troff(out, usage);
    fputs("\n.SH DESCRIPTION\n"
          "Speaks scripts with the VibeVoice models: a dialogue of up to four "
          "speakers, whose voices are taken from recordings.\n"
          ".PP\nA file appears under its final name only when it is complete. "
          "While it grows it is\n.IR NAME.part.wav ,\nwhich can be played at "
          "any moment.\nThe path of each finished file is printed on standard "
          "output.\n"
          ".PP\nIn option names _ and \\- are the same; a value may follow its "
          "option or an equals sign; \\-\\- ends the options.\n"
          ".SH OPTIONS\n",
          out);
    print_man_options(out);
    print_man_endings(out);
}

void vibe_help_version(FILE *out)
{
    /* "libsndfile-1.2.0" */
    const char *sndfile = strrchr(sf_version_string(), '-');
    char build[256];

    fprintf(out, "vibevoice %s (%s; sndfile %s)\n", VIBE_VERSION,
            vibe_describe_build(build, sizeof(build)),
            sndfile ? sndfile + 1 : "unknown");
}
