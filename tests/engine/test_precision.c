/* What the layers of a checkpoint are kept in, and keys and values by that. */
#include "engine/precision.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/format/config.h"
#include "engine/format/weights.h"
#include "engine/vibevoice.h"
#include "tests/support/scratch.h"
#include "tests/support/vibe_test.h"

struct fixture {
    struct vibe_scratch scratch;
    char model[600];
    struct vibe_config config;
    struct vibe_weights *w;
    struct vibe_error err;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    char config[700];

    if (!f || vibe_scratch_enter(&f->scratch))
        return -1;
    snprintf(f->model, sizeof(f->model), "%s/tests/golden/tiny_tied",
             f->scratch.start);
    snprintf(config, sizeof(config), "%s/config.json", f->model);
    *state = f;
    return vibe_config_read(&f->config, config, &f->err) ||
           vibe_weights_open(&f->w, f->model, &f->err);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    const int rc = vibe_scratch_leave(&f->scratch);

    vibe_weights_free(f->w);
    free(f);
    return rc;
}

static enum vibe_dtype lm(const struct fixture *f, enum vibe_weight_dtype as)
{
    return vibe_precision_lm(f->w, &f->config.lm, as);
}

static enum vibe_weight_dtype kv_of_gpu(const struct fixture *f,
                                        struct vibe_precision p)
{
    return vibe_precision_kv(f->w, &f->config.lm, &p, 1);
}

/* Have the layers stored in int4, and all else as it was. */
static void store_int4(struct fixture *f)
{
    const struct vibe_precision int4 = {.lm = VIBE_WEIGHTS_I4};

    assert_int_equal(
        vibe_convert(f->model, "x.safetensors", &int4, NULL, &f->err), VIBE_OK);
    vibe_weights_free(f->w);
    assert_int_equal(vibe_weights_open(&f->w, "x.safetensors", &f->err),
                     VIBE_OK);
}

static void layers_are_as_asked_or_stored(void **state)
{
    const struct fixture *f = *state;

    assert_int_equal(lm(f, VIBE_WEIGHTS_AUTO), vibe_weights_dtype(f->w));
    assert_int_equal(lm(f, VIBE_WEIGHTS_I4), VIBE_I4);
}

static void layers_are_not_what_most_of_the_file_is(void **state)
{
    struct fixture *f = *state;

    store_int4(f);

    assert_int_not_equal(vibe_weights_dtype(f->w), VIBE_I4);
    assert_int_equal(lm(f, VIBE_WEIGHTS_AUTO), VIBE_I4);
    assert_int_equal(lm(f, VIBE_WEIGHTS_I8), VIBE_I8);
}

static void keys_are_left_to_the_gpu(void **state)
{
    const struct fixture *f = *state;

    assert_int_equal(kv_of_gpu(f, (struct vibe_precision){0}),
                     VIBE_WEIGHTS_AUTO);
    assert_int_equal(
        kv_of_gpu(f, (struct vibe_precision){.lm = VIBE_WEIGHTS_F8_E4M3,
                                             .head = VIBE_WEIGHTS_I4}),
        VIBE_WEIGHTS_AUTO);
}

static void keys_beside_int4_are_float8(void **state)
{
    struct fixture *f = *state;
    const struct vibe_precision int4 = {.lm = VIBE_WEIGHTS_I4};

    assert_int_equal(kv_of_gpu(f, int4), VIBE_WEIGHTS_F8_E4M3);
    store_int4(f);
    assert_int_equal(kv_of_gpu(f, (struct vibe_precision){0}),
                     VIBE_WEIGHTS_F8_E4M3);
}

static void keys_are_as_asked(void **state)
{
    const struct fixture *f = *state;
    const struct vibe_precision p = {.lm = VIBE_WEIGHTS_I4,
                                     .kv = VIBE_WEIGHTS_BF16};

    assert_int_equal(kv_of_gpu(f, p), VIBE_WEIGHTS_BF16);
}

static void keys_of_a_cpu_are_left_to_it(void **state)
{
    const struct fixture *f = *state;
    const struct vibe_precision p = {.lm = VIBE_WEIGHTS_I4};

    assert_int_equal(vibe_precision_kv(f->w, &f->config.lm, &p, 0),
                     VIBE_WEIGHTS_AUTO);
}

static void keys_are_exact_where_all_is(void **state)
{
    struct fixture *f = *state;
    const struct vibe_precision p = {.lm = VIBE_WEIGHTS_F32};

    store_int4(f);

    assert_int_equal(kv_of_gpu(f, p), VIBE_WEIGHTS_AUTO);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(layers_are_as_asked_or_stored),
    VIBE_TEST(layers_are_not_what_most_of_the_file_is),
    VIBE_TEST(keys_are_left_to_the_gpu),
    VIBE_TEST(keys_beside_int4_are_float8),
    VIBE_TEST(keys_are_as_asked),
    VIBE_TEST(keys_of_a_cpu_are_left_to_it),
    VIBE_TEST(keys_are_exact_where_all_is),
};

VIBE_TEST_MAIN(tests)
