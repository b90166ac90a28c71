#include "offload/plan.h"

#include <string.h>

#include "engine/base/error.h"
#include "offload/preset.h"
#include "tests/support/vibe_test.h"

#define GIB ((size_t)1 << 30)
#define MIB ((size_t)1 << 20)

enum { PRODUCT_SCRATCH = 96 << 20, CONTEXT = 300 << 20, LATER = 64 << 20 };

struct shape {
    size_t hidden, ffn, kv, codec_bytes, encoder_bytes;
};

static const struct shape small = {1536, 8960, 256, 1376, 688};  /* 1.5B */
static const struct shape large = {3584, 18944, 512, 1376, 688}; /* 7B */

/* A bf16 checkpoint of 28 layers. */
static struct vibe_plan_model model_of(const struct shape *s)
{
    const size_t H = s->hidden;

    return (struct vibe_plan_model){
        .n_layers = 28,
        .rows = 28 * 2 * (2 * H * (H + s->kv) + 3 * H * s->ffn),
        .lm = 40 * MIB,
        .head = 2 * (4 * (3 * H * 3 * H + 3 * H * H) + 6 * H * H),
        .codec = s->codec_bytes * 1000 * 1000,
        .connectors = 2 * 2 * H * (H + 192),
        .states = 2 * MIB,
        .prompt = 110 * MIB,
        .scratch = PRODUCT_SCRATCH,
        .frame_scratch = 20 * MIB,
        .encoder = s->encoder_bytes * 1000 * 1000,
        .kv_block = (size_t)28 * 2 * s->kv * 2 * 256,
        .block_tokens = 256,
        .head_frame_reads = 2 * 15 * H * H,
        .head_step_reads = 2 * 4 * 3 * H * 3 * H,
        .codec_reads = s->codec_bytes * 1000 * 1000,
        .connector_reads = 2 * 2 * H * (H + 192),
        .steps = 10,
    };
}

static struct vibe_plan_device card(size_t total)
{
    return (struct vibe_plan_device){
        .total = total,
        .free = total - CONTEXT,
        .context = CONTEXT,
        .later = LATER,
    };
}

/* A ten minute dialogue. */
static struct vibe_plan_request request_of(enum vibe_plan_kind kind)
{
    return (struct vibe_plan_request){
        .kind = kind,
        .positive = 7000,
        .negative = 4500,
    };
}

static struct vibe_plan made(const struct vibe_plan_model *m,
                             const struct vibe_plan_device *d,
                             const struct vibe_plan_request *r)
{
    struct vibe_plan plan;
    struct vibe_error err = {0};

    assert_int_equal(vibe_plan_make(&plan, m, d, r, &err), VIBE_OK);
    return plan;
}

static void every_byte_of_a_plan_is_somewhere(void **state)
{
    static const size_t caps[] = {8, 10, 12, 16, 24};
    static const struct shape *const shapes[] = {&small, &large};

    (void)state;
    for (size_t i = 0; i < 10; i++) {
        const struct vibe_plan_model m = model_of(shapes[i % 2]);
        const struct vibe_plan_device d = card(80 * GIB);
        struct vibe_plan_request r = request_of(VIBE_PLAN_AUTO);
        struct vibe_plan p;
        size_t sum;

        r.max_vram = (int64_t)(caps[i / 2] * GIB);
        p = made(&m, &d, &r);
        sum = p.fixed + p.resident + p.ring_slots * p.chunk_bytes;
        assert_int_equal(p.resident + p.streamed, p.rows);
        assert_true(p.reserve >= sum && p.reserve - sum < 2 * MIB);
        assert_int_equal(p.total, p.reserve + CONTEXT + LATER);
        assert_true(p.total <= (size_t)r.max_vram);
        /* what could hold weights does */
        if (p.streamed)
            assert_true((size_t)r.max_vram - p.total < 4 * MIB);
    }
}

static void what_is_fixed_is_every_part_once(void **state)
{
    struct vibe_plan_model m = model_of(&small);
    const struct vibe_plan_device d = card(24 * GIB);
    struct vibe_plan_request r = request_of(VIBE_PLAN_WHOLE);
    size_t fixed;

    (void)state;
    m.head_prepared = 3 * MIB;
    m.mail = 5 * MIB;
    r.has_voices_first = 1;
    r.positive = 257; /* two blocks of 256, and one */
    r.negative = 256;
    fixed = m.lm + m.head + m.head_prepared + m.codec + m.connectors +
            m.states + m.mail + m.prompt + m.scratch;
    assert_int_equal(made(&m, &d, &r).fixed, fixed + 3 * m.kv_block);
    r.has_kv_on_host = 1;
    assert_int_equal(made(&m, &d, &r).fixed, fixed);
    r.has_head_on_host = 1;
    fixed -= m.head_frame_reads + m.head_step_reads;
    assert_int_equal(made(&m, &d, &r).fixed, fixed);
    r.mode = VIBE_MEMORY_LIGHTWEIGHT;
    assert_int_equal(made(&m, &d, &r).fixed, fixed - m.codec_reads);
}

static void the_large_model_in_12_gib_keeps_what_arithmetic_says(void **state)
{
    const struct vibe_plan_model m = model_of(&large);
    const struct vibe_plan_device d = card(12 * GIB);
    struct vibe_plan_request r = request_of(VIBE_PLAN_AUTO);
    struct vibe_plan p;

    (void)state;
    r.max_vram = (int64_t)(12 * GIB);
    p = made(&m, &d, &r);
    /* 12 GiB less 1.3 of head, 1.4 of codec, 0.7 of keys and values and 0.7
     * of everything else leave 8.8 GB for layers of 466 MB */
    assert_true(p.layers > 16.5 && p.layers < 19.5);
    assert_int_equal(p.ring_slots, 3);
    assert_int_equal(p.chunk_bytes, 32 * MIB);
}

static void the_small_model_fits_without_a_ring(void **state)
{
    const struct vibe_plan_model m = model_of(&small);
    const struct vibe_plan_device d = card(12 * GIB);
    const struct vibe_plan_request r = request_of(VIBE_PLAN_AUTO);
    const struct vibe_plan p = made(&m, &d, &r);

    (void)state;
    assert_int_equal(p.streamed, 0);
    assert_int_equal(p.ring_slots, 0);
    assert_string_equal(p.why,
                        "all 28 layers fit in the 9.3 GiB that may be used");
}

static void auto_uses_the_share_of_free_memory(void **state)
{
    const struct vibe_plan_model m = model_of(&large);
    const struct vibe_plan_device d = card(12 * GIB);
    struct vibe_plan_request r = request_of(VIBE_PLAN_AUTO);
    struct vibe_plan p = made(&m, &d, &r);

    (void)state;
    assert_true(p.budget <= (size_t)(0.8 * (double)d.free) - LATER);
    assert_true(p.budget > (size_t)(0.8 * (double)d.free) - LATER - 2 * MIB);
    r.utilization = 0.5;
    assert_true(made(&m, &d, &r).layers < p.layers);
}

static void layers_are_shares_of_the_rows(void **state)
{
    const struct vibe_plan_model m = model_of(&large);
    const struct vibe_plan_device d = card(80 * GIB);
    struct vibe_plan_request r = request_of(VIBE_PLAN_LAYERS);

    (void)state;
    for (size_t n = 0; n <= 28; n++) {
        struct vibe_plan p;

        r.n_layers = (double)n;
        p = made(&m, &d, &r);
        assert_int_equal(p.resident,
                         (p.rows / 28 * n) / 256 * 256); /* 28 divides them */
        assert_int_equal(p.streamed == 0, n == 28);
        if (n == 8)
            assert_string_equal(
                p.why, "8 of 28 layers stay, as asked; the rest is streamed");
    }
}

static void more_layers_than_there_are_is_all(void **state)
{
    const struct vibe_plan_model m = model_of(&small);
    const struct vibe_plan_device d = card(80 * GIB);
    struct vibe_plan_request r = request_of(VIBE_PLAN_LAYERS);

    (void)state;
    r.n_layers = 99;
    assert_int_equal(made(&m, &d, &r).streamed, 0);
}

static void layers_that_do_not_fit_are_an_upper_bound(void **state)
{
    const struct vibe_plan_model m = model_of(&large);
    const struct vibe_plan_device d = card(10 * GIB);
    struct vibe_plan_request r = request_of(VIBE_PLAN_LAYERS);
    struct vibe_plan p;

    (void)state;
    r.n_layers = 28;
    p = made(&m, &d, &r);
    assert_true(p.layers > 10 && p.layers < 16);
    assert_non_null(strstr(p.why, "of 28 layers asked for fit"));
}

static void presets_grow_with_their_layers(void **state)
{
    const struct vibe_plan_model m = model_of(&large);
    const struct vibe_plan_device d = card(24 * GIB);
    struct vibe_plan_request r = request_of(VIBE_PLAN_LAYERS);

    (void)state;
    for (size_t i = 0; i < vibe_n_presets; i++) {
        r.n_layers = vibe_preset_layers(&vibe_presets[i], 28);
        assert_float_equal((float)made(&m, &d, &r).layers,
                           (float)vibe_presets[i].layers,
                           1e-4f); /* a row is less than that of a layer */
    }
}

static void more_memory_never_means_more_streaming(void **state)
{
    const struct vibe_plan_model m = model_of(&large);
    const struct vibe_plan_request r = request_of(VIBE_PLAN_AUTO);
    size_t before = SIZE_MAX;

    (void)state;
    for (size_t gib = 7; gib <= 32; gib++) {
        const struct vibe_plan_device d = card(gib * GIB);
        const struct vibe_plan p = made(&m, &d, &r);

        assert_true(p.streamed <= before);
        before = p.streamed;
    }
    assert_int_equal(before, 0);
}

static void no_offload_refuses_what_does_not_fit(void **state)
{
    const struct vibe_plan_model m = model_of(&large);
    const struct vibe_plan_device d = card(12 * GIB);
    const struct vibe_plan_request r = request_of(VIBE_PLAN_WHOLE);
    struct vibe_plan p = {.n_layers = 77};
    struct vibe_error err = {0};

    (void)state;
    assert_int_equal(vibe_plan_make(&p, &m, &d, &r, &err), VIBE_E_NOMEM);
    assert_string_equal(
        err.msg, "the whole model needs 15.7 GiB, 11.1 GiB free; use --auto");
    assert_int_equal(p.n_layers, 77); /* untouched */
}

static void a_card_that_is_too_small_is_refused_with_advice(void **state)
{
    const struct vibe_plan_model m = model_of(&large);
    const struct vibe_plan_device d = card(3 * GIB);
    const struct vibe_plan_request r = request_of(VIBE_PLAN_AUTO);
    struct vibe_plan p;
    struct vibe_error err = {0};

    (void)state;
    assert_int_equal(vibe_plan_make(&p, &m, &d, &r, &err), VIBE_E_NOMEM);
    assert_non_null(strstr(err.msg, "without any layer the model needs 3."));
    assert_non_null(strstr(err.msg, "--offload-kv-cache"));
}

static void what_goes_to_the_host_makes_room_for_layers(void **state)
{
    const struct vibe_plan_model m = model_of(&large);
    const struct vibe_plan_device d = card(10 * GIB);
    struct vibe_plan_request r = request_of(VIBE_PLAN_AUTO);
    const double layers = made(&m, &d, &r).layers;
    double with_kv, with_head;

    (void)state;
    r.has_kv_on_host = 1;
    with_kv = made(&m, &d, &r).layers;
    assert_true(with_kv >= layers);
    r.has_head_on_host = 1;
    with_head = made(&m, &d, &r).layers;
    assert_true(with_head > with_kv + 2.5); /* 1.3 GB of 466 MB each */
    r.mode = VIBE_MEMORY_LIGHTWEIGHT;
    assert_true(made(&m, &d, &r).layers > with_head + 2.5);
}

static void voices_are_read_where_keys_come_later(void **state)
{
    const struct vibe_plan_model m = model_of(&large);
    const struct vibe_plan_device d = card(24 * GIB);
    struct vibe_plan_request r = request_of(VIBE_PLAN_AUTO);
    struct vibe_plan one = made(&m, &d, &r), two, beefy;

    (void)state;
    r.n_dialogues = 2;
    two = made(&m, &d, &r);
    r.n_dialogues = 1;
    r.mode = VIBE_MEMORY_BEEFY;
    beefy = made(&m, &d, &r);
    assert_int_equal(one.encoder, 0);
    assert_int_equal(two.encoder, 0);
    assert_int_equal(beefy.encoder, m.encoder);
    assert_int_equal(two.kv, 2 * one.kv);
    assert_int_equal(beefy.fixed - one.fixed,
                     m.encoder - (m.encoder > one.kv ? m.encoder - one.kv : 0));
}

static void voices_that_come_first_need_no_room_of_their_own(void **state)
{
    const struct vibe_plan_model m = model_of(&large);
    const struct vibe_plan_device d = card(24 * GIB);
    struct vibe_plan_request r = request_of(VIBE_PLAN_AUTO);
    struct vibe_plan later, first;

    (void)state;
    r.positive = r.negative = 256;
    later = made(&m, &d, &r);
    r.has_voices_first = 1;
    first = made(&m, &d, &r);
    assert_true(first.kv < m.encoder);
    assert_int_equal(later.fixed - first.fixed, m.encoder - first.kv);
}

static void keys_come_where_prompts_were(void **state)
{
    const struct vibe_plan_model m = model_of(&large);
    const struct vibe_plan_device d = card(80 * GIB);
    struct vibe_plan_request r = request_of(VIBE_PLAN_WHOLE);
    struct vibe_plan apart, lent;

    (void)state;
    r.has_voices_first = 1;
    apart = made(&m, &d, &r);
    r.lends_prompt = 1;
    r.n_prompt = 500;
    lent = made(&m, &d, &r);
    /* and what gaps may take */
    assert_int_equal(lent.fixed, apart.fixed - m.prompt - m.scratch +
                                     m.frame_scratch + 2 * MIB);
    /* as much as while a prompt is read, however short what is spoken is */
    r.positive = 510;
    r.negative = 10;
    lent = made(&m, &d, &r);
    assert_int_equal(lent.fixed, apart.fixed - apart.kv + 2 * m.kv_block +
                                     m.frame_scratch + 2 * MIB);
}

static void a_negative_cap_leaves_that_much_free(void **state)
{
    const struct vibe_plan_model m = model_of(&large);
    const struct vibe_plan_device d = card(12 * GIB);
    struct vibe_plan_request r = request_of(VIBE_PLAN_AUTO);
    struct vibe_plan p;

    (void)state;
    r.max_vram = -(int64_t)(2 * GIB);
    p = made(&m, &d, &r);
    assert_true(p.reserve + LATER <= d.free - 2 * GIB);
    assert_true(p.reserve + LATER > d.free - 2 * GIB - 4 * MIB);
}

static void a_reserve_stays_free_whatever_is_asked(void **state)
{
    const struct vibe_plan_model m = model_of(&large);
    const struct vibe_plan_device d = card(12 * GIB);
    struct vibe_plan_request r = request_of(VIBE_PLAN_AUTO);

    (void)state;
    r.max_vram = (int64_t)(12 * GIB);
    r.reserve = (int64_t)GIB;
    assert_true(made(&m, &d, &r).reserve + LATER <= d.free - GIB);
}

static void a_ring_shrinks_before_a_model_is_refused(void **state)
{
    struct vibe_plan_model m = model_of(&large);
    struct vibe_plan_device d = {.total = 5 * GIB};
    struct vibe_plan_request r = request_of(VIBE_PLAN_LAYERS);
    struct vibe_plan p;

    (void)state;
    r.reserve = -1;
    r.has_kv_on_host = 1;
    d.free = m.lm + m.head + m.codec + m.connectors + m.states + m.scratch +
             m.prompt + m.encoder + 40 * MIB;
    p = made(&m, &d, &r);
    assert_int_equal(p.chunk_bytes, 8 * MIB);
    assert_int_equal(p.resident, 0);
}

static const struct vibe_plan_rates h200 = {.read = 4.3e12, .link = 55e9};
static const struct vibe_plan_rates rtx3060 = {.read = 306e9, .link = 24e9};

static void a_ring_is_as_long_as_head_and_codec_take(void **state)
{
    const struct vibe_plan_model m = model_of(&large);
    const struct vibe_plan_rates quick = {.read = 306e9, .link = 55e9};
    const struct vibe_plan_rates unknown = {.read = 306e9};
    const size_t chunk = VIBE_PLAN_CHUNK_BYTES;

    (void)state;
    /* 3.7 ms at 55 GB/s; 43 ms at 24 GB/s */
    assert_int_equal(vibe_plan_ring(&m, &h200, chunk), 6);
    assert_int_equal(vibe_plan_ring(&m, &rtx3060, chunk), 32);
    assert_int_equal(vibe_plan_ring(&m, &quick, chunk), VIBE_PLAN_RING_MOST);
    assert_int_equal(vibe_plan_ring(&m, &unknown, chunk), VIBE_PLAN_RING_SLOTS);
}

static void layers_that_were_asked_for_come_before_the_ring(void **state)
{
    const struct vibe_plan_model m = model_of(&large);
    struct vibe_plan_device d = card(80 * GIB);
    struct vibe_plan_request r = request_of(VIBE_PLAN_LAYERS);
    struct vibe_plan p;

    (void)state;
    r.rates = rtx3060;
    r.n_layers = 8;
    p = made(&m, &d, &r);
    assert_int_equal(p.ring_slots, 32);
    r.n_layers = 27;
    p = made(&m, &d, &r);
    assert_int_equal(p.ring_slots, p.streamed / p.chunk_bytes + 1);
    r.ring_slots = 2;
    assert_int_equal(made(&m, &d, &r).ring_slots, 2);
    r.ring_slots = 0;
    r.n_layers = 8;
    r.max_vram = (int64_t)made(&m, &d, &r).total - 20 * 32 * (int64_t)MIB;
    p = made(&m, &d, &r);
    assert_float_equal((float)p.layers, 8.0f, 1e-4f);
    assert_int_equal(p.ring_slots, 12);
}

/* What the link brings while head and codec are computed need not be resident:
 * a frame takes the same time, and the link never rests. */
static void auto_gives_the_ring_what_the_link_fills(void **state)
{
    const struct vibe_plan_model m = model_of(&large);
    const struct vibe_plan_device d = card(12 * GIB);
    struct vibe_plan_request r = request_of(VIBE_PLAN_AUTO);
    const struct vibe_plan small_ring = made(&m, &d, &r);
    struct vibe_plan p;
    double s;

    (void)state;
    r.rates = rtx3060;
    p = made(&m, &d, &r);
    assert_int_equal(small_ring.ring_slots, VIBE_PLAN_RING_SLOTS);
    assert_int_equal(p.ring_slots, 32);
    assert_int_equal(p.resident + 32 * p.chunk_bytes,
                     small_ring.resident + 3 * p.chunk_bytes);
    s = vibe_plan_frame_s(&p, &m, &rtx3060, 10);
    assert_true((double)p.streamed / rtx3060.link >= 0.97 * s);
    /* 36 ms are the least for their bytes; the ring is for 43 */
    assert_true(s < 1.03 * vibe_plan_frame_s(&small_ring, &m, &rtx3060, 10));
}

static float frame_ms(const struct vibe_plan *plan,
                      const struct vibe_plan_model *m,
                      const struct vibe_plan_rates *rates)
{
    return (float)(1e3 * vibe_plan_frame_s(plan, m, rates, 10));
}

static void a_frame_takes_as_long_as_its_bytes(void **state)
{
    const struct vibe_plan_model m = model_of(&large);
    const struct vibe_plan_device d = card(80 * GIB);
    const struct vibe_plan_rates probed = {.read = 4.47e12, .link = 55.3e9};
    struct vibe_plan_request r = request_of(VIBE_PLAN_LAYERS);
    struct vibe_plan p;

    (void)state;
    r.n_layers = 8;
    r.rates = probed;
    p = made(&m, &d, &r);
    /* 20 layers of 466 MB at 55.3 GB/s: the ring has them come all the time */
    assert_float_equal(frame_ms(&p, &m, &probed), 168.6f, 0.5f);
    assert_float_equal(
        frame_ms(&p, &m, &(struct vibe_plan_rates){.read = 4.47e12}), 0, 0);
    r.ring_slots = 1;
    p = made(&m, &d, &r);
    /* and 2.5 ms of head and codec, in which one slot is filled */
    assert_float_equal(frame_ms(&p, &m, &probed), 170.5f, 0.5f);
    r.n_layers = 28;
    p = made(&m, &d, &r);
    /* research/performance.md: 24.1 GB at 4.47 TB/s */
    assert_float_equal(frame_ms(&p, &m, &probed), 5.4f, 0.2f);
    assert_float_equal(frame_ms(&p, &m, &(struct vibe_plan_rates){0}), 0, 0);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(every_byte_of_a_plan_is_somewhere),
    cmocka_unit_test(what_is_fixed_is_every_part_once),
    cmocka_unit_test(the_large_model_in_12_gib_keeps_what_arithmetic_says),
    cmocka_unit_test(the_small_model_fits_without_a_ring),
    cmocka_unit_test(auto_uses_the_share_of_free_memory),
    cmocka_unit_test(layers_are_shares_of_the_rows),
    cmocka_unit_test(more_layers_than_there_are_is_all),
    cmocka_unit_test(layers_that_do_not_fit_are_an_upper_bound),
    cmocka_unit_test(presets_grow_with_their_layers),
    cmocka_unit_test(more_memory_never_means_more_streaming),
    cmocka_unit_test(no_offload_refuses_what_does_not_fit),
    cmocka_unit_test(a_card_that_is_too_small_is_refused_with_advice),
    cmocka_unit_test(what_goes_to_the_host_makes_room_for_layers),
    cmocka_unit_test(voices_are_read_where_keys_come_later),
    cmocka_unit_test(voices_that_come_first_need_no_room_of_their_own),
    cmocka_unit_test(keys_come_where_prompts_were),
    cmocka_unit_test(a_negative_cap_leaves_that_much_free),
    cmocka_unit_test(a_reserve_stays_free_whatever_is_asked),
    cmocka_unit_test(a_ring_shrinks_before_a_model_is_refused),
    cmocka_unit_test(a_ring_is_as_long_as_head_and_codec_take),
    cmocka_unit_test(layers_that_were_asked_for_come_before_the_ring),
    cmocka_unit_test(auto_gives_the_ring_what_the_link_fills),
    cmocka_unit_test(a_frame_takes_as_long_as_its_bytes),
};

VIBE_TEST_MAIN(tests)
