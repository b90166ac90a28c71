#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/error.h"
#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_verify.h"
#include "tests/support/vibe_test.h"

struct fixture {
    char path[64];
    struct vibe_tokenizer_mismatch last;
    char text[64]; /* of last */
    size_t n_mismatches;
    struct vibe_error err;
};

/* Opened once; in it every digit is a token, 15 for 0 to 24 for 9. */
static struct vibe_tokenizer *qwen;

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f)
        return -1;
    *state = f;
    snprintf(f->path, sizeof(f->path), "/tmp/vibe_test_verify.%ld.json",
             (long)getpid());
    return qwen ? 0
                : vibe_tokenizer_open(&qwen, "tests/fixtures/qwen2.5", NULL);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    unlink(f->path);
    free(f);
    return 0;
}

static void keep(void *ctx, const struct vibe_tokenizer_mismatch *how)
{
    struct fixture *f = ctx;

    f->last = *how;
    f->n_mismatches++;
    snprintf(f->text, sizeof(f->text), "%.*s", (int)how->n_text, how->text);
}

static int verify(struct fixture *f, const char *vectors,
                  struct vibe_tokenizer_report *report)
{
    FILE *file = fopen(f->path, "wb");

    assert_non_null(file);
    assert_true(fputs(vectors, file) >= 0);
    assert_int_equal(fclose(file), 0);
    return vibe_tokenizer_verify(report, qwen, f->path, keep, f, &f->err);
}

static void verify_names_the_missing_file(void **state)
{
    struct fixture *f = *state;
    struct vibe_tokenizer_report report = {0};

    assert_int_equal(
        vibe_tokenizer_verify(&report, qwen, "/no/such", NULL, NULL, &f->err),
        VIBE_E_IO);
    assert_non_null(strstr(f->err.msg, "/no/such: No such file"));
}

static void verify_rejects_what_is_no_list_of_vectors(void **state)
{
    static const char *const bad[] = {
        "",
        "[",
        "{}",
        "[]",
        "[7]",
        "[{\"text\":\"a\"}]",
        "[{\"ids\":[1]}]",
        "[{\"text\":1,\"ids\":[1]}]",
        "[{\"text\":\"a\",\"ids\":[\"16\"]}]",
        "[{\"text\":\"a\",\"ids\":[-1]}]",
        "[{\"text\":\"a\",\"ids\":[4294967312]}]",
        "[{\"text\":\"a\",\"ids\":[16],\"ids\":[16]}]",
    };
    struct fixture *f = *state;
    struct vibe_tokenizer_report report = {.n_vectors = 77};

    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        assert_int_equal(verify(f, bad[i], &report), VIBE_E_FORMAT);
        assert_non_null(strstr(f->err.msg, f->path));
    }
    assert_int_equal(report.n_vectors, 77); /* untouched on error */
    assert_int_equal(f->n_mismatches, 0);
}

static void verify_counts_equal_vectors(void **state)
{
    struct fixture *f = *state;
    struct vibe_tokenizer_report report = {0};

    assert_int_equal(verify(f,
                            "[{\"text\":\"1\",\"ids\":[16]},"
                            "{\"text\":\"\",\"ids\":[]},"
                            "{\"text\":\"<|vision_end|>1\","
                            "\"ids\":[151653,16]},"
                            "{\"text\":\"\\u0000\",\"ids\":[188]}]",
                            &report),
                     VIBE_OK);
    assert_int_equal(report.n_vectors, 4);
    assert_int_equal(report.n_equal, 4);
    assert_int_equal(f->n_mismatches, 0);
}

static void verify_tells_where_a_vector_differs(void **state)
{
    struct fixture *f = *state;
    struct vibe_tokenizer_report report = {0};

    assert_int_equal(verify(f,
                            "[{\"text\":\"1\",\"ids\":[16]},"
                            "{\"text\":\"123\",\"ids\":[16,17,19]}]",
                            &report),
                     VIBE_OK);
    assert_int_equal(report.n_vectors, 2);
    assert_int_equal(report.n_equal, 1);
    assert_int_equal(f->n_mismatches, 1);
    assert_int_equal(f->last.index, 1);
    assert_string_equal(f->text, "123");
    assert_int_equal(f->last.position, 2);
    assert_int_equal(f->last.got, 18);
    assert_int_equal(f->last.want, 19);
}

static void verify_counts_missing_and_extra_ids_as_different(void **state)
{
    struct fixture *f = *state;
    struct vibe_tokenizer_report report = {0};

    assert_int_equal(verify(f, "[{\"text\":\"12\",\"ids\":[16]}]", &report),
                     VIBE_OK);
    assert_int_equal(report.n_equal, 0);
    assert_int_equal(f->last.position, 1);
    assert_int_equal(f->last.want, -1);
    assert_int_equal(f->last.n_got, 2);

    assert_int_equal(verify(f, "[{\"text\":\"1\",\"ids\":[16,0]}]", &report),
                     VIBE_OK);
    assert_int_equal(report.n_equal, 0);
    assert_int_equal(f->last.position, 1);
    assert_int_equal(f->last.got, -1);
    assert_int_equal(f->last.n_want, 2);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(verify_names_the_missing_file),
    VIBE_TEST(verify_rejects_what_is_no_list_of_vectors),
    VIBE_TEST(verify_counts_equal_vectors),
    VIBE_TEST(verify_tells_where_a_vector_differs),
    VIBE_TEST(verify_counts_missing_and_extra_ids_as_different),
};

VIBE_TEST_MAIN(tests)
