/* preprocessor_config.json, which says how voices are made equally loud. */
#include <string.h>

#include "engine/base/error.h"
#include "engine/format/config.h"
#include "tests/support/st_writer.h"
#include "tests/support/vibe_test.h"

struct fixture {
    struct vibe_preprocessor preprocessor;
    struct vibe_error err;
};

VIBE_TEST_FIXTURE(struct fixture)

static int preprocess(struct fixture *f, const char *text)
{
    return vibe_preprocessor_parse(&f->preprocessor, text, strlen(text),
                                   "p.json", &f->err);
}

static void preprocessor_defaults_where_there_is_no_file(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(vibe_preprocessor_read(&f->preprocessor,
                                            "/nonexistent/p.json", &f->err),
                     VIBE_OK);

    assert_true(f->preprocessor.db_normalize);
    assert_true(f->preprocessor.target_db == -25.0f);
    assert_true(f->preprocessor.eps == 1e-6f);
    assert_int_equal(f->preprocessor.sampling_rate, 24000);
}

static void preprocessor_reads_both_schemas(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(preprocess(f, "{\"db_normalize\":false,"
                                   "\"audio_processor\":{\"target_dB_FS\":-20,"
                                   "\"normalize_audio\":true,\"eps\":1e-5,"
                                   "\"sampling_rate\":24000}}"),
                     VIBE_OK);
    assert_false(f->preprocessor.db_normalize);
    assert_true(f->preprocessor.target_db == -20.0f);
    assert_true(f->preprocessor.eps == 1e-5f);

    assert_int_equal(preprocess(f, "{\"normalize_audio\":false,"
                                   "\"target_dB_FS\":-18.5}"),
                     VIBE_OK);
    assert_false(f->preprocessor.db_normalize);
    assert_true(f->preprocessor.target_db == -18.5f);
}

static void preprocessor_reads_a_file(void **state)
{
    struct fixture *f = *state;
    struct st_dir dir;
    const char *path;

    st_dir_make(&dir);
    path = st_path(&dir, "preprocessor_config.json");
    st_write_text(path, "{\"db_normalize\":false}");
    assert_int_equal(vibe_preprocessor_read(&f->preprocessor, path, &f->err),
                     VIBE_OK);
    assert_false(f->preprocessor.db_normalize);
    st_write_text(path, "{");
    assert_int_equal(vibe_preprocessor_read(&f->preprocessor, path, &f->err),
                     VIBE_E_FORMAT);
    st_dir_remove(&dir);
}

static void preprocessor_refuses_what_it_cannot_do(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(
        preprocess(f, "{\"audio_processor\":{\"sampling_rate\":16000}}"),
        VIBE_E_UNSUPPORTED);
    assert_string_equal(
        f->err.msg,
        "p.json: audio_processor.sampling_rate: found 16000, expected 24000");
    assert_int_equal(
        preprocess(f, "{\"audio_processor\":{\"target_dB_FS\":25}}"),
        VIBE_E_FORMAT);
    assert_int_equal(preprocess(f, "{\"db_normalize\":1}"), VIBE_E_FORMAT);
    assert_int_equal(preprocess(f, "{\"audio_processor\":3}"), VIBE_E_FORMAT);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(preprocessor_defaults_where_there_is_no_file),
    VIBE_TEST(preprocessor_reads_both_schemas),
    VIBE_TEST(preprocessor_reads_a_file),
    VIBE_TEST(preprocessor_refuses_what_it_cannot_do),
};

VIBE_TEST_MAIN(tests)
