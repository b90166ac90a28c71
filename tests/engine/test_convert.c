/* What a conversion leaves, and what it leaves alone. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/format/safetensors_write.h"
#include "engine/vibevoice.h"
#include "tests/support/scratch.h"
#include "tests/support/vibe_test.h"
#include "tests/support/weights_dir.h"

struct fixture {
    struct vibe_scratch scratch;
    struct vibe_error err;
    char model[600];
};

static const struct vibe_precision int8 = {.lm = VIBE_WEIGHTS_I8};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f || vibe_scratch_enter(&f->scratch))
        return -1;
    snprintf(f->model, sizeof(f->model), "%s/tests/golden/tiny_tied",
             f->scratch.start);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    const int rc = vibe_scratch_leave(&f->scratch);

    free(f);
    return rc;
}

static int always(void)
{
    return 1;
}

static int never(void)
{
    return 0;
}

static void stopped_it_leaves_nothing(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(vibe_convert(f->model, "x", &int8, always, &f->err),
                     VIBE_E_IO);
    assert_string_equal(f->err.msg, "x: interrupted");
    assert_int_equal(vibe_file_count(), 0);
}

static void not_stopped_it_leaves_one_file(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(vibe_convert(f->model, "x", &int8, never, &f->err),
                     VIBE_OK);
    assert_int_equal(vibe_file_count(), 1);
}

static void no_shard_of_its_model_is_overwritten(void **state)
{
    static const char
        index[] = "{\"weight_map\":{\"a.weight\":\"1.safetensors\","
                  "\"b.weight\":\"2.safetensors\"}}";
    struct fixture *f = *state;

    for (size_t i = 0; i < 2; i++) {
        const struct vibe_safetensors_item item = weights_matrix(
            i ? "b.weight" : "a.weight", 2, 3);

        assert_int_equal(
            vibe_safetensors_write(i ? "2.safetensors" : "1.safetensors", &item,
                                   1, &f->err),
            VIBE_OK);
    }
    vibe_file_write("model.safetensors.index.json", index, strlen(index));

    assert_int_equal(vibe_convert(".", "2.safetensors", &int8, NULL, &f->err),
                     VIBE_E_IO);
    assert_string_equal(f->err.msg,
                        "2.safetensors: is a file of the model that is "
                        "converted, expected another one");
    assert_int_equal(vibe_convert(".", "3.safetensors", &int8, NULL, &f->err),
                     VIBE_OK);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(stopped_it_leaves_nothing),
    VIBE_TEST(not_stopped_it_leaves_one_file),
    VIBE_TEST(no_shard_of_its_model_is_overwritten),
};

VIBE_TEST_MAIN(tests)
