/* Opening recorded results and comparing with them, see golden.h. */
#include "tests/support/golden.h"

#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/backend/ops.h"
#include "engine/base/error.h"
#include "engine/base/worst.h"
#include "engine/format/safetensors.h"
#include "engine/format/weights.h"
#include "tests/support/vibe_test.h"

static const char *const names[GOLDEN_MODELS] = {"tiny_tied", "tiny_fp8"};

static void read_control(struct golden *g, const char *path)
{
    static const char *const keys[] = {"start", "end", "diffusion", "eos"};
    json_t *root = json_load_file(path, 0, NULL);

    assert_non_null(root);
    for (size_t i = 0; i < 4; i++)
        g->control[i] = (int32_t)json_integer_value(
            json_object_get(root, keys[i]));
    json_decref(root);
}

void golden_open(struct golden *g, size_t i)
{
    const struct vibe_backend_options options = {.threads = 1};
    char path[128];

    assert_true(i < GOLDEN_MODELS);
    *g = (struct golden){.name = names[i]};
    snprintf(path, sizeof(path), "tests/golden/%s", g->name);
    assert_int_equal(vibe_weights_open(&g->w, path, NULL), VIBE_OK);
    snprintf(path, sizeof(path), "tests/golden/%s/config.json", g->name);
    assert_int_equal(vibe_config_read(&g->config, path, NULL), VIBE_OK);
    snprintf(path, sizeof(path), "tests/golden/%s/golden.safetensors", g->name);
    assert_int_equal(vibe_safetensors_open(&g->recorded, path, NULL), VIBE_OK);
    snprintf(path, sizeof(path), "tests/golden/%s/golden.json", g->name);
    read_control(g, path);
    assert_int_equal(vibe_backend_open(&g->be, &options, NULL), VIBE_OK);
    assert_int_equal(vibe_stream_init(&g->stream, g->be, NULL), VIBE_OK);
}

void golden_release(struct golden *g)
{
    vibe_stream_release(&g->stream);
    vibe_backend_free(g->be);
    vibe_safetensors_free(g->recorded);
    vibe_weights_free(g->w);
    *g = (struct golden){0};
}

static const struct vibe_st_tensor *find(const struct golden *g,
                                         const char *name,
                                         enum vibe_dtype dtype)
{
    const struct vibe_st_tensor *t = vibe_safetensors_find(g->recorded, name);

    if (!t) {
        fail_msg("%s: no %s among the recorded results", g->name, name);
        abort(); /* not reached: fail_msg jumps, which analysers cannot see */
    }
    assert_true(t->is_known && t->dtype == dtype);
    assert_true(t->n_dims <= 4);
    /* the script that records them aligns them, so they can be used here */
    assert_int_equal((uintptr_t)t->data % vibe_dtype_size(dtype), 0);
    return t;
}

struct golden_tensor golden_get(const struct golden *g, const char *fmt, ...)
{
    char name[128];
    const struct vibe_st_tensor *t;
    struct golden_tensor out = {0};
    va_list args;

    va_start(args, fmt);
    vsnprintf(name, sizeof(name), fmt, args);
    va_end(args);
    t = find(g, name, VIBE_F32);
    out.data = t->data;
    out.n = t->n;
    out.n_dims = t->n_dims;
    memcpy(out.shape, t->shape, t->n_dims * sizeof(out.shape[0]));
    return out;
}

const int64_t *golden_ids(const struct golden *g, const char *name, size_t *n)
{
    const struct vibe_st_tensor *t = find(g, name, VIBE_I64);

    *n = t->n;
    return t->data;
}

double golden_error(const float *got, const float *want, size_t n)
{
    double worst = 0.0;

    for (size_t i = 0; i < n; i++)
        worst = vibe_worst(worst, fabs((double)got[i] - (double)want[i]));
    return worst;
}

void golden_assert(const char *what, const float *got, const float *want,
                   size_t n)
{
    double largest = 1.0;
    double error = golden_error(got, want, n);

    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, fabs((double)want[i]));
    if (!(error <= 1e-4 * largest))
        fail_msg("%s: off by %.3g, at most %.3g", what, error, 1e-4 * largest);
}

struct vibe_tensor golden_put(struct golden *g, const float *host, size_t B,
                              size_t T, size_t C)
{
    struct vibe_tensor t;

    assert_int_equal(vibe_tensor_init(&t, g->be, VIBE_F32, B, T, C, NULL),
                     VIBE_OK);
    if (host)
        vibe_write(&g->stream, t.data, host, B * T * C * sizeof(*host));
    return t;
}

void golden_take(struct golden *g, float *host, const struct vibe_tensor *t)
{
    struct vibe_error err;

    vibe_read(&g->stream, host, t->data, t->B * t->T * t->C * sizeof(*host));
    if (vibe_stream_check(&g->stream, &err))
        fail_msg("%s", err.msg);
}
