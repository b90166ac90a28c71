#include <string.h>

#include "cli/help.h"
#include "cli/options.h"
#include "cli/options_value.h"

enum { NAME_LENGTH = 64 };

/* Print a row's spellings as a pattern of the shell's case: "--a|-b". */
static void print_pattern(FILE *out, const struct vibe_option *row)
{
    char spelling[NAME_LENGTH];
    const char *at = row->names;
    int is_first = 1;

    while (vibe_option_next_name(&at, spelling, sizeof(spelling))) {
        fprintf(out, "%s%s", is_first ? "" : "|", spelling);
        is_first = 0;
    }
}

/* The words that may follow a row's option: choices, folders, files. */
static void print_values(FILE *out, const struct vibe_option *row)
{
    fputs("    ", out);
    print_pattern(out, row);
    if (row->choices) {
        fputs(") words='", out);
        for (const struct vibe_choice *c = row->choices; c->word; c++)
            if (!c->is_alias)
                fprintf(out, "%s%s", c == row->choices ? "" : " ", c->word);
        fputs("' ;;\n", out);
    } else if (!row->files) {
        fputs(") return ;;\n", out);
    } else if (row->files[0] == '=') {
        fprintf(out, ") words='%s' ;;\n", row->files + 1);
    } else if (strcmp(row->files, "/") == 0) {
        fputs(") files='' ;;\n", out);
    } else if (strcmp(row->files, "*") == 0) {
        fputs(") files='*' ;;\n", out);
    } else {
        fputs(") files='*.@(", out);
        for (const char *c = row->files; *c; c++)
            fputc(*c == ' ' ? '|' : *c, out);
        fputs(")' ;;\n", out);
    }
}

static int takes_no_word(const struct vibe_option *row)
{
    return !vibe_option_takes_value(row);
}

static int takes_one_word(const struct vibe_option *row)
{
    return vibe_option_takes_value(row) && row->kind != VIBE_OPT_WORDS;
}

/* Print the spellings of all rows of a kind as one pattern. */
static void print_patterns(FILE *out,
                           int (*is_meant)(const struct vibe_option *row))
{
    const struct vibe_option *row;
    int is_first = 1;

    for (size_t i = 0; (row = vibe_option_at(i)); i++) {
        if (!is_meant(row))
            continue;
        fputs(is_first ? "" : "|", out);
        print_pattern(out, row);
        is_first = 0;
    }
}

/* The case that forgets an option whose word is complete. */
static void print_complete_options(FILE *out)
{
    fputs("    case $option in\n    ", out);
    print_patterns(out, takes_no_word);
    fputs(") option=--txt-path ;;\n    ", out);
    print_patterns(out, takes_one_word);
    fputs(") ((COMP_CWORD - i > 1)) && option=--txt-path ;;\n    esac\n", out);
}

void vibe_help_completion(FILE *out)
{
    const struct vibe_option *row;
    char name[NAME_LENGTH];

    fputs("# bash completion for vibevoice; load it with\n"
          "#   source <(vibevoice --completion bash)\n"
          "_vibevoice() {\n"
          "    local cur=${COMP_WORDS[COMP_CWORD]} option=--txt-path i word\n"
          "    local words='' files='' restore\n"
          "    COMPREPLY=()\n"
          "    if [[ $cur == -?* ]]; then\n"
          "        mapfile -t COMPREPLY < <(compgen -W '",
          out);
    for (size_t i = 0; (row = vibe_option_at(i)); i++)
        fprintf(out, "%s%s", i ? " " : "",
                vibe_option_name(row, name, sizeof(name)));
    fputs("' -- \"${cur//_/-}\")\n"
          "        return\n"
          "    fi\n"
          "    # The option that this word belongs to.\n"
          "    for ((i = COMP_CWORD - 1; i > 0; i--)); do\n"
          "        word=${COMP_WORDS[i]//_/-}\n"
          "        if [[ $word == -?* ]]; then\n"
          "            option=$word\n"
          "            break\n"
          "        fi\n"
          "    done\n",
          out);
    print_complete_options(out);
    fputs("    case $option in\n", out);
    for (size_t i = 0; (row = vibe_option_at(i)); i++)
        if (vibe_option_takes_value(row))
            print_values(out, row);
    fputs(
        "    *) return ;;\n"
        "    esac\n"
        "    if [[ -n $words ]]; then\n"
        "        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
        "        return\n"
        "    fi\n"
        "    restore=$(shopt -p extglob)\n"
        "    shopt -s extglob\n"
        "    mapfile -t COMPREPLY < <(compgen -d -- \"$cur\"\n"
        "        [[ -z $files ]] || compgen -f -X \"!$files\" -- \"$cur\")\n"
        "    $restore\n"
        "}\n"
        "complete -o filenames -F _vibevoice vibevoice\n",
        out);
}
