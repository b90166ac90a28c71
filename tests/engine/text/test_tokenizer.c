/*
 * The tokenizer on a vocabulary of 256 bytes, whose ids are their values, and
 * the few entries that a test adds to them; damaged files above all.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utf8proc.h>

#include "engine/base/error.h"
#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_build.h"
#include "tests/support/vibe_test.h"

struct fixture {
    char dir[64];
    char *bytes; /* the 256 members that every vocabulary begins with */
    struct vibe_tokenizer *tokenizer;
    struct vibe_ids got;
    struct vibe_error err;
};

static char *byte_members(void)
{
    char *text = malloc(4096);
    size_t n = 0;

    for (int byte = 0; text && byte < 256; byte++) {
        uint32_t cp = vibe_vocab_byte_char((unsigned char)byte);
        utf8proc_uint8_t utf8[5] = {0};

        utf8proc_encode_char((utf8proc_int32_t)cp, utf8);
        n += (size_t)sprintf(text + n, "%s\"%s%s\":%d", byte ? "," : "",
                             byte == '"' || byte == '\\' ? "\\" : "",
                             (const char *)utf8, byte);
    }
    return text;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f)
        return -1;
    *state = f;
    f->bytes = byte_members();
    snprintf(f->dir, sizeof(f->dir), "/tmp/vibe_test_tokenizer.XXXXXX");
    return f->bytes && mkdtemp(f->dir) ? 0 : -1;
}

static void remove_files(const char *dir)
{
    static const char *const names[] = {"tokenizer.json", "vocab.json",
                                        "merges.txt", "tokenizer_config.json"};
    char path[128];

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        unlink(path);
    }
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    remove_files(f->dir);
    rmdir(f->dir);
    vibe_tokenizer_free(f->tokenizer);
    vibe_ids_release(&f->got);
    free(f->bytes);
    free(f);
    return 0;
}

static struct vibe_text_file in_memory(const char *name, const char *data)
{
    return (struct vibe_text_file){name, data, data ? strlen(data) : 0};
}

/* Parse vocab.json with these members, merges.txt and perhaps a config. */
static int parse_pair(struct fixture *f, const char *members,
                      const char *merges, const char *config)
{
    struct vibe_tokenizer_files files = {
        .merges = in_memory("merges.txt", merges),
        .config = in_memory("tokenizer_config.json", config),
    };
    char *vocab = NULL;
    int rc;

    assert_true(asprintf(&vocab, "{%s}", members) > 0);
    files.vocab = in_memory("vocab.json", vocab);
    vibe_tokenizer_free(f->tokenizer);
    rc = vibe_tokenizer_parse(&f->tokenizer, &files, &f->err);
    free(vocab);
    return rc;
}

/* The same with the 256 bytes before the members. */
static int parse_after_bytes(struct fixture *f, const char *members,
                             const char *merges, const char *config)
{
    char *all = NULL;
    int rc;

    assert_true(asprintf(&all, "%s%s", f->bytes, members) > 0);
    rc = parse_pair(f, all, merges, config);
    free(all);
    return rc;
}

/* A tokenizer.json; its text is owned by the caller. */
static char *tokenizer_json(const struct fixture *f, const char *members,
                            const char *model, const char *rest)
{
    char *text = NULL;

    assert_true(asprintf(&text, "{\"model\":{\"vocab\":{%s%s},%s}%s}", f->bytes,
                         members, model, rest) > 0);
    return text;
}

static int parse_single(struct fixture *f, const char *members,
                        const char *model, const char *rest)
{
    char *text = tokenizer_json(f, members, model, rest);
    struct vibe_tokenizer_files files = {
        .tokenizer = in_memory("tokenizer.json", text)};
    int rc;

    vibe_tokenizer_free(f->tokenizer);
    rc = vibe_tokenizer_parse(&f->tokenizer, &files, &f->err);
    free(text);
    return rc;
}

static void assert_ids(struct fixture *f, const char *text,
                       enum vibe_special special, const int32_t *want, size_t n)
{
    f->got.n = 0;
    assert_int_equal(vibe_tokenizer_encode(f->tokenizer, &f->got, text,
                                           strlen(text), special, &f->err),
                     VIBE_OK);
    assert_int_equal(f->got.n, n);
    if (n > 0)
        assert_memory_equal(f->got.ids, want, n * sizeof(*want));
}

#define IDS(...)                    \
    (const int32_t[]){__VA_ARGS__}, \
        sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t)

static void assert_fails(const struct fixture *f, int rc, int code,
                         const char *says)
{
    assert_int_equal(rc, code);
    assert_null(f->tokenizer);
    if (!strstr(f->err.msg, says))
        fail_msg("\"%s\" does not say \"%s\"", f->err.msg, says);
}

static const char
    added_x[] = "{\"added_tokens_decoder\":{\"256\":{\"content\":\"<x>\"}}}";

static void parse_rejects_ids_that_are_no_ids(void **state)
{
    static const char *const members[] = {
        ",\"aa\":-1",  ",\"aa\":\"256\"",           ",\"aa\":2.5",
        ",\"aa\":258", ",\"aa\":99999999999999999", ",\"aa\":null",
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(members) / sizeof(*members); i++)
        assert_fails(f, parse_after_bytes(f, members[i], "a a\n", NULL),
                     VIBE_E_FORMAT,
                     "vocab.json: the id of \"aa\" is not a whole number from "
                     "0 to 256");
}

static void parse_rejects_two_entries_with_one_id(void **state)
{
    struct fixture *f = *state;

    assert_fails(f, parse_after_bytes(f, ",\"aa\":97", "a a\n", NULL),
                 VIBE_E_FORMAT, "\"a\" and \"aa\" both have id 97");
}

static void parse_rejects_an_entry_that_comes_twice(void **state)
{
    struct fixture *f = *state;

    assert_fails(f, parse_after_bytes(f, ",\"a\":256", "", NULL), VIBE_E_FORMAT,
                 "vocab.json:1:");
    assert_non_null(strstr(f->err.msg, "duplicate"));
}

static void parse_rejects_a_gap_in_the_ids(void **state)
{
    struct fixture *f = *state;

    assert_fails(
        f,
        parse_after_bytes(
            f, ",\"aa\":257", "a a\n",
            "{\"added_tokens_decoder\":{\"900\":{\"content\":\"<x>\"}}}"),
        VIBE_E_FORMAT, "vocab.json: no entry has id 256");
}

static void parse_rejects_a_vocabulary_without_a_byte(void **state)
{
    struct fixture *f = *state;

    /* Byte 255 is the last member, so without it ids end at 254. */
    *strrchr(f->bytes, ',') = '\0';
    assert_fails(f, parse_after_bytes(f, "", "", NULL), VIBE_E_FORMAT,
                 "vocab.json: no entry for byte 0xFF");
    assert_fails(f, parse_pair(f, "", "", NULL), VIBE_E_FORMAT,
                 "vocab.json: no entry for byte 0x00");
}

static void parse_rejects_merges_that_the_vocabulary_contradicts(void **state)
{
    static const struct {
        const char *merges, *says;
    } cases[] = {
        {"a a\naaa b\n", "merges.txt: line 2: \"aaa\" is not in the vocab"},
        {"a a\na bbb\n", "merges.txt: line 2: \"bbb\" is not in the vocab"},
        {"a a\na b\n", "line 2: \"a b\" makes what is not in the vocabulary"},
        {"#version: 0.2\na a\na a\n", "line 3: \"a a\" was there before"},
        {"a a\naa\n", "line 2: \"aa\" is not two pieces"},
        {"a a\na  a\n", "line 2: \"a  a\" is not two pieces"},
        {"a a\n a\n", "line 2: \" a\" is not two pieces"},
        {"a a\na \n", "line 2: \"a \" is not two pieces"},
        {"a a\na a b\n", "line 2: \"a a b\" is not two pieces"},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        assert_fails(f,
                     parse_after_bytes(f, ",\"aa\":256", cases[i].merges, NULL),
                     VIBE_E_FORMAT, cases[i].says);
}

static void parse_rejects_entries_that_no_merge_makes(void **state)
{
    struct fixture *f = *state;

    assert_fails(
        f,
        parse_after_bytes(f, ",\"aa\":256,\"bb\":257,\"bbb\":258", "a a", NULL),
        VIBE_E_FORMAT,
        "merges.txt: 2 of 259 entries of vocab.json come from no merge, "
        "first \"bb\" (id 257)");
}

static void parse_rejects_contradicting_added_tokens(void **state)
{
    static const struct {
        const char *tokens, *says;
    } cases[] = {
        {"\"97\":{\"content\":\"<x>\"}", "id 97, which is that of \"a\""},
        {"\"300\":{\"content\":\"aa\"}", "\"aa\" has id 300, but also id 256"},
        {"\"300\":{\"content\":\"<x>\"},\"301\":{\"content\":\"<x>\"}",
         "\"<x>\" has id 301, but also id 300"},
        {"\"300\":{}", "an added token has no \"content\""},
        {"\"300\":{\"content\":\"\"}", "an added token has no \"content\""},
        {"\"300\":7", "an added token has no \"content\""},
        {"\"x\":{\"content\":\"<x>\"}", "the id of added token \"<x>\""},
        {"\"\":{\"content\":\"<x>\"}", "the id of added token \"<x>\""},
        {"\"-4\":{\"content\":\"<x>\"}", "the id of added token \"<x>\""},
        {"\"3000000000\":{\"content\":\"<x>\"}", "the id of added token"},
    };
    struct fixture *f = *state;
    char config[256];

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        snprintf(config, sizeof(config), "{\"added_tokens_decoder\":{%s}}",
                 cases[i].tokens);
        assert_fails(f, parse_after_bytes(f, ",\"aa\":256", "a a\n", config),
                     VIBE_E_FORMAT, cases[i].says);
        assert_non_null(strstr(f->err.msg, "tokenizer_config.json: "));
    }
}

static void parse_rejects_what_is_not_json(void **state)
{
    struct fixture *f = *state;

    assert_fails(f, parse_pair(f, "\"a\":", "", NULL), VIBE_E_FORMAT,
                 "vocab.json:1:6: ");
    assert_fails(f, parse_after_bytes(f, "", "", "[]"), VIBE_E_FORMAT,
                 "tokenizer_config.json: not a JSON object");
    assert_fails(f,
                 parse_after_bytes(f, "", "", "{\"added_tokens_decoder\":3}"),
                 VIBE_E_FORMAT, "tokenizer_config.json: the added tokens");
    assert_fails(f, parse_single(f, "", "\"merges\":{}", ""), VIBE_E_FORMAT,
                 "tokenizer.json: no \"model\" with \"vocab\" and \"merges\"");
    assert_fails(f, parse_single(f, "", "\"merges\":[7]", ""), VIBE_E_FORMAT,
                 "tokenizer.json: merge 1 is neither a string nor two");
    assert_fails(f, parse_single(f, "", "\"merges\":[[\"a\"]]", ""),
                 VIBE_E_FORMAT, "merge 1 is neither a string nor two");
    assert_fails(f, parse_single(f, "", "\"merges\":[\"a b\"]", ""),
                 VIBE_E_FORMAT, "tokenizer.json: merge 1: \"a b\" makes what");
}

static void parse_refuses_tokenizers_of_other_kinds(void **state)
{
    static const struct {
        const char *model, *rest, *says;
    } cases[] = {
        {"\"type\":\"Unigram\"", "", "not of type \"BPE\""},
        {"\"byte_fallback\":true", "", "asks for byte_fallback"},
        {"\"ignore_merges\":true", "", "asks for ignore_merges"},
        {"\"dropout\":0.1", "", "asks for dropout"},
        {"\"end_of_word_suffix\":\"</w>\"", "", "has a end_of_word_suffix"},
        {"\"type\":\"BPE\"", ",\"normalizer\":{\"type\":\"NFKC\"}",
         "the normalizer is not"},
        {"\"type\":\"BPE\"", ",\"pre_tokenizer\":{\"type\":\"ByteLevel\"}",
         "the pre-tokenizer is not that of Qwen2.5"},
        {"\"type\":\"BPE\"",
         ",\"added_tokens\":[{\"id\":256,\"content\":\"<x>\",\"lstrip\":true}]",
         "added token \"<x>\" asks for lstrip"},
    };
    struct fixture *f = *state;
    char model[128];

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        snprintf(model, sizeof(model), "\"merges\":[],%s", cases[i].model);
        assert_fails(f, parse_single(f, "", model, cases[i].rest),
                     VIBE_E_UNSUPPORTED, cases[i].says);
    }
}

static void encode_rejects_what_is_not_utf8(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(parse_after_bytes(f, "", "", NULL), VIBE_OK);
    assert_int_equal(vibe_ids_push(&f->got, 7, NULL), VIBE_OK);

    assert_int_equal(vibe_tokenizer_encode(f->tokenizer, &f->got, "ab\xFFz", 4,
                                           VIBE_SPECIAL_TEXT, &f->err),
                     VIBE_E_FORMAT);
    assert_string_equal(f->err.msg, "not UTF-8 (byte 2)");
    assert_int_equal(f->got.n, 1); /* as before */
}

static void all_spellings_of_a_merge_are_read(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(parse_after_bytes(f, ",\"aa\":256,\"aab\":257",
                                       "#version: 0.2\r\na a\r\n\r\naa b\r\n",
                                       NULL),
                     VIBE_OK);
    assert_ids(f, "aaab", VIBE_SPECIAL_TEXT, IDS(256, 'a', 'b'));
    assert_int_equal(parse_single(f, ",\"aa\":256,\"aab\":257",
                                  "\"merges\":[\"a a\",[\"aa\",\"b\"]]", ""),
                     VIBE_OK);
    assert_ids(f, "aab", VIBE_SPECIAL_TEXT, IDS(257));
    assert_int_equal(vibe_tokenizer_n_vocab(f->tokenizer), 258);
}

static void a_complete_tokenizer_json_is_read(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(
        parse_single(
            f, ",\"aa\":256",
            "\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"
            "\"continuing_subword_prefix\":\"\",\"end_of_word_suffix\":null,"
            "\"byte_fallback\":false,\"merges\":[\"a a\"]",
            ",\"normalizer\":{\"type\":\"NFC\"},"
            "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":["
            "{\"type\":\"Split\",\"behavior\":\"Isolated\",\"invert\":false,"
            "\"pattern\":{\"Regex\":\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
            "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}|"
            " ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|"
            "\\\\s+(?!\\\\S)|\\\\s+\"}},"
            "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
            "\"trim_offsets\":false,\"use_regex\":false}]},"
            "\"added_tokens\":[{\"id\":257,\"content\":\"<x>\","
            "\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
            "\"normalized\":false,\"special\":true}],"
            "\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\"}"),
        VIBE_OK);
    assert_ids(f, "aa<x>", VIBE_SPECIAL_PARSE, IDS(256, 257));
}

/* "# #" is a merge of the published list, not a comment. */
static void a_merge_of_number_signs_is_no_comment(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(parse_after_bytes(f, ",\"##\":256", "# #", NULL), VIBE_OK);
    assert_ids(f, "##", VIBE_SPECIAL_TEXT, IDS(256));
}

static void added_tokens_are_found_only_when_asked_for(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(parse_after_bytes(f, "", "", added_x), VIBE_OK);

    assert_ids(f, "a<x><x", VIBE_SPECIAL_PARSE, IDS('a', 256, '<', 'x'));
    assert_ids(f, "<x>", VIBE_SPECIAL_TEXT, IDS('<', 'x', '>'));
    assert_int_equal(vibe_tokenizer_id(f->tokenizer, "<x>"), 256);
    assert_int_equal(vibe_tokenizer_id(f->tokenizer, "<x"), -1);
    assert_int_equal(vibe_tokenizer_id(f->tokenizer, "a"), -1);
}

static void the_longest_added_token_wins(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(
        parse_single(f, "", "\"merges\":[]",
                     ",\"added_tokens\":[{\"id\":256,\"content\":\"<x\"},"
                     "{\"id\":300,\"content\":\"<x><y>\"},"
                     "{\"id\":257,\"content\":\"<x>\"}]"),
        VIBE_OK);

    assert_ids(f, "<x><y<x><y>", VIBE_SPECIAL_PARSE, IDS(257, '<', 'y', 300));
    assert_int_equal(vibe_tokenizer_n_vocab(f->tokenizer), 301);
    assert_null(vibe_tokenizer_piece(f->tokenizer, 258));
}

static void added_tokens_may_stand_in_the_vocabulary(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(parse_after_bytes(f, ",\"<x>\":256", "", added_x),
                     VIBE_OK);
    assert_ids(f, "<x>", VIBE_SPECIAL_PARSE, IDS(256));
    assert_int_equal(parse_after_bytes(f, ",\"aa\":257", "a a\n", added_x),
                     VIBE_OK);
    assert_ids(f, "aa<x>", VIBE_SPECIAL_PARSE, IDS(257, 256));
}

static void a_null_normalizer_turns_nfc_off(void **state)
{
    static const char text[] = "e\xCC\x81";
    struct fixture *f = *state;

    assert_int_equal(parse_single(f, "", "\"merges\":[]", ""), VIBE_OK);
    assert_ids(f, text, VIBE_SPECIAL_TEXT, IDS(0xC3, 0xA9));
    assert_int_equal(
        parse_single(f, "", "\"merges\":[]", ",\"normalizer\":null"), VIBE_OK);
    assert_ids(f, text, VIBE_SPECIAL_TEXT, IDS('e', 0xCC, 0x81));
}

static void decode_gives_bytes_and_spellings(void **state)
{
    struct fixture *f = *state;
    char out[8] = "";

    assert_int_equal(parse_after_bytes(f, "", "", added_x), VIBE_OK);

    for (int byte = 0; byte < 256; byte++) {
        assert_int_equal(vibe_tokenizer_decode(f->tokenizer, out, 8, byte), 1);
        assert_int_equal((unsigned char)out[0], byte);
    }
    assert_int_equal(vibe_tokenizer_decode(f->tokenizer, out, 2, 256), 3);
    assert_memory_equal(out, "<x", 2);
    assert_int_equal(vibe_tokenizer_decode(f->tokenizer, NULL, 0, 256), 3);
    assert_int_equal(vibe_tokenizer_decode(f->tokenizer, out, 8, 257), 0);
    assert_int_equal(vibe_tokenizer_decode(f->tokenizer, out, 8, -1), 0);
    assert_string_equal(vibe_tokenizer_piece(f->tokenizer, ' '), "\u0120");
}

static void write_file(const struct fixture *f, const char *name,
                       const char *text)
{
    char path[128];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", f->dir, name);
    file = fopen(path, "wb");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void open_says_which_files_it_looked_for(void **state)
{
    struct fixture *f = *state;

    assert_fails(f, vibe_tokenizer_open(&f->tokenizer, f->dir, &f->err),
                 VIBE_E_IO, "neither tokenizer.json nor vocab.json with");
    write_file(f, "vocab.json", "{}");
    assert_fails(f, vibe_tokenizer_open(&f->tokenizer, f->dir, &f->err),
                 VIBE_E_IO, "neither tokenizer.json nor vocab.json with");
    assert_fails(f, vibe_tokenizer_open(&f->tokenizer, "/no/such", &f->err),
                 VIBE_E_IO, "/no/such: No such file or directory");
}

static void open_prefers_tokenizer_json(void **state)
{
    struct fixture *f = *state;
    char *single = tokenizer_json(f, ",\"aa\":256", "\"merges\":[\"a a\"]", "");
    char path[128];

    write_file(f, "vocab.json", "{}");
    write_file(f, "merges.txt", "");
    assert_fails(f, vibe_tokenizer_open(&f->tokenizer, f->dir, &f->err),
                 VIBE_E_FORMAT, "vocab.json: no entry for byte 0x00");
    write_file(f, "tokenizer.json", single);
    free(single);

    assert_int_equal(vibe_tokenizer_open(&f->tokenizer, f->dir, &f->err),
                     VIBE_OK);
    assert_ids(f, "aa", VIBE_SPECIAL_TEXT, IDS(256));

    /* The file itself will do as well. */
    vibe_tokenizer_free(f->tokenizer);
    snprintf(path, sizeof(path), "%s/tokenizer.json", f->dir);
    assert_int_equal(vibe_tokenizer_open(&f->tokenizer, path, &f->err),
                     VIBE_OK);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(parse_rejects_ids_that_are_no_ids),
    VIBE_TEST(parse_rejects_two_entries_with_one_id),
    VIBE_TEST(parse_rejects_an_entry_that_comes_twice),
    VIBE_TEST(parse_rejects_a_gap_in_the_ids),
    VIBE_TEST(parse_rejects_a_vocabulary_without_a_byte),
    VIBE_TEST(parse_rejects_merges_that_the_vocabulary_contradicts),
    VIBE_TEST(parse_rejects_entries_that_no_merge_makes),
    VIBE_TEST(parse_rejects_contradicting_added_tokens),
    VIBE_TEST(parse_rejects_what_is_not_json),
    VIBE_TEST(parse_refuses_tokenizers_of_other_kinds),
    VIBE_TEST(encode_rejects_what_is_not_utf8),
    VIBE_TEST(all_spellings_of_a_merge_are_read),
    VIBE_TEST(a_complete_tokenizer_json_is_read),
    VIBE_TEST(a_merge_of_number_signs_is_no_comment),
    VIBE_TEST(added_tokens_are_found_only_when_asked_for),
    VIBE_TEST(the_longest_added_token_wins),
    VIBE_TEST(added_tokens_may_stand_in_the_vocabulary),
    VIBE_TEST(a_null_normalizer_turns_nfc_off),
    VIBE_TEST(decode_gives_bytes_and_spellings),
    VIBE_TEST(open_says_which_files_it_looked_for),
    VIBE_TEST(open_prefers_tokenizer_json),
};

VIBE_TEST_MAIN(tests)
