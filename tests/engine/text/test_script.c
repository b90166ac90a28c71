#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/error.h"
#include "engine/text/script.h"
#include "tests/support/vibe_test.h"

struct fixture {
    char path[64];
    struct vibe_script script;
    struct vibe_error err;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f)
        return -1;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    if (f->path[0])
        unlink(f->path);
    vibe_script_release(&f->script);
    free(f);
    return 0;
}

/* "speaker@line:text|speaker@line:text" of all turns, for one comparison. */
static void assert_turns(const struct fixture *f, const char *want)
{
    char got[512];
    size_t n = 0;

    for (size_t i = 0; i < f->script.n_turns; i++) {
        const struct vibe_turn *turn = &f->script.turns[i];

        n += (size_t)snprintf(got + n, sizeof(got) - n, "%s%d@%zu:%s",
                              i ? "|" : "", turn->speaker, turn->line,
                              turn->text);
    }
    assert_string_equal(got, want);
}

static void assert_text(struct fixture *f, const char *text, const char *want)
{
    vibe_script_release(&f->script);
    if (vibe_script_parse_text(&f->script, "x.txt", text, strlen(text),
                               &f->err))
        fail_msg("%s", f->err.msg);
    assert_turns(f, want);
}

static void assert_json(struct fixture *f, const char *text, const char *want)
{
    vibe_script_release(&f->script);
    if (vibe_script_parse_json(&f->script, "x.json", text, strlen(text),
                               &f->err))
        fail_msg("%s", f->err.msg);
    assert_turns(f, want);
}

static void assert_bad_text(struct fixture *f, const char *text, size_t n,
                            const char *says)
{
    assert_int_equal(
        vibe_script_parse_text(&f->script, "x.txt", text, n, &f->err),
        VIBE_E_FORMAT);
    assert_string_equal(f->err.msg, says);
    assert_null(f->script.turns); /* untouched on error */
}

static void assert_bad_json(struct fixture *f, const char *text,
                            const char *says)
{
    assert_int_equal(vibe_script_parse_json(&f->script, "x.json", text,
                                            strlen(text), &f->err),
                     VIBE_E_FORMAT);
    if (!strstr(f->err.msg, says))
        fail_msg("\"%s\" does not say \"%s\"", f->err.msg, says);
    assert_null(f->script.turns);
}

static void a_script_of_blanks_is_an_error(void **state)
{
    static const char *const blank[] = {"", " \n\t\r\n", "\xEF\xBB\xBF",
                                        "\xE3\x80\x80\n\xC2\xA0"};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(blank) / sizeof(*blank); i++)
        assert_bad_text(f, blank[i], strlen(blank[i]),
                        "x.txt: no \"Speaker N:\" lines and no text");
}

static void bad_bytes_are_named_by_their_offset(void **state)
{
    struct fixture *f = *state;

    assert_bad_text(f, "Speaker 1: \xFFhi", 14, "x.txt: not UTF-8 (byte 11)");
    assert_bad_text(f, "\xFF\xFEh\0i\0", 6,
                    "x.txt: UTF-16, expected UTF-8 (save it as that)");
    assert_bad_text(f, "\xFE\xFF\0h\0i", 6,
                    "x.txt: UTF-16, expected UTF-8 (save it as that)");
    assert_bad_text(f, "ab\0c\xFF", 5, "x.txt: not text (NUL at byte 2)");
}

static void a_speaker_out_of_range_is_named_by_its_line(void **state)
{
    static const char first[] = "Speaker 9999: a\n\nSpeaker 10000: b\n";
    static const char huge[] = "Speaker 99999999999999999999999: b\n";
    struct fixture *f = *state;

    assert_bad_text(f, first, strlen(first),
                    "x.txt: line 3: the speaker is not from 0 to 9999");
    assert_bad_text(f, huge, strlen(huge),
                    "x.txt: line 1: the speaker is not from 0 to 9999");
}

static void more_than_16_mib_is_an_error(void **state)
{
    const size_t n = VIBE_SCRIPT_MAX_BYTES + 1;
    struct fixture *f = *state;
    char *text = malloc(n);

    assert_non_null(text);
    memset(text, 'a', n);
    assert_bad_text(
        f, text, n,
        "x.txt: 16777217 bytes, more than the 16777216 a script may have");
    free(text);
}

static void headers_are_read_in_any_dress(void **state)
{
    struct fixture *f = *state;

    assert_text(f, "Speaker 1: a\nSPEAKER 2:b\n  speaker\t03 : c  \n",
                "1@1:a|2@2:b|3@3:c");
    assert_text(f, "Speaker\u30001\uFF1Aa\n\u3000sPeAkEr\u00A0\uFF12 \uFF1A b",
                "1@1:a|2@2:b");
    assert_text(f, "\uFEFFSpeaker 0: a\r\nSpeaker 1: b\r\n", "0@1:a|1@2:b");
}

static void what_is_no_header_is_text(void **state)
{
    struct fixture *f = *state;

    assert_text(f,
                "Speaker 1: a\nSpeaker1: b\nSpeaker x: c\nSpeaker 1 d\n"
                "Speakers 2: e\nSpeaker -1: f\nSpeak\nSpeaker\nSpeaker 2",
                "1@1:a Speaker1: b Speaker x: c Speaker 1 d Speakers 2: e "
                "Speaker -1: f Speak Speaker Speaker 2");
}

static void only_the_first_colon_separates(void **state)
{
    struct fixture *f = *state;

    assert_text(f, "Speaker 1: a: b\nSpeaker 2:: c", "1@1:a: b|2@2:: c");
    assert_text(f, "Speaker 1: Speaker 2: c", "1@1:Speaker 2: c");
}

static void other_lines_join_the_turn_above_by_one_space(void **state)
{
    struct fixture *f = *state;

    assert_text(f, "Speaker 1: a\n  b  c \n\n\t\nd\nSpeaker 2: e\rf\r\n\r\ng",
                "1@1:a b  c d|2@6:e f g");
}

static void lines_before_the_first_header_are_a_turn(void **state)
{
    struct fixture *f = *state;

    assert_text(f, "\na\nb\nSpeaker 3: c\nSpeaker 2: d", "2@2:a b|3@4:c|2@5:d");
}

static void a_text_without_headers_is_said_by_speaker_1(void **state)
{
    struct fixture *f = *state;

    assert_text(f, "Hello there.\n\nHow are you?\n",
                "1@1:Hello there. How are you?");
    assert_int_equal(vibe_script_number(&f->script, 1), 0);
}

static void an_empty_turn_is_kept(void **state)
{
    struct fixture *f = *state;

    assert_text(f,
                "Speaker 1:\nSpeaker 2: \nb\nSpeaker 3: ", "1@1:|2@2:b|3@4:");
}

static void turns_of_one_speaker_stay_apart(void **state)
{
    struct fixture *f = *state;

    assert_text(f, "Speaker 1: a\nSpeaker 1: b", "1@1:a|1@2:b");
}

static void text_is_kept_as_it_is_written(void **state)
{
    struct fixture *f = *state;

    assert_text(f, "Speaker 1: \u201Cd\u00E9ja\u0300\u201D  <|vision_start|>",
                "1@1:\u201Cd\u00E9ja\u0300\u201D  <|vision_start|>");
}

static void a_line_of_5_mb_is_one_turn(void **state)
{
    enum { N = 5000000 };
    struct fixture *f = *state;
    char *text = malloc(N + 16);

    assert_non_null(text);
    memcpy(text, "Speaker 1: ", 12);
    memset(text + 11, 'a', N);
    assert_int_equal(
        vibe_script_parse_text(&f->script, "x.txt", text, N + 11, &f->err),
        VIBE_OK);
    assert_int_equal(f->script.n_turns, 1);
    assert_int_equal(strlen(f->script.turns[0].text), N);
    free(text);
}

static void json_speakers_are_numbers_or_strings(void **state)
{
    struct fixture *f = *state;

    assert_json(f,
                "\xEF\xBB\xBF [{\"speaker\": \"1\", \"text\": \"a\"},\n"
                "{\"speaker\": 2, \"text\": \" b \", \"mood\": \"calm\"},"
                "{\"speaker\": \" 3 \", \"text\": \"\\u4f60\\u597d\"}]",
                "1@1:a|2@2:b|3@3:\u4F60\u597D");
}

static void json_line_breaks_join_by_one_space(void **state)
{
    struct fixture *f = *state;

    assert_json(f,
                "[{\"speaker\":0,\"text\":\"\\na\\r\\n\\n b\\nSpeaker 2: c\"}]",
                "0@1:a b Speaker 2: c");
}

static void json_objects_with_blank_text_are_counted(void **state)
{
    struct fixture *f = *state;

    assert_json(
        f,
        "[{\"speaker\":2,\"text\":\"a\"},{\"speaker\":1,\"text\":\" \"},"
        "{\"speaker\":2,\"text\":\"\"}]",
        "2@1:a");
    assert_int_equal(f->script.n_skipped, 2);
    assert_int_equal(f->script.lowest, 2);
}

static void json_of_another_form_is_an_error(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "x.json:1:"},
        {"[{\"speaker\":1,\"text\":\"a\"}] x", "x.json:1:"},
        {"[\n{\"speaker\":1 \"text\":\"a\"}]", "x.json:2:"},
        {"[{\"speaker\":1,\"text\":\"a\",\"text\":\"b\"}]", "duplicate"},
        {"[{\"speaker\":1,\"text\":\"a\\u0000b\"}]", "x.json:1:"},
        {"{\"speaker\":1,\"text\":\"a\"}", "x.json: not a list of"},
        {"[]", "x.json: no entry has any text"},
        {"[{\"speaker\":1,\"text\":\"\"}]", "x.json: no entry has any text"},
        {"[7]", "entry 1: no \"speaker\" that is a number"},
        {"[{\"text\":\"a\"}]", "entry 1: no \"speaker\" that is a number"},
        {"[{\"speaker\":\"Bob\",\"text\":\"a\"}]", "entry 1: no \"speaker\""},
        {"[{\"speaker\":\"\",\"text\":\"a\"}]", "entry 1: no \"speaker\""},
        {"[{\"speaker\":\"1 2\",\"text\":\"a\"}]", "entry 1: no \"speaker\""},
        {"[{\"speaker\":1.5,\"text\":\"a\"}]", "entry 1: no \"speaker\""},
        {"[{\"speaker\":-1,\"text\":\"a\"}]",
         "entry 1: the speaker is not from 0 to 9999"},
        {"[{\"speaker\":\"10000\",\"text\":\"a\"}]",
         "entry 1: the speaker is not from 0 to 9999"},
        {"[{\"speaker\":1,\"text\":\"a\"},{\"speaker\":1}]",
         "entry 2: no \"text\" that is a string"},
        {"[{\"speaker\":1,\"text\":null}]", "entry 1: no \"text\""},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        assert_bad_json(f, cases[i].text, cases[i].says);
}

/* spec: 1 is subtracted when the lowest id is above 0; gaps are kept. */
static void numbers_begin_at_0_and_keep_their_gaps(void **state)
{
    struct fixture *f = *state;

    assert_text(f, "Speaker 5: a\nSpeaker 2: b", "5@1:a|2@2:b");
    assert_int_equal(vibe_script_number(&f->script, 2), 1);
    assert_int_equal(vibe_script_number(&f->script, 5), 4);
    assert_text(f, "Speaker 3: a\nSpeaker 0: b", "3@1:a|0@2:b");
    assert_int_equal(vibe_script_number(&f->script, 0), 0);
    assert_int_equal(vibe_script_number(&f->script, 3), 3);
}

static void speakers_are_listed_once_and_ascending(void **state)
{
    struct fixture *f = *state;
    int ids[4] = {-1, -1, -1, -1};

    assert_text(f, "Speaker 7: a\nSpeaker 9999: b\nSpeaker 0: c\nSpeaker 7: d",
                "7@1:a|9999@2:b|0@3:c|7@4:d");
    assert_int_equal(vibe_script_speakers(&f->script, ids, 4), 3);
    assert_int_equal(ids[0], 0);
    assert_int_equal(ids[1], 7);
    assert_int_equal(ids[2], 9999);
    assert_int_equal(ids[3], -1);

    ids[1] = -1;
    assert_int_equal(vibe_script_speakers(&f->script, ids, 1), 3);
    assert_int_equal(ids[1], -1);
    assert_int_equal(vibe_script_speakers(&f->script, NULL, 0), 3);
}

static void write_script(struct fixture *f, const char *ending,
                         const char *text)
{
    FILE *file;

    if (f->path[0])
        unlink(f->path);
    snprintf(f->path, sizeof(f->path), "/tmp/vibe_test_script.%ld%s",
             (long)getpid(), ending);
    file = fopen(f->path, "wb");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void read_tells_json_by_the_name(void **state)
{
    struct fixture *f = *state;

    write_script(f, ".JSON", "[{\"speaker\":3,\"text\":\"a\"}]");
    assert_int_equal(vibe_script_read(&f->script, f->path, &f->err), VIBE_OK);
    assert_turns(f, "3@1:a");

    vibe_script_release(&f->script);
    write_script(f, ".txt", "[{\"speaker\":3}]");
    assert_int_equal(vibe_script_read(&f->script, f->path, &f->err), VIBE_OK);
    assert_turns(f, "1@1:[{\"speaker\":3}]");
}

static void read_tells_json_on_standard_input_by_its_form(void **state)
{
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"\n [{\"speaker\":3,\"text\":\"a\"}]\n", "3@1:a"},
        {"[sighs] Well.\n", "1@1:[sighs] Well."},
        {"Speaker 2: a\n", "2@1:a"},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        write_script(f, "", cases[i].text);
        assert_non_null(freopen(f->path, "rb", stdin));
        vibe_script_release(&f->script);
        assert_int_equal(vibe_script_read(&f->script, "-", &f->err), VIBE_OK);
        assert_turns(f, cases[i].want);
    }
}

static void read_names_what_it_cannot_read(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(vibe_script_read(&f->script, "/no/x.txt", &f->err),
                     VIBE_E_IO);
    assert_string_equal(f->err.msg, "/no/x.txt: No such file or directory");

    write_script(f, "", " \n");
    assert_non_null(freopen(f->path, "rb", stdin));
    assert_int_equal(vibe_script_read(&f->script, "-", &f->err), VIBE_E_FORMAT);
    assert_string_equal(f->err.msg,
                        "standard input: no \"Speaker N:\" lines and no text");
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(a_script_of_blanks_is_an_error),
    VIBE_TEST(bad_bytes_are_named_by_their_offset),
    VIBE_TEST(a_speaker_out_of_range_is_named_by_its_line),
    VIBE_TEST(more_than_16_mib_is_an_error),
    VIBE_TEST(headers_are_read_in_any_dress),
    VIBE_TEST(what_is_no_header_is_text),
    VIBE_TEST(only_the_first_colon_separates),
    VIBE_TEST(other_lines_join_the_turn_above_by_one_space),
    VIBE_TEST(lines_before_the_first_header_are_a_turn),
    VIBE_TEST(a_text_without_headers_is_said_by_speaker_1),
    VIBE_TEST(an_empty_turn_is_kept),
    VIBE_TEST(turns_of_one_speaker_stay_apart),
    VIBE_TEST(text_is_kept_as_it_is_written),
    VIBE_TEST(a_line_of_5_mb_is_one_turn),
    VIBE_TEST(json_speakers_are_numbers_or_strings),
    VIBE_TEST(json_line_breaks_join_by_one_space),
    VIBE_TEST(json_objects_with_blank_text_are_counted),
    VIBE_TEST(json_of_another_form_is_an_error),
    VIBE_TEST(numbers_begin_at_0_and_keep_their_gaps),
    VIBE_TEST(speakers_are_listed_once_and_ascending),
    VIBE_TEST(read_tells_json_by_the_name),
    VIBE_TEST(read_tells_json_on_standard_input_by_its_form),
    VIBE_TEST(read_names_what_it_cannot_read),
};

VIBE_TEST_MAIN(tests)
