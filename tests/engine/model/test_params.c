#include "engine/model/params.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/backend/ops.h"
#include "engine/format/safetensors_write.h"
#include "engine/format/weights.h"
#include "tests/support/vibe_test.h"

enum { MAX_ITEMS = 8 };

/* A checkpoint of one small module, and that module. */
struct fixture {
    char path[64];
    struct vibe_safetensors_item items[MAX_ITEMS];
    size_t n_items;
    struct vibe_weights *w;
    struct vibe_backend *be;
    struct vibe_stream stream;
    struct vibe_params params;
    const float *norm, *taps, *table;
    struct vibe_matrix two_parts;
    struct vibe_error err;
};

static const float norm_values[] = {1, 2, 3};
static const float taps_values[] = {1, 2, 3, 4, 5, 6}; /* [2][1][3] */
static const float a_values[] = {1, 2, 3, 4};          /* [2][2] */
static const float a_bias[] = {10, 20};
static const float b_values[] = {5, 6}; /* [1][2] */
static const float b_bias[] = {30};
static const float table_values[] = {7, 8};

static void add(struct fixture *f, const char *name, const float *data,
                size_t n_dims, size_t d0, size_t d1, size_t d2)
{
    assert_true(f->n_items < MAX_ITEMS);
    f->items[f->n_items++] = (struct vibe_safetensors_item){
        .name = name,
        .dtype = VIBE_F32,
        .n_dims = n_dims,
        .shape = {d0, d1, d2},
        .data = data,
    };
}

static int setup(void **state)
{
    const struct vibe_backend_options options = {.threads = 1};
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f || vibe_backend_open(&f->be, &options, NULL) ||
        vibe_stream_init(&f->stream, f->be, NULL))
        return -1;
    snprintf(f->path, sizeof(f->path), "/tmp/vibe_test_params.%ld.safetensors",
             (long)getpid());
    add(f, "model.m.norm.weight", norm_values, 1, 3, 0, 0);
    add(f, "model.m.a.weight", a_values, 2, 2, 2, 0);
    add(f, "model.m.a.bias", a_bias, 1, 2, 0, 0);
    add(f, "model.m.b.weight", b_values, 2, 1, 2, 0);
    add(f, "model.m.b.bias", b_bias, 1, 1, 0, 0);
    add(f, "model.m.conv.weight", taps_values, 3, 2, 1, 3);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vibe_params_release(&f->params);
    vibe_stream_release(&f->stream);
    vibe_backend_free(f->be);
    vibe_weights_free(f->w);
    unlink(f->path);
    free(f);
    return 0;
}

static void bind(struct vibe_loader *l, void *module)
{
    struct fixture *f = module;
    const struct vibe_matrix_names names = {
        .part = {"a", "b"},
        .rows = {2, 1},
        .in = 2,
        .has_bias = 1,
    };

    vibe_loader_scope(l, "model.%s.", "m");
    vibe_load_vector(l, &f->norm, "norm.weight", 3);
    vibe_load_matrix(l, &f->two_parts, &names);
    vibe_load_values(l, &f->table, table_values, 2);
    vibe_load_taps(l, &f->taps, "conv.weight", 2, 3);
}

/* Write the checkpoint and load the module. */
static int load(struct fixture *f)
{
    assert_int_equal(
        vibe_safetensors_write(f->path, f->items, f->n_items, NULL), VIBE_OK);
    assert_int_equal(vibe_weights_open(&f->w, f->path, NULL), VIBE_OK);
    return vibe_params_init(&f->params, f->be, f->w, bind, f, &f->err);
}

static void nothing_is_loaded_before_all_is_checked(void **state)
{
    struct fixture *f = *state;

    f->n_items--; /* the last tensor that is asked for */

    assert_int_equal(load(f), VIBE_E_FORMAT);
    assert_non_null(strstr(f->err.msg, "model.m.conv.weight"));
    assert_null(f->norm);
    assert_int_equal(f->params.n_matrices, 0);
    assert_int_equal(vibe_params_check(f->w, bind, f, NULL), VIBE_E_FORMAT);
}

static void a_bias_of_another_length_is_refused(void **state)
{
    struct fixture *f = *state;

    f->items[4] = f->items[2];
    f->items[4].name = "model.m.b.bias";

    assert_int_equal(load(f), VIBE_E_FORMAT);
    assert_non_null(strstr(f->err.msg, "model.m.b.bias"));
}

static void vectors_are_loaded_in_place(void **state)
{
    static const float turned[] = {1, 4, 2, 5, 3, 6}; /* [taps][channels] */
    struct fixture *f = *state;

    assert_int_equal(load(f), VIBE_OK);

    /* the CPU's device memory can be looked at */
    assert_memory_equal(f->norm, norm_values, sizeof(norm_values));
    assert_memory_equal(f->taps, turned, sizeof(turned));
    assert_memory_equal(f->table, table_values, sizeof(table_values));
}

static void parts_are_stacked_with_their_biases(void **state)
{
    static const float x[] = {1, -1};
    static const float want[] = {9, 19, 29};
    struct fixture *f = *state;
    float got[3];
    struct vibe_tensor in, out;

    assert_int_equal(load(f), VIBE_OK);
    assert_int_equal(vibe_tensor_init(&in, f->be, VIBE_F32, 1, 1, 2, NULL),
                     VIBE_OK);
    assert_int_equal(vibe_tensor_init(&out, f->be, VIBE_F32, 1, 1, 3, NULL),
                     VIBE_OK);
    vibe_write(&f->stream, in.data, x, sizeof(x));
    vibe_linear(&f->stream, &out, &in, &f->two_parts, VIBE_STORE, NULL);
    vibe_read(&f->stream, got, out.data, sizeof(got));

    assert_int_equal(vibe_stream_check(&f->stream, NULL), VIBE_OK);
    assert_memory_equal(got, want, sizeof(want)); /* small integers: exact */
    assert_int_equal(vibe_params_bytes(&f->params), sizeof(float) * 3 * 2);
    vibe_tensor_release(&out, f->be);
    vibe_tensor_release(&in, f->be);
}

static void a_float8_that_is_nan_is_refused_by_name(void **state)
{
    static const unsigned char codes[] = {0x38, 0x7E, 0xFF, 0};
    struct fixture *f = *state;

    f->items[1].dtype = VIBE_F8_E4M3;
    f->items[1].data = codes;

    assert_int_equal(load(f), VIBE_E_FORMAT);
    assert_non_null(strstr(f->err.msg, "tensor model.m.a.weight holds NaN"));
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(nothing_is_loaded_before_all_is_checked),
    VIBE_TEST(a_bias_of_another_length_is_refused),
    VIBE_TEST(vectors_are_loaded_in_place),
    VIBE_TEST(parts_are_stacked_with_their_biases),
    VIBE_TEST(a_float8_that_is_nan_is_refused_by_name),
};

VIBE_TEST_MAIN(tests)
