#include "engine/model/connector.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/error.h"
#include "engine/format/config.h"
#include "engine/format/safetensors_write.h"
#include "engine/format/weights.h"
#include "tests/support/golden.h"
#include "tests/support/vibe_test.h"

static const char ACOUSTIC[] = "model.acoustic_connector.";
static const char SEMANTIC[] = "model.semantic_connector.";

struct fixture {
    struct golden g;
    struct vibe_connector *acoustic, *semantic;
    size_t in, sem, hidden;
    struct vibe_error err;
};

VIBE_TEST_FIXTURE(struct fixture)

static void open_connectors(struct fixture *f, size_t model)
{
    golden_open(&f->g, model);
    f->in = f->g.config.acoustic_decoder.vae_dim;
    f->sem = f->g.config.semantic_encoder.vae_dim;
    f->hidden = f->g.config.lm.hidden_size;
    assert_int_equal(vibe_connector_open(&f->acoustic, f->g.be, f->g.w,
                                         ACOUSTIC, f->in, f->hidden, 1,
                                         &f->err),
                     VIBE_OK);
    assert_int_equal(vibe_connector_open(&f->semantic, f->g.be, f->g.w,
                                         SEMANTIC, f->sem, f->hidden, 1,
                                         &f->err),
                     VIBE_OK);
}

static void close_connectors(struct fixture *f)
{
    vibe_connector_free(f->acoustic);
    vibe_connector_free(f->semantic);
    golden_release(&f->g);
}

/* y[T][hidden] = acoustic connector of x[T][in]. */
static void project(struct fixture *f, float *y, const float *x, size_t T)
{
    struct vibe_tensor in = golden_put(&f->g, x, 1, T, f->in);
    struct vibe_tensor out = golden_put(&f->g, NULL, 1, T, f->hidden);

    vibe_connector_forward(f->acoustic, &f->g.stream, &out, &in, VIBE_STORE);
    golden_take(&f->g, y, &out);
    vibe_tensor_release(&out, f->g.be);
    vibe_tensor_release(&in, f->g.be);
}

static void open_names_the_misshapen_tensor(void **state)
{
    struct fixture *f = *state;

    golden_open(&f->g, 0);

    assert_int_equal(vibe_connector_open(&f->semantic, f->g.be, f->g.w,
                                         SEMANTIC, 7, 64, 1, &f->err),
                     VIBE_E_FORMAT);
    assert_null(f->semantic);
    assert_non_null(strstr(f->err.msg, "semantic_connector.fc1.weight"));
    assert_int_equal(vibe_connector_check(f->g.w, SEMANTIC, 7, 64, NULL),
                     VIBE_E_FORMAT);
    golden_release(&f->g);
}

static void embeddings_of_frames_equal_the_record(void **state)
{
    struct fixture *f = *state;

    for (size_t model = 0; model < GOLDEN_MODELS; model++) {
        size_t n_frames;

        open_connectors(f, model);
        n_frames = golden_get(&f->g, "codec.decode_input").n / f->in;
        for (size_t i = 0; i < n_frames; i++) {
            struct golden_tensor latent = golden_get(&f->g, "frame%03zu.latent",
                                                     i);
            struct golden_tensor features = golden_get(
                &f->g, "frame%03zu.semantic", i);
            struct golden_tensor want = golden_get(&f->g,
                                                   "frame%03zu.next_embed", i);
            struct vibe_tensor x = golden_put(&f->g, latent.data, 1, 1, f->in);
            struct vibe_tensor s = golden_put(&f->g, features.data, 1, 1,
                                              f->sem);
            struct vibe_tensor y = golden_put(&f->g, NULL, 1, 1, f->hidden);
            float got[256];
            char what[64];

            vibe_connector_forward(f->acoustic, &f->g.stream, &y, &x,
                                   VIBE_STORE);
            vibe_connector_forward(f->semantic, &f->g.stream, &y, &s, VIBE_ADD);
            golden_take(&f->g, got, &y);
            snprintf(what, sizeof(what), "%s frame %zu", f->g.name, i);
            golden_assert(what, got, want.data, want.n);
            vibe_tensor_release(&y, f->g.be);
            vibe_tensor_release(&s, f->g.be);
            vibe_tensor_release(&x, f->g.be);
        }
        close_connectors(f);
    }
}

/* Scaled latents of both voices, without the shorter one's padding. */
static void voices_project_to_the_record(void **state)
{
    struct fixture *f = *state;

    for (size_t model = 0; model < GOLDEN_MODELS; model++) {
        struct vibe_latent_scale scale;
        struct golden_tensor z, features, embeds;
        float *scaled, *got;
        size_t longest, n = 0;

        open_connectors(f, model);
        z = golden_get(&f->g, "voice.latents_sampled");
        features = golden_get(&f->g, "voice.features");
        embeds = golden_get(&f->g, "voice.embeds");
        longest = z.shape[1];
        scaled = calloc(features.n, sizeof(*scaled));
        got = calloc(embeds.n, sizeof(*got));
        assert_true(scaled && got);
        assert_int_equal(vibe_latent_scale_read(&scale, f->g.w, NULL), VIBE_OK);

        for (size_t v = 0; v < z.shape[0]; v++) {
            size_t frames = golden_get(&f->g, "prompt.voice%zu_raw", v).n /
                            f->g.config.hop;
            const float *from = z.data + v * longest * f->in;

            for (size_t i = 0; i < frames * f->in; i++)
                scaled[n++] = (from[i] + scale.bias) * scale.scale;
        }
        assert_int_equal(n, features.n);
        golden_assert("features", scaled, features.data, n);
        project(f, got, features.data, n / f->in);
        golden_assert("embeds", got, embeds.data, embeds.n);

        free(got);
        free(scaled);
        close_connectors(f);
    }
}

/* A long clip is projected in blocks of rows; each row keeps its bits. */
static void long_clips_are_projected_in_blocks(void **state)
{
    enum { T = 300 };
    struct fixture *f = *state;
    struct golden_tensor features;
    float *x, *y;

    open_connectors(f, 0);
    features = golden_get(&f->g, "voice.features");
    x = calloc(T * f->in, sizeof(*x));
    y = calloc(T * f->hidden, sizeof(*y));
    assert_true(x && y);
    for (size_t t = 0; t < T; t++)
        memcpy(x + t * f->in, features.data + t % 7 * f->in,
               f->in * sizeof(*x));
    project(f, y, x, T);

    for (size_t t = 7; t < T; t++)
        assert_memory_equal(y + t * f->hidden, y + t % 7 * f->hidden,
                            f->hidden * sizeof(*y));
    free(y);
    free(x);
    close_connectors(f);
}

/* Write a checkpoint of the two scalars and read it. */
static int read_scale(struct fixture *f, float scale, float bias)
{
    const struct vibe_safetensors_item items[] = {
        {"model.speech_scaling_factor", VIBE_F32, 0, {0}, &scale},
        {"model.speech_bias_factor", VIBE_F32, 0, {0}, &bias},
    };
    struct vibe_latent_scale out;
    struct vibe_weights *w = NULL;
    char path[64];
    int rc;

    snprintf(path, sizeof(path), "/tmp/vibe_test_connector.%ld.safetensors",
             (long)getpid());
    assert_int_equal(vibe_safetensors_write(path, items, 2, NULL), VIBE_OK);
    rc = vibe_weights_open(&w, path, &f->err);
    if (!rc)
        rc = vibe_latent_scale_read(&out, w, &f->err);
    vibe_weights_free(w);
    unlink(path);
    return rc;
}

static void a_scale_that_was_never_trained_is_refused(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(read_scale(f, NAN, 0.5f), VIBE_E_FORMAT);
    assert_non_null(strstr(f->err.msg, "speech_scaling_factor"));
    assert_int_equal(read_scale(f, 0.5f, NAN), VIBE_E_FORMAT);
    assert_non_null(strstr(f->err.msg, "speech_bias_factor"));
    assert_int_equal(read_scale(f, 0.0f, 0.5f), VIBE_E_FORMAT);
    assert_int_equal(read_scale(f, INFINITY, 0.5f), VIBE_E_FORMAT);
    assert_int_equal(read_scale(f, 0.5f, 0.0f), VIBE_OK);
}

static void the_scale_of_latents_is_read(void **state)
{
    struct fixture *f = *state;
    struct vibe_latent_scale scale;

    golden_open(&f->g, 1);

    assert_int_equal(vibe_latent_scale_read(&scale, f->g.w, NULL), VIBE_OK);
    assert_true(scale.scale != 0.0f);
    golden_release(&f->g);
}

static void rounded_scalars_of_a_release_are_put_back(void **state)
{
    const struct vibe_lm_config large = {.num_hidden_layers = 28,
                                         .hidden_size = 3584,
                                         .intermediate_size = 18944};
    const struct vibe_lm_config own = {
        .num_hidden_layers = 2, .hidden_size = 64, .intermediate_size = 128};
    struct vibe_latent_scale scale = {0.203125f, -0.05078125f};
    struct vibe_latent_scale other = {0.25f, -0.05078125f};

    (void)state;
    assert_false(vibe_latent_scale_restore(&scale, &own));
    assert_false(vibe_latent_scale_restore(&other, &large));
    assert_true(other.scale == 0.25f);
    assert_true(vibe_latent_scale_restore(&scale, &large));
    assert_true(scale.scale == 0.1962890625f);
    assert_true(scale.bias == -0.04931640625f);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(open_names_the_misshapen_tensor),
    VIBE_TEST(a_scale_that_was_never_trained_is_refused),
    VIBE_TEST(embeddings_of_frames_equal_the_record),
    VIBE_TEST(voices_project_to_the_record),
    VIBE_TEST(long_clips_are_projected_in_blocks),
    VIBE_TEST(the_scale_of_latents_is_read),
    VIBE_TEST(rounded_scalars_of_a_release_are_put_back),
};

VIBE_TEST_MAIN(tests)
