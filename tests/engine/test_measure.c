#include "engine/measure.h"

#include <stdlib.h>

#include "engine/backend/heap.h"
#include "engine/backend/tiles.h"
#include "engine/base/size.h"
#include "tests/support/golden.h"
#include "tests/support/vibe_test.h"

struct fixture {
    struct golden g;
    struct vibe_measured what;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f)
        return -1;
    golden_open(&f->g, 0);
    f->what = (struct vibe_measured){
        .w = f->g.w,
        .config = &f->g.config,
        .control_ids = f->g.control,
        .n_dialogues = 1,
        .steps = 10,
        .kv_dtype = VIBE_BF16,
    };
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    golden_release(&f->g);
    free(f);
    return 0;
}

static struct vibe_plan_model measured(const struct fixture *f)
{
    struct vibe_plan_model m;

    assert_int_equal(vibe_measure(&m, &f->what, NULL), VIBE_OK);
    return m;
}

/* Elements of a layer's matrices, rows padded to 16. */
static size_t layer_weights(const struct vibe_lm_config *c)
{
    const size_t H = c->hidden_size;
    const size_t kv = c->num_key_value_heads * c->head_dim;

    assert_int_equal(H % 16, 0);
    return 2 * H * (H + kv) + 2 * c->intermediate_size * H +
           H * ((c->intermediate_size + 15) / 16 * 16);
}

static void rows_are_those_of_the_layers(void **state)
{
    struct fixture *f = *state;
    const struct vibe_lm_config *lm = &f->g.config.lm;
    const size_t weights = lm->num_hidden_layers * layer_weights(lm);

    f->what.lm = VIBE_WEIGHTS_BF16;
    assert_int_equal(measured(f).rows, 2 * weights);
    f->what.lm = VIBE_WEIGHTS_F8_E4M3;
    assert_int_equal(measured(f).rows, weights);
    assert_int_equal(measured(f).n_layers, lm->num_hidden_layers);
}

/* Of a matrix in tiles, as a heap hands memory out. */
static size_t tiles(enum vibe_dtype dtype, size_t N, size_t K)
{
    return vibe_size_round(vibe_tiles_bytes(dtype, N, K), VIBE_HEAP_ALIGNMENT);
}

/* Of a layer's, but for that of inner columns. */
static size_t layer_tiles(const struct vibe_lm_config *c, enum vibe_dtype dtype)
{
    const size_t H = c->hidden_size;
    const size_t kv = c->num_key_value_heads * c->head_dim;

    return tiles(dtype, H + 2 * kv, H) + tiles(dtype, H, H) +
           tiles(dtype, 2 * c->intermediate_size, H);
}

static void tiles_are_whole(void **state)
{
    struct fixture *f = *state;
    const struct vibe_lm_config *lm = &f->g.config.lm;
    const size_t inner = lm->intermediate_size;

    f->what.lm = VIBE_WEIGHTS_BF16_PACKED;
    assert_int_equal(measured(f).rows,
                     lm->num_hidden_layers *
                         (layer_tiles(lm, VIBE_BF16_PACKED) +
                          tiles(VIBE_BF16_PACKED, lm->hidden_size, inner)));
    f->what.lm = VIBE_WEIGHTS_I4;
    /* rows that are no whole groups are int8 */
    assert_int_equal(inner % 64, 32);
    assert_int_equal(measured(f).rows,
                     lm->num_hidden_layers *
                         (layer_tiles(lm, VIBE_I4) + lm->hidden_size * inner));
}

static void every_part_takes_something(void **state)
{
    const struct vibe_plan_model m = measured(*state);

    assert_true(m.lm > 0 && m.head > 0 && m.codec > 0 && m.connectors > 0);
    assert_true(m.head_prepared > 0 && m.states > 0 && m.encoder > 0);
    assert_true(m.codec > m.codec_reads);
}

static void keys_and_values_are_counted_by_block(void **state)
{
    struct fixture *f = *state;
    const struct vibe_lm_config *lm = &f->g.config.lm;

    assert_int_equal(measured(f).kv_block, lm->num_hidden_layers * 2 *
                                               lm->num_key_value_heads *
                                               lm->head_dim * 2 * 256);
    f->what.kv_dtype = VIBE_F32;
    assert_int_equal(measured(f).kv_block, lm->num_hidden_layers * 2 *
                                               lm->num_key_value_heads *
                                               lm->head_dim * 4 * 256);
}

static void more_dialogues_need_more_state_and_no_more_weights(void **state)
{
    struct fixture *f = *state;
    const struct vibe_plan_model one = measured(f);
    struct vibe_plan_model four;

    f->what.n_dialogues = 4;
    four = measured(f);
    assert_true(four.states > 3 * one.states);
    assert_int_equal(four.rows, one.rows);
    assert_int_equal(four.encoder, one.encoder);
}

/* Nobody has spoken when that is counted. */
static void modulations_are_counted_for_every_dialogue(void **state)
{
    struct fixture *f = *state;
    const struct vibe_plan_model one = measured(f);

    f->what.n_dialogues = 4;

    /* a row with the prompt and one without, a shift and a scale at least */
    assert_true(measured(f).head_prepared - one.head_prepared >
                3 * 2 * f->what.steps * 2 * f->g.config.lm.hidden_size *
                    sizeof(float));
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(rows_are_those_of_the_layers),
    VIBE_TEST(tiles_are_whole),
    VIBE_TEST(every_part_takes_something),
    VIBE_TEST(keys_and_values_are_counted_by_block),
    VIBE_TEST(more_dialogues_need_more_state_and_no_more_weights),
    VIBE_TEST(modulations_are_counted_for_every_dialogue),
};

VIBE_TEST_MAIN(tests)
