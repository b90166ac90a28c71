/* What is chosen where all of a model does not fit as it is. */
#include "engine/planning.h"

#include "engine/backend/ops.h"
#include "engine/base/device.h"
#include "engine/engine.h"
#include "engine/format/weights.h"
#include "engine/precision.h"
#include "offload/transfer.h"
#include "tests/support/vibe_test.h"

enum { GRANULE = 2 << 20 }; /* that plans are rounded to */

/* A GPU of so many free bytes, of which nothing is ever taken. */
struct fixture {
    struct vibe_backend be; /* first: it is found by this */
    struct vibe_ops ops;
    struct vibe_transfer transfer;
    size_t free;
    struct vibe_engine *engine; /* with its files read */
    struct vibe_engine_options options;
    struct vibe_error err;
};

static void meter(struct vibe_backend *be, struct vibe_device_reading *out)
{
    (void)be;
    *out = (struct vibe_device_reading){.memory_total = (size_t)1 << 40};
}

static void memory(const struct vibe_backend *be, struct vibe_memory *out)
{
    (void)be;
    *out = (struct vibe_memory){.context = 1 << 20};
}

static size_t free_bytes(struct vibe_backend *be)
{
    return ((struct fixture *)be)->free;
}

static double probe_bandwidth(struct vibe_backend *be)
{
    (void)be;
    return 306e9;
}

static void trim(struct vibe_backend *be)
{
    (void)be;
}

/* No link is probed where there is no memory for it. */
static void *refuse(struct vibe_backend *be, size_t bytes)
{
    (void)be, (void)bytes;
    return NULL;
}

static void forget(struct vibe_backend *be, void *memory)
{
    (void)be, (void)memory;
}

static void forget_event(struct vibe_event *event)
{
    (void)event;
}

static int setup(void **state)
{
    static struct fixture f;

    f = (struct fixture){
        .ops = {.meter = meter,
                .memory = memory,
                .probe_bandwidth = probe_bandwidth,
                .trim = trim},
        .transfer = {.free_bytes = free_bytes,
                     .device_alloc = refuse,
                     .device_free = forget,
                     .pinned_alloc = refuse,
                     .pinned_free = forget,
                     .event_destroy = forget_event},
        .be = {.is_cuda = 1, .kv_dtype = VIBE_BF16},
        .options = {.model = "demo/model",
                    .device = VIBE_DEVICE_CPU,
                    .threads = 1,
                    .plan = {.utilization = 1.0}},
    };
    f.be.ops = &f.ops;
    f.be.transfer = &f.transfer;
    *state = &f;
    return vibe_engine_open(&f.engine, &f.options, &f.err);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vibe_engine_free(f->engine);
    return 0;
}

static int plan(struct fixture *f, struct vibe_engine_plan *out, size_t n_free)
{
    struct vibe_backend *own = f->engine->backend;
    int rc;

    f->free = n_free;
    f->engine->backend = &f->be;
    rc = vibe_planning_make(out, f->engine, &f->options, &f->err);
    f->engine->backend = own;
    return rc;
}

/* What a device must have free for all of the model in that precision. */
static size_t room_for(struct fixture *f, enum vibe_weight_dtype lm,
                       enum vibe_weight_dtype head)
{
    const struct vibe_precision asked = f->options.precision;
    struct vibe_engine_plan made;

    f->options.precision = (struct vibe_precision){.lm = lm, .head = head};
    assert_int_equal(plan(f, &made, (size_t)1 << 40), VIBE_OK);
    f->options.precision = asked;
    return (made.plan.needed + GRANULE - 1) / GRANULE * GRANULE;
}

/* Choose how many dialogues there are so that a small model's precisions differ
 * by more than plans are rounded to. */
static void tell_apart(struct fixture *f, struct vibe_precision less,
                       struct vibe_precision more)
{
    for (f->options.n_dialogues = 1; f->options.n_dialogues < 16;
         f->options.n_dialogues++)
        if (room_for(f, less.lm, less.head) < room_for(f, more.lm, more.head))
            return;
    fail_msg("two precisions take the same room");
}

static void what_fits_stays_as_it_is(void **state)
{
    struct fixture *f = *state;
    struct vibe_engine_plan made;

    assert_int_equal(plan(f, &made, room_for(f, VIBE_WEIGHTS_BF16, 0)),
                     VIBE_OK);

    assert_int_equal(made.precision.lm, VIBE_WEIGHTS_AUTO);
    assert_int_equal(made.plan.streamed, 0);
}

static void packing_comes_first(void **state)
{
    struct fixture *f = *state;
    struct vibe_engine_plan made;

    tell_apart(f, (struct vibe_precision){.lm = VIBE_WEIGHTS_BF16_PACKED},
               (struct vibe_precision){.lm = VIBE_WEIGHTS_BF16});
    assert_int_equal(plan(f, &made, room_for(f, VIBE_WEIGHTS_BF16_PACKED, 0)),
                     VIBE_OK);

    assert_int_equal(made.precision.lm, VIBE_WEIGHTS_BF16_PACKED);
    assert_int_equal(made.precision.head, VIBE_WEIGHTS_AUTO);
    assert_int_equal(made.plan.streamed, 0);
    assert_int_equal(
        vibe_weights_kept(f->engine->weights, "model.language_model.layers.0"),
        VIBE_WEIGHTS_BF16_PACKED);
}

static void eight_bits_come_next(void **state)
{
    struct fixture *f = *state;
    struct vibe_engine_plan made;

    tell_apart(f, (struct vibe_precision){.lm = VIBE_WEIGHTS_I8},
               (struct vibe_precision){.lm = VIBE_WEIGHTS_BF16_PACKED});
    assert_int_equal(plan(f, &made, room_for(f, VIBE_WEIGHTS_I8, 0)), VIBE_OK);

    assert_int_equal(made.precision.lm, VIBE_WEIGHTS_I8);
    assert_int_equal(made.precision.head, VIBE_WEIGHTS_AUTO);
}

static void the_head_is_last(void **state)
{
    struct fixture *f = *state;
    struct vibe_engine_plan made;

    tell_apart(
        f,
        (struct vibe_precision){.lm = VIBE_WEIGHTS_I8, .head = VIBE_WEIGHTS_I8},
        (struct vibe_precision){.lm = VIBE_WEIGHTS_I8});
    assert_int_equal(
        plan(f, &made, room_for(f, VIBE_WEIGHTS_I8, VIBE_WEIGHTS_I8)), VIBE_OK);

    assert_int_equal(made.precision.lm, VIBE_WEIGHTS_I8);
    assert_int_equal(made.precision.head, VIBE_WEIGHTS_I8);
}

static void what_does_not_help_is_not_done(void **state)
{
    struct fixture *f = *state;
    struct vibe_engine_plan made;
    const size_t n = room_for(f, VIBE_WEIGHTS_I4, VIBE_WEIGHTS_I4);

    assert_int_equal(plan(f, &made, n - GRANULE), VIBE_E_NOMEM);

    assert_int_equal(
        vibe_weights_kept(f->engine->weights, "model.language_model.layers.0"),
        VIBE_WEIGHTS_AUTO);
}

static void what_was_asked_is_kept(void **state)
{
    struct fixture *f = *state;
    struct vibe_engine_plan made;
    size_t n;

    tell_apart(f, (struct vibe_precision){.lm = VIBE_WEIGHTS_BF16_PACKED},
               (struct vibe_precision){.lm = VIBE_WEIGHTS_BF16});
    n = room_for(f, VIBE_WEIGHTS_BF16_PACKED, 0);
    f->options.precision.lm = VIBE_WEIGHTS_BF16;
    assert_int_equal(plan(f, &made, n), VIBE_E_NOMEM); /* no ring, either */
    f->options.precision.lm = VIBE_WEIGHTS_AUTO;
    f->options.plan.kind = VIBE_PLAN_LAYERS;
    f->options.plan.n_layers = 99;
    f->options.plan.reserve = -1;
    assert_int_equal(plan(f, &made, n), VIBE_E_NOMEM);
}

static void the_machine_is_probed_where_something_streams(void **state)
{
    struct fixture *f = *state;
    struct vibe_engine_plan made;

    assert_int_equal(plan(f, &made, (size_t)1 << 40), VIBE_OK);
    assert_string_equal(made.path, "resident");
    assert_true(made.rates.read <= 0);

    f->options.plan.kind = VIBE_PLAN_LAYERS;
    f->options.plan.n_layers = 2;
    assert_int_equal(plan(f, &made, (size_t)1 << 40), VIBE_OK);
    assert_true(made.plan.streamed > 0);
    assert_true(made.rates.read > 0);
    assert_string_equal(made.path, "pageable"); /* there is no pinned memory */
}

static void steps_are_planned_for(void **state)
{
    struct fixture *f = *state;
    struct vibe_engine_plan ten, sixty;

    assert_int_equal(plan(f, &ten, (size_t)1 << 40), VIBE_OK);
    f->options.steps = 60;
    assert_int_equal(plan(f, &sixty, (size_t)1 << 40), VIBE_OK);

    assert_int_equal(ten.model.steps, 10);
    assert_int_equal(sixty.model.steps, 60);
    assert_true(sixty.model.frame_scratch > ten.model.frame_scratch);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(what_fits_stays_as_it_is),
    VIBE_TEST(packing_comes_first),
    VIBE_TEST(eight_bits_come_next),
    VIBE_TEST(the_head_is_last),
    VIBE_TEST(what_does_not_help_is_not_done),
    VIBE_TEST(what_was_asked_is_kept),
    VIBE_TEST(steps_are_planned_for),
    VIBE_TEST(the_machine_is_probed_where_something_streams),
};

VIBE_TEST_MAIN(tests)
