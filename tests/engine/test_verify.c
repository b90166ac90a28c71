#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/verify.h"
#include "engine/vibevoice.h"
#include "tests/support/scratch.h"
#include "tests/support/vibe_test.h"

struct fixture {
    struct vibe_engine *engine;
    struct vibe_verify_summary summary;
    struct vibe_error err;
};

static int setup(void **state)
{
    *state = calloc(1, sizeof(struct fixture));
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vibe_engine_free(f->engine);
    free(f);
    return 0;
}

static void open_model(struct fixture *f, const char *model)
{
    const struct vibe_engine_options options = {
        .model = model,
        .device = VIBE_DEVICE_CPU,
        .threads = 2,
    };

    if (vibe_engine_open(&f->engine, &options, &f->err) != VIBE_OK)
        fail_msg("%s", f->err.msg);
}

static void print_failure(void *user, const struct vibe_verify_row *row)
{
    (void)user;
    if (!row->is_ok)
        print_error("%s: %g of %g\n", row->name, row->max_error, row->bound);
}

static void verify(struct fixture *f, const char *model, size_t n_compared)
{
    char golden[128];

    open_model(f, model);
    snprintf(golden, sizeof(golden), "%s/golden.safetensors", model);
    if (vibe_engine_verify(f->engine, golden, print_failure, NULL, &f->summary,
                           &f->err) != VIBE_OK)
        fail_msg("%s", f->err.msg);

    assert_int_equal(f->summary.n_failed, 0);
    assert_int_equal(f->summary.n_compared, n_compared);
    assert_int_equal(f->summary.n_tokens_equal, f->summary.n_tokens);
    assert_int_equal(f->summary.n_tokens_got, f->summary.n_tokens);
}

/* 4 tables, 2 clips, inputs, latents, features, embeds, 3 of the codec, the
 * prompt, logits, audio and tokens; 6 of each frame; the first free frame's
 * latent and samples. */
enum { N_ONCE = 4 + 2 + 4 + 3 + 4 + 2, N_FRAME = 6 };

static void every_stage_of_the_tied_model_meets_the_record(void **state)
{
    verify(*state, "tests/golden/tiny_tied", N_ONCE + N_FRAME * 15);
}

static void every_stage_of_the_float8_model_meets_the_record(void **state)
{
    verify(*state, "tests/golden/tiny_fp8", N_ONCE + N_FRAME * 25);
}

static void a_nan_among_right_numbers_fails(void **state)
{
    struct fixture *f = *state;
    const float want[] = {1.0f, 2.0f, 3.0f};
    const float got[] = {1.0f, NAN, 3.0f};
    struct vibe_verify v = {.summary = &f->summary};

    vibe_verify_compare(&v, "right", want, want, 3, 0);
    assert_int_equal(f->summary.n_failed, 0);
    vibe_verify_compare(&v, "half right", got, want, 3, 0);

    assert_int_equal(f->summary.n_failed, 1);
}

static void a_record_of_another_model_fails(void **state)
{
    struct fixture *f = *state;

    open_model(f, "tests/golden/tiny_tied");
    assert_int_equal(vibe_engine_verify(
                         f->engine, "tests/golden/tiny_fp8/golden.safetensors",
                         NULL, NULL, &f->summary, &f->err),
                     VIBE_OK);

    assert_true(f->summary.n_failed > 0);
}

static void a_file_without_records_is_refused(void **state)
{
    struct fixture *f = *state;

    open_model(f, "tests/golden/tiny_tied");
    assert_int_equal(vibe_engine_verify(
                         f->engine, "tests/golden/tiny_tied/model.safetensors",
                         NULL, NULL, &f->summary, &f->err),
                     VIBE_E_FORMAT);
    assert_non_null(strstr(f->err.msg, "model.json"));
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(every_stage_of_the_tied_model_meets_the_record),
    VIBE_TEST(every_stage_of_the_float8_model_meets_the_record),
    VIBE_TEST(a_nan_among_right_numbers_fails),
    VIBE_TEST(a_record_of_another_model_fails),
    VIBE_TEST(a_file_without_records_is_refused),
};

VIBE_TEST_MAIN(tests)
