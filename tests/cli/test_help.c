#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/help.h"
#include "cli/options.h"
#include "cli/version.h"
#include "tests/support/vibe_test.h"

struct fixture {
    char *text; /* what was printed */
    size_t n;
};

static int setup(void **state)
{
    *state = calloc(1, sizeof(struct fixture));
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    free(f->text);
    free(f);
    return 0;
}

static void print(struct fixture *f, void (*help)(FILE *out))
{
    FILE *out = open_memstream(&f->text, &f->n);

    assert_non_null(out);
    help(out);
    assert_int_equal(fclose(out), 0);
}

/* Is a spelling there as a word of its own? */
static int has_word(const char *text, const char *word)
{
    size_t n = strlen(word);

    for (const char *at = strstr(text, word); at; at = strstr(at + 1, word))
        if (at > text && !strchr("-abcdefghijklmnopqrstuvwxyz", at[-1]) &&
            !strchr("-abcdefghijklmnopqrstuvwxyz", at[n]))
            return 1;
    return 0;
}

/* Fail unless every spelling is printed, with its dashes written as dash. */
static void assert_has_all(const char *text, const char *dash)
{
    const struct vibe_option *row;

    for (size_t i = 0; (row = vibe_option_at(i)); i++) {
        const char *at = row->names;
        char name[64], escaped[160];

        while (vibe_option_next_name(&at, name, sizeof(name))) {
            size_t n = 0;

            for (const char *c = name; *c; c++)
                n += (size_t)snprintf(escaped + n, sizeof(escaped) - n, "%s",
                                      *c == '-' ? dash : (char[]){*c, '\0'});
            if (!has_word(text, escaped))
                fail_msg("%s is not mentioned", escaped);
        }
    }
}

static void full_help_mentions_every_name(void **state)
{
    struct fixture *f = *state;

    print(f, vibe_help_full);
    assert_has_all(f->text, "-");
}

static void manual_page_mentions_every_name(void **state)
{
    struct fixture *f = *state;

    print(f, vibe_help_man);
    assert_has_all(f->text, "\\-");
}

static void completion_mentions_every_name(void **state)
{
    struct fixture *f = *state;

    print(f, vibe_help_completion);
    assert_has_all(f->text, "-");
}

static void help_shows_ranges_and_defaults_of_the_table(void **state)
{
    struct fixture *f = *state;
    const struct vibe_option *row;

    print(f, vibe_help_full);
    for (size_t i = 0; (row = vibe_option_at(i)); i++) {
        char shown[64];

        if (!row->def)
            continue;
        snprintf(shown, sizeof(shown), "%s", row->def);
        assert_non_null(strstr(f->text, shown));
    }
    assert_non_null(strstr(f->text, "[1 to 1000; default"));
}

/* Eighty columns, of which terminals may need the last. */
static void help_fits_a_terminal(void **state)
{
    struct fixture *f = *state;

    print(f, vibe_help_full);
    for (const char *line = f->text; *line;) {
        size_t n = strcspn(line, "\n");

        assert_in_range(n, 0, 79);
        line += n + (line[n] == '\n');
    }
}

static void short_help_is_short(void **state)
{
    struct fixture *f = *state;
    const struct vibe_option *row;
    size_t n_lines = 0, n_everyday = 0;

    print(f, vibe_help_short);
    for (const char *c = f->text; *c; c++)
        n_lines += *c == '\n';
    for (size_t i = 0; (row = vibe_option_at(i)); i++)
        n_everyday += row->is_everyday != 0;
    assert_in_range(n_everyday, 10, 17);
    assert_in_range(n_lines, 20, 60); /* little more than one screen */
}

static void version_begins_with_two_stable_words(void **state)
{
    struct fixture *f = *state;
    static const char expected[] = "vibevoice " VIBE_VERSION " (";

    print(f, vibe_help_version);
    assert_memory_equal(f->text, expected, sizeof(expected) - 1);
    assert_ptr_equal(strchr(f->text, '\n'), f->text + f->n - 1);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(full_help_mentions_every_name),
    VIBE_TEST(manual_page_mentions_every_name),
    VIBE_TEST(completion_mentions_every_name),
    VIBE_TEST(help_shows_ranges_and_defaults_of_the_table),
    VIBE_TEST(help_fits_a_terminal),
    VIBE_TEST(short_help_is_short),
    VIBE_TEST(version_begins_with_two_stable_words),
};

VIBE_TEST_MAIN(tests)
