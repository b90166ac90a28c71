/*
 * The tokenizer with the vocabulary of Qwen2.5, against recorded results of
 * the reference implementation.
 */
#include <jansson.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/text/nfc.h"
#include "engine/text/read_file.h"
#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_build.h"
#include "engine/text/tokenizer_verify.h"
#include "tests/support/vibe_test.h"

#define DIR "tests/fixtures/qwen2.5"

enum { N_VECTORS = 657, N_BASE = 151643, N_ALL = 151665 };

/* Opened by the first test that asks; it takes a quarter of a second. */
static struct vibe_tokenizer *qwen;

static int setup(void **state)
{
    struct vibe_error err;

    (void)state;
    if (!qwen && vibe_tokenizer_open(&qwen, DIR, &err)) {
        print_error("%s\n", err.msg);
        return -1;
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return 0;
}

static void encode(struct vibe_ids *out, const char *text, size_t n,
                   enum vibe_special special)
{
    struct vibe_error err;

    if (vibe_tokenizer_encode(qwen, out, text, n, special, &err))
        fail_msg("%s", err.msg);
}

static void show(void *ctx, const struct vibe_tokenizer_mismatch *how)
{
    (void)ctx;
    print_error("vector %zu, \"%.*s\": id %zu is %d, not %d\n", how->index,
                (int)how->n_text, how->text, how->position, how->got,
                how->want);
}

static void encode_equals_every_recorded_vector(void **state)
{
    struct vibe_tokenizer_report report = {0};

    (void)state;
    assert_int_equal(vibe_tokenizer_verify(&report, qwen, DIR "/vectors.json",
                                           show, NULL, NULL),
                     VIBE_OK);
    assert_int_equal(report.n_vectors, N_VECTORS);
    assert_int_equal(report.n_equal, N_VECTORS);
}

static void assert_ids(const char *text, const int32_t *want, size_t n)
{
    struct vibe_ids got = {0};

    encode(&got, text, strlen(text), VIBE_SPECIAL_TEXT);
    assert_int_equal(got.n, n);
    assert_memory_equal(got.ids, want, n * sizeof(*want));
    vibe_ids_release(&got);
}

#define ASSERT_IDS(text, ...)                        \
    assert_ids(text, (const int32_t[]){__VA_ARGS__}, \
               sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static void encode_knows_the_phrases_of_a_prompt(void **state)
{
    char speaker[] = " Speaker 0:";

    (void)state;
    ASSERT_IDS(" Transform the text provided by various speakers into speech "
               "output, utilizing the distinct voice of each respective "
               "speaker.\n",
               15226, 279, 1467, 3897, 553, 5257, 21326, 1119, 8806, 2550, 11,
               34888, 279, 12460, 7743, 315, 1817, 19511, 18601, 624);
    ASSERT_IDS(" Voice input:\n", 27930, 1946, 510);
    ASSERT_IDS(" Text input:\n", 2918, 1946, 510);
    ASSERT_IDS(" Speech output:\n", 38741, 2550, 510);
    ASSERT_IDS("\n", 198);
    for (int32_t digit = 0; digit < 10; digit++) {
        speaker[9] = (char)('0' + digit);
        ASSERT_IDS(speaker, 29073, 220, 15 + digit, 25);
    }
    ASSERT_IDS(" Speaker 0: Hello world.\n", 29073, 220, 15, 25, 21927, 1879,
               624);
    ASSERT_IDS(" Speaker 0: Hello, how are you today?\n", 29073, 220, 15, 25,
               21927, 11, 1246, 525, 498, 3351, 5267);
    ASSERT_IDS(" Speaker 1: It's 2025\u2014don't \u201Cquote\u201D me.\n",
               29073, 220, 16, 25, 1084, 594, 220, 17, 15, 17, 20, 2293, 15007,
               944, 1036, 2949, 854, 752, 624);
}

/* The published order, which is also what stands in when no file lists them. */
static const char *const added[] = {
    "<|endoftext|>",        "<|im_start|>",       "<|im_end|>",
    "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>",          "<|quad_start|>",     "<|quad_end|>",
    "<|vision_start|>",     "<|vision_end|>",     "<|vision_pad|>",
    "<|image_pad|>",        "<|video_pad|>",      "<tool_call>",
    "</tool_call>",         "<|fim_prefix|>",     "<|fim_middle|>",
    "<|fim_suffix|>",       "<|fim_pad|>",        "<|repo_name|>",
    "<|file_sep|>",
};

static void assert_published_added(const struct vibe_tokenizer *tokenizer)
{
    assert_int_equal(vibe_tokenizer_n_vocab(tokenizer), N_ALL);
    for (int32_t i = 0; i < N_ALL - N_BASE; i++) {
        assert_int_equal(vibe_tokenizer_id(tokenizer, added[i]), N_BASE + i);
        assert_string_equal(vibe_tokenizer_piece(tokenizer, N_BASE + i),
                            added[i]);
    }
    assert_int_equal(vibe_tokenizer_id(tokenizer, "<|vision_start|>"), 151652);
    assert_int_equal(vibe_tokenizer_id(tokenizer, "<|bos|>"), -1);
}

static void added_tokens_have_the_published_ids(void **state)
{
    (void)state;
    assert_published_added(qwen);
}

static void added_tokens_need_no_config(void **state)
{
    struct vibe_tokenizer_files files = {
        .vocab.name = "vocab.json",
        .merges.name = "merges.txt",
    };
    struct vibe_tokenizer *tokenizer = NULL;
    char *vocab = NULL;
    char *merges = NULL;

    (void)state;
    assert_int_equal(vibe_read_file(&vocab, &files.vocab.n, DIR "/vocab.json",
                                    1 << 24, NULL),
                     VIBE_OK);
    assert_int_equal(vibe_read_file(&merges, &files.merges.n, DIR "/merges.txt",
                                    1 << 24, NULL),
                     VIBE_OK);
    files.vocab.data = vocab;
    files.merges.data = merges;

    assert_int_equal(vibe_tokenizer_parse(&tokenizer, &files, NULL), VIBE_OK);
    assert_published_added(tokenizer);

    vibe_tokenizer_free(tokenizer);
    free(vocab);
    free(merges);
}

/* The recorded texts, one string each. */
static json_t *load_texts(void)
{
    json_t *vectors = json_load_file(DIR "/vectors.json", JSON_ALLOW_NUL, NULL);
    json_t *texts = json_array();
    size_t i;
    json_t *vector;

    json_array_foreach(vectors, i, vector)
        json_array_append(texts, json_object_get(vector, "text"));
    json_decref(vectors);
    assert_int_equal(json_array_size(texts), N_VECTORS);
    return texts;
}

/* Encode as text and decode; what is left is the text in NFC. */
static void assert_round_trip(const char *text, size_t n)
{
    struct vibe_ids ids = {0};
    char *normal = NULL;
    char *back;
    size_t n_normal = 0;
    size_t n_back = 0;

    assert_int_equal(vibe_nfc(&normal, &n_normal, text, n, NULL), VIBE_OK);
    back = malloc(n_normal + 1);
    assert_non_null(back);

    encode(&ids, text, n, VIBE_SPECIAL_TEXT);
    for (size_t i = 0; i < ids.n; i++) {
        assert_in_range(ids.ids[i], 0, N_BASE - 1);
        n_back += vibe_tokenizer_decode(qwen, back + n_back, n_normal - n_back,
                                        ids.ids[i]);
        assert_true(n_back <= n_normal);
    }
    assert_int_equal(n_back, n_normal);
    assert_memory_equal(back, normal ? normal : text, n_normal);

    free(back);
    free(normal);
    vibe_ids_release(&ids);
}

static void control_strings_of_a_user_stay_text(void **state)
{
    json_t *texts = load_texts();
    size_t i;
    json_t *text;

    (void)state;
    json_array_foreach(texts, i, text)
        assert_round_trip(json_string_value(text), json_string_length(text));
    for (i = 0; i < sizeof(added) / sizeof(*added); i++)
        assert_round_trip(added[i], strlen(added[i]));
    json_decref(texts);
}

/*
 * A line that begins with a letter is never merged with the one before it, so
 * a text of such lines has the ids of its lines.
 */
static void encode_of_a_megabyte_equals_its_lines(void **state)
{
    enum { N = 1000000 };
    json_t *texts = load_texts();
    struct vibe_ids whole = {0};
    struct vibe_ids lines = {0};
    char *text = malloc(N + 4096);
    size_t n = 0;

    (void)state;
    assert_non_null(text);
    for (size_t i = 0; n < N; i++) {
        const json_t *line = json_array_get(texts, i % N_VECTORS);
        size_t len = json_string_length(line) + 2;

        text[n] = (char)('A' + i % 26);
        memcpy(text + n + 1, json_string_value(line), len - 2);
        text[n + len - 1] = '\n';
        encode(&lines, text + n, len, VIBE_SPECIAL_PARSE);
        n += len;
    }

    encode(&whole, text, n, VIBE_SPECIAL_PARSE);
    assert_int_equal(whole.n, lines.n);
    assert_memory_equal(whole.ids, lines.ids, lines.n * sizeof(*lines.ids));

    vibe_ids_release(&whole);
    vibe_ids_release(&lines);
    free(text);
    json_decref(texts);
}

/* One word of a megabyte: quadratic merging would take minutes. */
static void encode_of_a_megabyte_word_ends(void **state)
{
    enum { N = 1 << 20 };
    struct vibe_ids ids = {0};
    char *word = malloc(N);
    char piece[64];
    size_t n = 0;

    (void)state;
    assert_non_null(word);
    for (size_t i = 0; i < N; i++)
        word[i] = (char)('a' + (i * i + i / 7) % 26);
    encode(&ids, word, N, VIBE_SPECIAL_TEXT);
    for (size_t i = 0; i < ids.n; i++) {
        size_t len = vibe_tokenizer_decode(qwen, piece, sizeof(piece),
                                           ids.ids[i]);

        assert_true(len <= sizeof(piece) && len <= N - n);
        assert_memory_equal(word + n, piece, len);
        n += len;
    }
    assert_int_equal(n, N);
    vibe_ids_release(&ids);
    free(word);
}

static void *encode_often(void *arg)
{
    struct vibe_ids *out = arg;

    for (int i = 0; i < 200; i++) {
        out->n = 0;
        if (vibe_tokenizer_encode(qwen, out, "Hello, w\u00F6rld\u2026", 16,
                                  VIBE_SPECIAL_PARSE, NULL))
            break;
    }
    return NULL;
}

static void threads_may_share_a_tokenizer(void **state)
{
    pthread_t threads[4];
    struct vibe_ids got[4] = {0};

    (void)state;
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(
            pthread_create(&threads[i], NULL, encode_often, &got[i]), 0);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(got[i].n, got[0].n);
        assert_memory_equal(got[i].ids, got[0].ids, got[0].n * sizeof(int32_t));
        assert_int_equal(got[i].ids[0], 9707); /* "Hello" */
    }
    for (size_t i = 0; i < 4; i++)
        vibe_ids_release(&got[i]);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(encode_equals_every_recorded_vector),
    VIBE_TEST(encode_knows_the_phrases_of_a_prompt),
    VIBE_TEST(added_tokens_have_the_published_ids),
    VIBE_TEST(added_tokens_need_no_config),
    VIBE_TEST(control_strings_of_a_user_stay_text),
    VIBE_TEST(encode_of_a_megabyte_equals_its_lines),
    VIBE_TEST(encode_of_a_megabyte_word_ends),
    VIBE_TEST(threads_may_share_a_tokenizer),
};

VIBE_TEST_MAIN(tests)
