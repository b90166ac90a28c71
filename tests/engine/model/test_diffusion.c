#include "engine/model/diffusion.h"

#include <stdio.h>
#include <string.h>

#include "engine/backend/ops.h"
#include "engine/format/weights.h"
#include "tests/support/golden.h"
#include "tests/support/vibe_test.h"

enum { STEPS = 10, MAX_DIALOGUES = 3 };

static const float CFG_SCALE = 1.3f; /* of the records */

struct fixture {
    struct golden g;
    struct vibe_diffusion *head;
    struct vibe_error err;
};

VIBE_TEST_FIXTURE(struct fixture)

static void open_head(struct fixture *f, size_t model, size_t n_dialogues)
{
    golden_open(&f->g, model);
    assert_int_equal(vibe_diffusion_open(&f->head, f->g.be, f->g.w,
                                         &f->g.config.head, n_dialogues,
                                         &f->err),
                     VIBE_OK);
}

static void close_head(struct fixture *f)
{
    vibe_diffusion_free(f->head);
    f->head = NULL;
    golden_release(&f->g);
}

/* The number of recorded frames. */
static size_t count_frames(const struct golden *g)
{
    size_t C = g->config.head.latent_size;

    return golden_get(g, "codec.decode_input").n / C;
}

/*
 * Sample D recorded frames together.
 *
 *   latent   [D][latent_size]
 *   frame    [D]
 */
static void sample(struct fixture *f, float *latent, const size_t *frame,
                   size_t D)
{
    struct golden *g = &f->g;
    size_t C = g->config.head.latent_size;
    size_t H = g->config.head.hidden_size;
    struct vibe_tensor x = golden_put(g, NULL, D, 1, C);
    struct vibe_tensor cond = golden_put(g, NULL, 2 * D, 1, H);
    const float scales[MAX_DIALOGUES] = {CFG_SCALE, CFG_SCALE, CFG_SCALE};
    struct vibe_tensor cfg = golden_put(g, scales, 1, 1, D);

    for (size_t d = 0; d < D; d++) {
        struct golden_tensor noise = golden_get(g, "frame%03zu.noise0",
                                                frame[d]);
        struct golden_tensor pos = golden_get(g, "frame%03zu.pos_condition",
                                              frame[d]);
        struct golden_tensor neg = golden_get(g, "frame%03zu.neg_condition",
                                              frame[d]);

        vibe_write(&g->stream, (float *)x.data + d * C, noise.data,
                   C * sizeof(float));
        vibe_write(&g->stream, (float *)cond.data + d * H, pos.data,
                   H * sizeof(float));
        vibe_write(&g->stream, (float *)cond.data + (D + d) * H, neg.data,
                   H * sizeof(float));
    }
    vibe_diffusion_sample(f->head, &g->stream, &x, &cond, cfg.data);
    golden_take(g, latent, &x);
    vibe_tensor_release(&cfg, g->be);
    vibe_tensor_release(&cond, g->be);
    vibe_tensor_release(&x, g->be);
}

static void open_names_the_missing_tensor(void **state)
{
    struct fixture *f = *state;
    struct vibe_head_config config;

    golden_open(&f->g, 0);
    config = f->g.config.head;
    config.head_layers++;

    assert_int_equal(
        vibe_diffusion_open(&f->head, f->g.be, f->g.w, &config, 1, &f->err),
        VIBE_E_FORMAT);
    assert_null(f->head);
    assert_non_null(strstr(f->err.msg, "layers.2."));
    assert_int_equal(vibe_diffusion_check(f->g.w, &config, NULL),
                     VIBE_E_FORMAT);
    golden_release(&f->g);
}

static void open_names_the_misshapen_tensor(void **state)
{
    struct fixture *f = *state;
    struct vibe_head_config config;

    golden_open(&f->g, 1);
    config = f->g.config.head;
    config.latent_size++;

    assert_int_equal(
        vibe_diffusion_open(&f->head, f->g.be, f->g.w, &config, 1, &f->err),
        VIBE_E_FORMAT);
    assert_non_null(strstr(f->err.msg, "noisy_images_proj"));
    golden_release(&f->g);
}

static void prepare_refuses_no_steps(void **state)
{
    struct fixture *f = *state;

    open_head(f, 0, 1);

    assert_int_equal(vibe_diffusion_prepare(f->head, &f->g.stream, 0, &f->err),
                     VIBE_E_ARG);
    close_head(f);
}

static void every_recorded_frame_is_sampled(void **state)
{
    struct fixture *f = *state;

    for (size_t model = 0; model < GOLDEN_MODELS; model++) {
        open_head(f, model, 1);
        assert_int_equal(
            vibe_diffusion_prepare(f->head, &f->g.stream, STEPS, &f->err),
            VIBE_OK);
        for (size_t i = 0; i < count_frames(&f->g); i++) {
            struct golden_tensor want = golden_get(&f->g, "frame%03zu.latent",
                                                   i);
            float latent[256];
            char what[64];

            assert_true(want.n <= 256);
            sample(f, latent, &i, 1);
            snprintf(what, sizeof(what), "%s frame %zu", f->g.name, i);
            golden_assert(what, latent, want.data, want.n);
        }
        close_head(f);
    }
}

/* A row depends on itself alone: neighbours change no bit. */
static void a_dialogue_is_sampled_alike_in_any_batch(void **state)
{
    struct fixture *f = *state;
    const size_t frames[MAX_DIALOGUES] = {4, 1, 2};
    float alone[MAX_DIALOGUES][256];
    float together[MAX_DIALOGUES * 256];
    size_t C;

    open_head(f, 0, 1);
    C = f->g.config.head.latent_size;
    assert_int_equal(
        vibe_diffusion_prepare(f->head, &f->g.stream, STEPS, &f->err), VIBE_OK);
    for (size_t d = 0; d < MAX_DIALOGUES; d++)
        sample(f, alone[d], &frames[d], 1);
    close_head(f);

    open_head(f, 0, MAX_DIALOGUES);
    assert_int_equal(
        vibe_diffusion_prepare(f->head, &f->g.stream, STEPS, &f->err), VIBE_OK);
    sample(f, together, frames, MAX_DIALOGUES);
    for (size_t d = 0; d < MAX_DIALOGUES; d++)
        assert_memory_equal(together + d * C, alone[d], C * sizeof(float));
    close_head(f);
}

/*
 * More steps than modulations are held for (64) are done in groups; finer
 * steps come closer to the same solution.  The model is random, so this only
 * says that 65 and 130 steps solve the same equation: they differ by less
 * than 10 and 130 do.
 */
static void many_steps_are_done_in_groups(void **state)
{
    static const size_t steps[] = {10, 65, 130};
    struct fixture *f = *state;
    const size_t frame = 0;
    float latent[3][256];
    size_t C;

    open_head(f, 0, 1);
    C = f->g.config.head.latent_size;
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(
            vibe_diffusion_prepare(f->head, &f->g.stream, steps[i], &f->err),
            VIBE_OK);
        sample(f, latent[i], &frame, 1);
    }

    assert_true(golden_error(latent[1], latent[2], C) <
                golden_error(latent[0], latent[2], C));
    close_head(f);
}

static void preparing_again_changes_nothing(void **state)
{
    struct fixture *f = *state;
    const size_t frame = 1;
    float first[256], second[256];

    open_head(f, 1, 1);
    assert_int_equal(
        vibe_diffusion_prepare(f->head, &f->g.stream, STEPS, &f->err), VIBE_OK);
    sample(f, first, &frame, 1);
    assert_int_equal(vibe_diffusion_prepare(f->head, &f->g.stream, 3, &f->err),
                     VIBE_OK);
    sample(f, second, &frame, 1);
    assert_int_equal(
        vibe_diffusion_prepare(f->head, &f->g.stream, STEPS, &f->err), VIBE_OK);
    sample(f, second, &frame, 1);

    assert_memory_equal(first, second,
                        f->g.config.head.latent_size * sizeof(float));
    close_head(f);
}

/* cond_proj and adaLN once per frame, the rest once per step; the records'
 * model is all BF16. */
static void bytes_count_what_a_frame_reads(void **state)
{
    struct fixture *f = *state;
    size_t H, F, C, layers;

    open_head(f, 0, 1);
    H = f->g.config.head.hidden_size;
    F = f->g.config.head.ffn_size;
    C = f->g.config.head.latent_size;
    layers = f->g.config.head.head_layers;

    assert_int_equal(vibe_diffusion_frame_bytes(f->head),
                     2 * (H * H + layers * 3 * H * H + 2 * H * H));
    assert_int_equal(vibe_diffusion_step_bytes(f->head),
                     2 * (2 * H * C + layers * 3 * H * F));
    close_head(f);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(open_names_the_missing_tensor),
    VIBE_TEST(open_names_the_misshapen_tensor),
    VIBE_TEST(prepare_refuses_no_steps),
    VIBE_TEST(every_recorded_frame_is_sampled),
    VIBE_TEST(a_dialogue_is_sampled_alike_in_any_batch),
    VIBE_TEST(many_steps_are_done_in_groups),
    VIBE_TEST(preparing_again_changes_nothing),
    VIBE_TEST(bytes_count_what_a_frame_reads),
};

VIBE_TEST_MAIN(tests)
