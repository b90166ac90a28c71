#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/log.h"
#include "tests/support/vibe_test.h"

struct fixture {
    struct vibe_log log;
    char *text; /* what was printed, after flush() */
    size_t n;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f)
        return -1;
    f->log.level = VIBE_LOG_INFO;
    f->log.out = open_memstream(&f->text, &f->n);
    *state = f;
    return f->log.out ? 0 : -1;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    fclose(f->log.out);
    free(f->text);
    free(f);
    return 0;
}

static void a_line_has_its_prefix(void **state)
{
    struct fixture *f = *state;

    vibe_log(&f->log, VIBE_LOG_WARN, "%s: is %d s long", "a.wav", 3);

    assert_string_equal(f->text, "vibevoice: warning: a.wav: is 3 s long\n");
}

static void what_is_not_wanted_is_not_printed(void **state)
{
    struct fixture *f = *state;

    vibe_log(&f->log, VIBE_LOG_DEBUG, "no one asked");
    fflush(f->log.out);

    assert_int_equal(f->n, 0);
}

/* A tensor's name may be any text. */
static void names_cannot_write_to_the_terminal(void **state)
{
    struct fixture *f = *state;

    vibe_log(&f->log, VIBE_LOG_ERROR, "no tensor %s",
             "a\033[2J\r\nb\x7f\xC2\x9B");

    assert_string_equal(f->text, "vibevoice: no tensor a?[2J??b???\n");
}

static void words_of_other_languages_stay(void **state)
{
    struct fixture *f = *state;

    vibe_log(&f->log, VIBE_LOG_ERROR, "%s", "\xC3\xA4\xE4\xBD\xA0\xC2\xA0");

    assert_string_equal(f->text, "vibevoice: \xC3\xA4\xE4\xBD\xA0\xC2\xA0\n");
}

static void a_log_file_gets_the_same_line_with_its_time(void **state)
{
    struct fixture *f = *state;
    char line[128] = "";

    f->log.file = tmpfile();
    assert_non_null(f->log.file);
    vibe_log(&f->log, VIBE_LOG_DEBUG, "a\tb");
    rewind(f->log.file);
    assert_non_null(fgets(line, sizeof(line), f->log.file));
    fclose(f->log.file);

    assert_string_equal(line + strlen("2026-11-21 16:53:07"), " debug: a?b\n");
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(a_line_has_its_prefix),
    VIBE_TEST(what_is_not_wanted_is_not_printed),
    VIBE_TEST(names_cannot_write_to_the_terminal),
    VIBE_TEST(words_of_other_languages_stay),
    VIBE_TEST(a_log_file_gets_the_same_line_with_its_time),
};

VIBE_TEST_MAIN(tests)
