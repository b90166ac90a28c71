#include <string.h>

#include "cli/chunks.h"
#include "engine/base/error.h"
#include "engine/text/script.h"
#include "tests/support/vibe_test.h"

struct fixture {
    struct vibe_script script;
    struct vibe_chunks chunks;
    struct vibe_error err;
};

static struct fixture fixture;

static int setup(void **state)
{
    memset(&fixture, 0, sizeof(fixture));
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vibe_chunks_release(&f->chunks);
    vibe_script_release(&f->script);
    return 0;
}

static void divide(struct fixture *f, const char *text, double minutes)
{
    assert_int_equal(vibe_script_parse_text(&f->script, "a script", text,
                                            strlen(text), &f->err),
                     VIBE_OK);
    assert_int_equal(vibe_chunks_plan(&f->chunks, &f->script, minutes, &f->err),
                     VIBE_OK);
}

/* Four turns of 45 letters: 3 s each. */
static const char
    four[] = "Speaker 2: aaaaaaaaa aaaaaaaaa aaaaaaaaa aaaaaaaaa aaaaa\n"
             "Speaker 1: bbbbbbbbb bbbbbbbbb bbbbbbbbb bbbbbbbbb bbbbb\n"
             "Speaker 2: ccccccccc ccccccccc ccccccccc ccccccccc ccccc\n"
             "Speaker 1: ddddddddd ddddddddd ddddddddd ddddddddd ddddd\n";

static void without_minutes_there_is_one_part(void **state)
{
    struct fixture *f = *state;

    divide(f, four, 0);

    assert_int_equal(f->chunks.n, 1);
    assert_int_equal(vibe_chunks_part(&f->chunks, &f->script, 0).n_turns, 4);
}

static void parts_end_with_turns(void **state)
{
    struct fixture *f = *state;
    struct vibe_script part;

    divide(f, four, 0.11); /* 6.6 s */

    assert_int_equal(f->chunks.n, 2);
    part = vibe_chunks_part(&f->chunks, &f->script, 1);
    assert_int_equal(part.n_turns, 2);
    assert_int_equal(part.turns[0].text[0], 'c');
    assert_int_equal(part.lowest, 1);
}

static void a_turn_longer_than_a_part_is_one(void **state)
{
    struct fixture *f = *state;

    divide(f, four, 0.01);

    assert_int_equal(f->chunks.n, 4);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(vibe_chunks_part(&f->chunks, &f->script, i).n_turns,
                         1);
}

static void a_chinese_character_takes_as_long_as_a_syllable(void **state)
{
    (void)state;
    assert_float_equal(vibe_chunks_seconds("\xe4\xbd\xa0\xe5\xa5\xbd"), 0.5,
                       1e-9);
    assert_float_equal(vibe_chunks_seconds("caf\xc3\xa9"), 4.0 / 15, 1e-9);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(without_minutes_there_is_one_part),
    VIBE_TEST(parts_end_with_turns),
    VIBE_TEST(a_turn_longer_than_a_part_is_one),
    VIBE_TEST(a_chinese_character_takes_as_long_as_a_syllable),
};

VIBE_TEST_MAIN(tests)
