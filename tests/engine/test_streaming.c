/* A model says the same, bit for bit, however little of it is resident. */
#include "engine/streaming.h"

#include <math.h>
#include <stdlib.h>

#include "engine/engine.h"
#include "engine/model/kvcache.h"
#include "engine/vibevoice.h"
#include "tests/support/spoken.h"
#include "tests/support/vibe_test.h"

enum { MODELS = 2 };

static const char *const models[MODELS] = {"tests/golden/tiny_tied",
                                           "tests/golden/tiny_fp8"};

struct fixture {
    struct vibe_script script;
    struct vibe_error err;
    struct spoken whole[MODELS], streamed;
    struct vibe_offload_stats stats; /* of the last engine */
    struct vibe_streaming_stats clears;
    int has_no_room;          /* keys and values take memory that rows have */
    struct vibe_engine *like; /* whose host copy the others share */
};

static void speak(struct fixture *f, struct spoken *spoken, const char *model,
                  const struct vibe_weight_streaming *streaming)
{
    const struct vibe_engine_options options = {
        .model = model,
        .device = VIBE_DEVICE_CPU,
        .threads = 2,
        .like = f->like,
        .streaming = *streaming,
    };
    struct vibe_engine *engine = NULL;

    spoken->n = 0;
    assert_int_equal(vibe_engine_open(&engine, &options, &f->err), VIBE_OK);
    if (f->has_no_room)
        vibe_kvcache_limit(engine->generator->cache, 0,
                           vibe_streaming_make_room, &engine->models.streaming);
    spoken_add(spoken, engine, &f->script, 7);
    if (streaming->is_on)
        vibe_offload_count(engine->models.streaming.offload, &f->stats);
    f->clears = engine->models.streaming.stats;
    vibe_engine_free(engine);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    const struct vibe_weight_streaming off = {0};

    if (!f)
        return -1;
    *state = f;
    if (spoken_script(&f->script))
        return -1;
    for (size_t i = 0; i < MODELS; i++)
        speak(f, &f->whole[i], models[i], &off);
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vibe_script_release(&f->script);
    free(f);
    return 0;
}

/* Both models say the same with this. */
static void check(struct fixture *f,
                  const struct vibe_weight_streaming *streaming)
{
    for (size_t i = 0; i < MODELS; i++) {
        speak(f, &f->streamed, models[i], streaming);
        spoken_assert_same(&f->streamed, &f->whole[i]);
    }
}

static void residency_does_not_change_a_sample(void **state)
{
    static const size_t budgets[] = {0, 30000, 100000, 250000, SIZE_MAX};

    for (size_t i = 0; i < sizeof(budgets) / sizeof(*budgets); i++)
        check(*state, &(const struct vibe_weight_streaming){
                          .is_on = 1,
                          .resident_bytes = budgets[i],
                          .chunk_bytes = 16 << 10});
}

static void ring_and_chunk_sizes_do_not_change_a_sample(void **state)
{
    static const struct vibe_weight_streaming cases[] = {
        {.is_on = 1, .chunk_bytes = 1, .ring_slots = 1},
        {.is_on = 1, .chunk_bytes = 20000, .ring_slots = 2},
        {.is_on = 1, .chunk_bytes = 1 << 20, .ring_slots = 5},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        check(*state, &cases[i]);
}

static void ways_of_copying_do_not_change_a_sample(void **state)
{
    static const struct vibe_weight_streaming cases[] = {
        {.is_on = 1, .chunk_bytes = 20000, .is_unpinned = 1},
        {.is_on = 1, .chunk_bytes = 20000, .is_on_demand = 1},
        {.is_on = 1, .chunk_bytes = 20000, .is_synchronous = 1},
        {.is_on = 1, .chunk_bytes = 20000, .host_bytes = 50000},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        check(*state, &cases[i]);
}

/* Both sides of the split are the CPU here, and round alike. */
static void rows_lent_to_the_cpu_do_not_change_a_sample_there(void **state)
{
    static const struct vibe_weight_streaming cases[] = {
        {.is_on = 1, .chunk_bytes = 16 << 10, .cpu_layers = 1.3},
        {.is_on = 1, .chunk_bytes = 16 << 10, .cpu_layers = 99},
        {.is_on = 1,
         .chunk_bytes = 16 << 10,
         .resident_bytes = 100000,
         .cpu_layers = 2},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        check(f, &cases[i]);
        assert_true(f->stats.lent_bytes > 0);
    }
}

static void rows_that_are_lent_are_copied_for_prompts_only(void **state)
{
    struct fixture *f = *state;
    struct vibe_weight_streaming streaming = {.is_on = 1, .cpu_layers = 99};

    speak(f, &f->streamed, models[0], &streaming);
    assert_int_equal(f->stats.streamed_bytes, 0);
    assert_true(f->stats.lent_bytes > 0);
    /* the prompt, and what was copied ahead for another one */
    assert_true(f->stats.bytes >= f->stats.lent_bytes);
    assert_true(f->stats.bytes < 2 * f->stats.lent_bytes);
}

static void measuring_chooses_what_is_lent(void **state)
{
    struct fixture *f = *state;

    check(f, &(const struct vibe_weight_streaming){
                 .is_on = 1, .chunk_bytes = 16 << 10, .cpu_layers = -1});
    assert_true(f->clears.rates.alone > 0);
    assert_true(f->clears.rates.link > 0);
    assert_true(f->clears.rates.host > 0);
}

static void engines_share_a_host_copy_unheard(void **state)
{
    struct fixture *f = *state;
    const struct vibe_weight_streaming first = {
        .is_on = 1, .resident_bytes = 100000, .chunk_bytes = 16 << 10};
    const struct vibe_weight_streaming second = {
        .is_on = 1, .resident_bytes = 60000, .chunk_bytes = 16 << 10};
    const struct vibe_engine_options options = {.model = models[0],
                                                .device = VIBE_DEVICE_CPU,
                                                .threads = 2,
                                                .streaming = first};
    size_t held = 0;

    assert_int_equal(vibe_engine_open(&f->like, &options, &f->err), VIBE_OK);
    speak(f, &f->streamed, models[0], &second);
    vibe_engine_free(f->like);
    f->like = NULL;

    spoken_assert_same(&f->streamed, &f->whole[0]);
    for (int i = 0; i < VIBE_N_PLACES; i++)
        held += f->stats.place_bytes[i];
    /* what the first streams, the second does as well */
    assert_int_equal(held, f->stats.streamed_bytes);
}

static void growing_keys_and_values_demote_unheard(void **state)
{
    struct fixture *f = *state;

    f->has_no_room = 1;
    check(f, &(const struct vibe_weight_streaming){.is_on = 1,
                                                   .resident_bytes = SIZE_MAX,
                                                   .chunk_bytes = 16 << 10});
    f->has_no_room = 0;
    assert_true(f->stats.n_demoted > 0);
    assert_true(f->stats.transfers > 0);
}

static void a_pass_copies_what_is_not_resident(void **state)
{
    struct fixture *f = *state;

    speak(f, &f->streamed, models[0],
          &(const struct vibe_weight_streaming){
              .is_on = 1, .resident_bytes = 100000, .chunk_bytes = 16 << 10});
    assert_true(f->stats.resident_bytes > 0);
    assert_true(f->stats.resident_bytes <= 100000);
    assert_true(f->stats.streamed_bytes > 0);
    /* a prompt and three frames, and what was copied ahead */
    assert_true(f->stats.bytes >=
                (SPOKEN_FRAMES + 1) * f->stats.streamed_bytes);
    assert_true(f->stats.transfers >= (SPOKEN_FRAMES + 1) * f->stats.n_chunks);
    assert_int_equal(f->stats.slots, 3);
}

static void the_pool_is_trimmed_every_so_many_layers(void **state)
{
    struct fixture *f = *state;
    struct vibe_weight_streaming streaming = {
        .is_on = 1, .chunk_bytes = 16 << 10, .clear_interval = 3};

    speak(f, &f->streamed, models[0], &streaming);
    assert_true(f->clears.layer_transfers >= 2 * (SPOKEN_FRAMES + 1));
    assert_int_equal(f->clears.clears, f->clears.layer_transfers / 3);

    streaming.clear_interval = -1;
    speak(f, &f->streamed, models[0], &streaming);
    assert_true(f->clears.layer_transfers > 0);
    assert_int_equal(f->clears.clears, 0);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(residency_does_not_change_a_sample),
    cmocka_unit_test(ring_and_chunk_sizes_do_not_change_a_sample),
    cmocka_unit_test(ways_of_copying_do_not_change_a_sample),
    cmocka_unit_test(rows_lent_to_the_cpu_do_not_change_a_sample_there),
    cmocka_unit_test(rows_that_are_lent_are_copied_for_prompts_only),
    cmocka_unit_test(measuring_chooses_what_is_lent),
    cmocka_unit_test(engines_share_a_host_copy_unheard),
    cmocka_unit_test(growing_keys_and_values_demote_unheard),
    cmocka_unit_test(the_pool_is_trimmed_every_so_many_layers),
    cmocka_unit_test(a_pass_copies_what_is_not_resident),
};

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, setup, teardown);
}
