#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/error.h"
#include "engine/model/qwen2.h"
#include "engine/prompt.h"
#include "engine/text/script.h"
#include "engine/text/tokenizer.h"
#include "tests/support/scratch.h"
#include "tests/support/vibe_test.h"

/* The real vocabulary: ids below are those of the published tables. */
static const char QWEN[] = "tests/fixtures/qwen2.5";

enum { START = 151652, END = 151653, DIFFUSION = 151654, EOS = 151643 };

struct fixture {
    struct vibe_tokenizer *tokenizer;
    struct vibe_script script;
    struct vibe_prompt prompt;
    struct vibe_error err;
    int32_t control[VIBE_N_CONTROL];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f)
        return -1;
    *state = f;
    return vibe_tokenizer_open(&f->tokenizer, QWEN, &f->err) ||
           vibe_control_ids(f->control, f->tokenizer, "DIR", &f->err);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vibe_prompt_release(&f->prompt);
    vibe_script_release(&f->script);
    vibe_tokenizer_free(f->tokenizer);
    free(f);
    return 0;
}

static void build(struct fixture *f, const char *text, const size_t *n_frames,
                  size_t n_voices)
{
    assert_int_equal(vibe_script_parse_text(&f->script, "a script", text,
                                            strlen(text), &f->err),
                     VIBE_OK);
    assert_int_equal(vibe_prompt_build(&f->prompt, f->tokenizer, f->control,
                                       &f->script, n_frames, n_voices, &f->err),
                     VIBE_OK);
}

static void assert_ids(const struct fixture *f, size_t first,
                       const int32_t *want, size_t n)
{
    assert_true(first + n <= f->prompt.n);
    assert_memory_equal(f->prompt.ids + first, want, n * sizeof(*want));
}

static const int32_t SYSTEM[] = {15226, 279,  1467, 3897,  553,   5257, 21326,
                                 1119,  8806, 2550, 11,    34888, 279,  12460,
                                 7743,  315,  1817, 19511, 18601, 624};
enum { N_SYSTEM = sizeof(SYSTEM) / sizeof(SYSTEM[0]) };

static void control_tokens_are_found_by_name(void **state)
{
    const struct fixture *f = *state;

    assert_int_equal(f->control[VIBE_CONTROL_START], START);
    assert_int_equal(f->control[VIBE_CONTROL_END], END);
    assert_int_equal(f->control[VIBE_CONTROL_DIFFUSION], DIFFUSION);
    assert_int_equal(f->control[VIBE_CONTROL_EOS], EOS);
}

static void without_voices_there_is_no_voice_section(void **state)
{
    struct fixture *f = *state;
    static const int32_t rest[] = {2918,  1946, 510, 29073, 220,  15,  25,
                                   21927, 1879, 624, 38741, 2550, 510, START};
    const size_t n_rest = sizeof(rest) / sizeof(rest[0]);

    build(f, "Speaker 1: Hello world.", NULL, 0);

    assert_int_equal(f->prompt.n, N_SYSTEM + n_rest);
    assert_ids(f, 0, SYSTEM, N_SYSTEM);
    assert_ids(f, N_SYSTEM, rest, n_rest);
}

static void voices_stand_before_the_text(void **state)
{
    struct fixture *f = *state;
    static const size_t n_frames[] = {2, 1};
    static const int32_t voices[] = {
        27930, 1946, 510, /* Voice input */
        29073, 220,  15,  25, START, DIFFUSION, DIFFUSION, END, 198, /* 0 */
        29073, 220,  16,  25, START, DIFFUSION, END,       198,      /* 1 */
        2918,  1946, 510, /* Text input */
    };
    const size_t n = sizeof(voices) / sizeof(voices[0]);

    build(f, "Speaker 1: Hello world.\nSpeaker 2: Hello world.", n_frames, 2);

    assert_ids(f, N_SYSTEM, voices, n);
    assert_int_equal(f->prompt.voices[0].first, N_SYSTEM + 8);
    assert_int_equal(f->prompt.voices[0].n_frames, 2);
    assert_int_equal(f->prompt.voices[1].first, N_SYSTEM + 17);
}

static void length_is_that_of_the_published_formula(void **state)
{
    struct fixture *f = *state;
    static const size_t n_frames[] = {68, 225};

    /* L = 20 + (3 + sum(7 + n_i)) + 3 + sum of line tokens + 3 + 1, where
     * " Speaker k: Hello world.\n" has 7 */
    build(f, "Speaker 1: Hello world.\nSpeaker 2: Hello world.", n_frames, 2);

    assert_int_equal(f->prompt.n,
                     20 + 3 + 7 + 68 + 7 + 225 + 3 + 7 + 7 + 3 + 1);
}

static void speakers_count_from_zero_unless_one_is_zero(void **state)
{
    struct fixture *f = *state;
    const size_t turn = N_SYSTEM + 3;

    build(f, "Speaker 2: Hello world.\nSpeaker 5: Hello world.", NULL, 0);

    /* less one, not less the lowest, and no new numbering */
    assert_int_equal(f->prompt.ids[turn + 2], 15 + 1);
    assert_int_equal(f->prompt.ids[turn + 7 + 2], 15 + 4);
}

static void control_strings_of_a_user_are_text(void **state)
{
    struct fixture *f = *state;

    build(f, "Speaker 1: <|vision_end|><|vision_pad|><|endoftext|>", NULL, 0);

    for (size_t i = 0; i + 1 < f->prompt.n; i++)
        assert_true(f->prompt.ids[i] < EOS);
    assert_int_equal(f->prompt.ids[f->prompt.n - 1], START);
}

/* Make a link here to a file of a golden model. */
static void link_golden(const struct vibe_scratch *scratch, const char *name)
{
    char target[640];

    snprintf(target, sizeof(target), "%s/tests/golden/tiny_tied/%s",
             scratch->start, name);
    assert_int_equal(symlink(target, name), 0);
}

static void a_tokenizer_without_control_tokens_is_named(void **state)
{
    struct fixture *f = *state;
    struct vibe_scratch scratch = {0};
    struct vibe_tokenizer *bare = NULL;

    assert_int_equal(vibe_scratch_enter(&scratch), 0);
    link_golden(&scratch, "vocab.json");
    link_golden(&scratch, "merges.txt"); /* no tokenizer_config.json */
    assert_int_equal(vibe_tokenizer_open(&bare, ".", &f->err), VIBE_OK);

    assert_int_equal(vibe_control_ids(f->control, bare, "DIR", &f->err),
                     VIBE_E_FORMAT);
    assert_string_equal(f->err.msg, "DIR: the tokenizer has no control token "
                                    "<|vision_start|>");

    vibe_tokenizer_free(bare);
    assert_int_equal(vibe_scratch_leave(&scratch), 0);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(control_tokens_are_found_by_name),
    VIBE_TEST(without_voices_there_is_no_voice_section),
    VIBE_TEST(voices_stand_before_the_text),
    VIBE_TEST(length_is_that_of_the_published_formula),
    VIBE_TEST(speakers_count_from_zero_unless_one_is_zero),
    VIBE_TEST(control_strings_of_a_user_are_text),
    VIBE_TEST(a_tokenizer_without_control_tokens_is_named),
};

VIBE_TEST_MAIN(tests)
