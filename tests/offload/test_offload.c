/* Where rows are, and that whoever takes them sees them. */
#include "offload/offload.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/error.h"
#include "tests/support/fake_device.h"
#include "tests/support/vibe_test.h"

/* Matrices of 5 + i % 3 units; a row is its number, ROW times. */
enum { MATRICES = 9, ROW = 8, MOST = 8 * 64 * ROW, PASSES = 4 };

/* What a use of a piece expects. */
struct use {
    struct fixture *f;
    const unsigned char *device;
    size_t matrix, first, n;
};

struct fixture {
    struct fake_device d;
    struct vibe_residency_matrix matrix[MATRICES];
    struct vibe_residency_input in;
    struct vibe_offload_options options;
    struct vibe_offload *o;
    struct use uses[4096];
    size_t n_uses, n_wrong, n_seen;
    struct vibe_error err;
};

static unsigned char byte_of(size_t matrix, size_t row)
{
    return (unsigned char)(matrix * 37 + row * 11 + row / 64);
}

static size_t piece_bytes(const void *user, size_t matrix, size_t first,
                          size_t n)
{
    (void)user, (void)matrix, (void)first;
    return n * ROW;
}

static void lay(void *user, size_t matrix, size_t first, size_t n, void *out)
{
    (void)user;
    for (size_t i = 0; i < n; i++)
        memset((char *)out + i * ROW, byte_of(matrix, first + i), ROW);
}

static int fill(void *user, size_t matrix, size_t first, size_t n, void *device,
                struct vibe_error *err)
{
    (void)err;
    lay(user, matrix, first, n, device);
    return VIBE_OK;
}

static void look(void *user)
{
    const struct use *u = user;

    for (size_t i = 0; i < u->n * ROW; i++)
        u->f->n_wrong += u->device[i] != byte_of(u->matrix, u->first + i / ROW);
    u->f->n_seen++;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f)
        return -1;
    *state = f;
    fake_device_init(&f->d);
    for (size_t i = 0; i < MATRICES; i++) {
        f->matrix[i].N = (5 + i % 3) * 64 - (i == 4 ? 5 : 0);
        f->matrix[i].is_kept = i % 3 == 0;
    }
    f->in = (struct vibe_residency_input){
        .matrix = f->matrix,
        .n_matrices = MATRICES,
        .piece_bytes = piece_bytes,
        .chunk_bytes = 2 * 64 * ROW,
        .granule = 1,
        .budget = 15000,
    };
    f->options.slab_bytes = 3000;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vibe_offload_free(f->o);
    fake_device_release(&f->d);
    free(f);
    return 0;
}

static int open_all(struct fixture *f)
{
    const struct vibe_offload_source source = {
        .out = {.lay = lay, .user = f},
        .fill = fill,
    };
    struct vibe_residency table;
    int rc;

    assert_int_equal(vibe_residency_init(&table, &f->in, NULL), VIBE_OK);
    rc = vibe_offload_open(&f->o, fake_backend(&f->d), &fake_transfer, &source,
                           &table, &f->options, &f->err);
    vibe_residency_release(&table);
    for (size_t i = 0; i < MATRICES && rc == VIBE_OK; i++)
        rc = vibe_offload_fill(f->o, i, &f->err);
    return rc;
}

/* Use every row once, in order; of a frame none that is lent. */
static int pass_rows(struct fixture *f, int is_frame)
{
    for (size_t m = 0; m < MATRICES; m++) {
        const size_t end = is_frame ? vibe_offload_end(f->o, m)
                                    : f->matrix[m].N;
        struct vibe_taken taken;

        if (end < f->matrix[m].N && vibe_offload_pass_by(f->o, &f->err))
            return f->err.code;
        for (size_t row = 0; row < end; row += taken.n) {
            struct use *u = &f->uses[f->n_uses++];

            if (vibe_offload_take(f->o, &taken, m, row, &f->err))
                return f->err.code;
            *u = (struct use){f, taken.device, m, row, taken.n};
            fake_use(&f->d, look, u, 0.0);
            if (vibe_offload_done(f->o, &f->err))
                return f->err.code;
        }
    }
    return VIBE_OK;
}

static int pass(struct fixture *f)
{
    return pass_rows(f, 0);
}

/* Passes, some of them behind a wait of the host; all uses saw their rows. */
static void check(struct fixture *f)
{
    assert_int_equal(open_all(f), VIBE_OK);
    for (int i = 0; i < PASSES; i++) {
        assert_int_equal(pass(f), VIBE_OK);
        if (i % 2)
            fake_sync(&f->d);
    }
    fake_sync(&f->d);
    assert_int_equal(f->n_seen, f->n_uses);
    assert_int_equal(f->n_wrong, 0);
}

static void check_both_ways(struct fixture *f)
{
    for (int is_eager = 0; is_eager < 2; is_eager++) {
        f->d.is_eager = is_eager;
        check(f);
        vibe_offload_free(f->o);
        f->o = NULL;
        f->n_uses = f->n_seen = 0;
    }
}

static void every_use_sees_its_rows_for_all_budgets(void **state)
{
    struct fixture *f = *state;

    for (f->in.budget = 0; f->in.budget < 30000; f->in.budget += 5000)
        check_both_ways(f);
    f->in.budget = SIZE_MAX;
    check_both_ways(f);
}

static void prompts_and_frames_see_their_rows_whatever_is_lent(void **state)
{
    static const int is_frame[] = {0, 0, 1, 1, 1, 0, 1, 0, 0};
    struct fixture *f = *state;

    for (int tenths = 1; tenths <= 10; tenths += 3)
        for (f->d.is_eager = 0; f->d.is_eager < 2; f->d.is_eager++) {
            f->in.lent = 0.1 * tenths;
            assert_int_equal(open_all(f), VIBE_OK);
            for (size_t i = 0; i < sizeof(is_frame) / sizeof(*is_frame); i++)
                assert_int_equal(pass_rows(f, is_frame[i]), VIBE_OK);
            fake_sync(&f->d);
            assert_int_equal(f->n_seen, f->n_uses);
            assert_int_equal(f->n_wrong, 0);
            vibe_offload_free(f->o);
            f->o = NULL;
            f->n_uses = f->n_seen = 0;
        }
}

static void what_is_lent_is_not_copied_in_frames(void **state)
{
    struct fixture *f = *state;
    struct vibe_offload_stats before, after;

    f->in.lent = 0.5;
    assert_int_equal(open_all(f), VIBE_OK);
    vibe_offload_settle(f->o); /* no copy waits for a buffer then */
    assert_int_equal(pass_rows(f, 0), VIBE_OK);
    assert_int_equal(pass_rows(f, 1), VIBE_OK);
    vibe_offload_count(f->o, &before);
    assert_int_equal(pass_rows(f, 1), VIBE_OK);
    vibe_offload_count(f->o, &after);
    fake_sync(&f->d);

    assert_true(after.lent_bytes > 0);
    assert_int_equal(after.transfers - before.transfers, after.n_chunks);
    assert_int_equal(after.bytes - before.bytes, after.streamed_bytes);
    assert_int_equal(after.place_bytes[VIBE_PLACE_FILE] +
                         after.place_bytes[VIBE_PLACE_PAGEABLE] +
                         after.place_bytes[VIBE_PLACE_PINNED],
                     after.streamed_bytes);
}

static void every_use_sees_its_rows_for_all_rings(void **state)
{
    struct fixture *f = *state;

    for (f->options.slots = 1; f->options.slots < 40; f->options.slots *= 2)
        check_both_ways(f);
}

static void a_ring_has_the_slots_that_its_memory_holds(void **state)
{
    struct fixture *f = *state;
    struct vibe_offload_stats stats;

    f->options.slots = 3;
    f->options.ring_bytes = 8 * f->in.chunk_bytes - 1;
    assert_int_equal(open_all(f), VIBE_OK);

    vibe_offload_count(f->o, &stats);
    assert_int_equal(stats.slot_bytes, f->in.chunk_bytes);
    assert_int_equal(stats.slots, 7);
}

static void every_use_sees_its_rows_for_all_chunks(void **state)
{
    struct fixture *f = *state;

    for (f->in.chunk_bytes = 1; f->in.chunk_bytes < 100000;
         f->in.chunk_bytes *= 9)
        check_both_ways(f);
}

static enum vibe_path path_of(struct fixture *f)
{
    struct vibe_offload_stats stats;

    vibe_offload_settle(f->o);
    vibe_offload_count(f->o, &stats);
    return stats.path;
}

static void the_way_is_expected_before_it_is_taken(void **state)
{
    const struct vibe_offload_options roomy = {.host_limit = 1000};
    const struct vibe_offload_options unpinned = {.host_limit = 1000,
                                                  .is_unpinned = 1};

    (void)state;
    assert_int_equal(vibe_path_expect(0, &roomy), VIBE_PATH_NONE);
    assert_int_equal(vibe_path_expect(1000, &roomy), VIBE_PATH_DIRECT);
    assert_int_equal(vibe_path_expect(1001, &roomy), VIBE_PATH_DISK);
    assert_int_equal(vibe_path_expect(1, &unpinned), VIBE_PATH_PAGEABLE);
}

static void all_pinned_is_copied_directly(void **state)
{
    struct fixture *f = *state;

    check(f);
    assert_int_equal(path_of(f), VIBE_PATH_DIRECT);
}

static void a_link_is_probed_from_either_memory(void **state)
{
    struct fixture *f = *state;
    struct vibe_backend *be = fake_backend(&f->d);

    assert_true(vibe_offload_probe(be, &fake_transfer, 1000, 0) > 0);
    f->d.pinned_left = 0;
    assert_float_equal(vibe_offload_probe(be, &fake_transfer, 1000, 0), 0, 0);
    assert_true(vibe_offload_probe(be, &fake_transfer, 1000, 1) > 0);
}

static void a_pin_limit_is_met_with_a_bounce_ring(void **state)
{
    struct fixture *f = *state;

    for (size_t left = 5000; left <= 14000; left += 3000) {
        f->d.pinned_left = left;
        check(f);
        assert_int_equal(path_of(f), VIBE_PATH_BOUNCE);
        vibe_offload_free(f->o);
        f->o = NULL;
        f->n_uses = f->n_seen = 0;
    }
}

static void little_memory_is_met_with_the_file(void **state)
{
    struct fixture *f = *state;
    struct vibe_offload_stats stats;

    f->options.host_limit = 3500;
    check(f);
    assert_int_equal(path_of(f), VIBE_PATH_DISK);
    vibe_offload_count(f->o, &stats);
    assert_true(stats.is_settled);
    assert_true(stats.fill_rate > 0);
}

static void nothing_pinned_is_copied_as_it_lies(void **state)
{
    struct fixture *f = *state;

    f->d.pinned_left = 0;
    check(f);
    assert_int_equal(path_of(f), VIBE_PATH_PAGEABLE);
}

static void no_pinning_is_obeyed(void **state)
{
    struct fixture *f = *state;

    f->options.is_unpinned = 1;
    check(f);
    assert_int_equal(path_of(f), VIBE_PATH_PAGEABLE);
}

static void all_resident_needs_no_ring(void **state)
{
    struct fixture *f = *state;

    f->in.budget = SIZE_MAX;
    check(f);
    assert_int_equal(path_of(f), VIBE_PATH_NONE);
    assert_false(vibe_offload_is_streaming(f->o));
    assert_true(vibe_offload_is_whole(f->o, 1));
}

static void a_pass_that_broke_off_does_not_harm_the_next(void **state)
{
    struct fixture *f = *state;
    struct vibe_taken taken;

    assert_int_equal(open_all(f), VIBE_OK);
    assert_false(vibe_offload_is_whole(f->o, 1));
    assert_int_equal(pass(f), VIBE_OK);
    for (size_t row = 0; row < 256; row += taken.n) {
        assert_int_equal(vibe_offload_take(f->o, &taken, 1, row, NULL),
                         VIBE_OK);
        assert_int_equal(vibe_offload_done(f->o, NULL), VIBE_OK);
    }
    assert_int_equal(pass(f), VIBE_OK);
    fake_sync(&f->d);
    assert_int_equal(f->n_wrong, 0);
}

static void demotion_between_passes_is_not_seen(void **state)
{
    struct fixture *f = *state;
    size_t freed = 1;

    f->in.budget = SIZE_MAX;
    assert_int_equal(open_all(f), VIBE_OK);
    for (int i = 0; i < 40 && freed; i++) {
        assert_int_equal(pass(f), VIBE_OK);
        fake_sync(&f->d);
        assert_int_equal(vibe_offload_demote(f->o, 1, &freed, &f->err),
                         VIBE_OK);
    }
    assert_int_equal(freed, 0); /* nothing is left */
    assert_int_equal(vibe_offload_table(f->o)->resident_bytes, 0);
    assert_int_equal(pass(f), VIBE_OK);
    fake_sync(&f->d);
    assert_int_equal(f->n_wrong, 0);
    assert_int_equal(path_of(f), VIBE_PATH_DIRECT);
}

/* Open, two passes and a demotion, with call number i failing. */
static int run_with_failure(struct fixture *f, int i)
{
    size_t freed;
    int rc;

    f->err = (struct vibe_error){0};
    f->d.n_calls = 0;
    f->d.fail_at = i;
    f->n_uses = f->n_seen = 0;
    rc = open_all(f);
    if (rc == VIBE_OK)
        rc = pass(f);
    if (rc == VIBE_OK)
        fake_sync(&f->d);
    if (rc == VIBE_OK)
        rc = vibe_offload_demote(f->o, 1, &freed, &f->err);
    if (rc == VIBE_OK)
        rc = pass(f);
    vibe_offload_free(f->o);
    f->o = NULL;
    assert_int_equal(f->d.n_live, 0);
    return rc;
}

static void every_failure_is_told_and_leaks_nothing(void **state)
{
    struct fixture *f = *state;
    int n_calls, n_failed = 0;

    f->options.threads = 1;
    f->d.pinned_left = 9000; /* for buffers and a slab: all kinds of call */
    assert_int_equal(run_with_failure(f, -1), VIBE_OK);
    n_calls = f->d.n_calls;
    assert_true(n_calls > 200);
    for (int i = 0; i < n_calls; i++) {
        f->d.pinned_left = 9000;
        if (run_with_failure(f, i) == VIBE_OK)
            continue; /* pinned memory that was refused, or an end's wait */
        n_failed++;
        assert_int_not_equal(f->err.code, VIBE_OK);
        assert_int_not_equal(f->err.msg[0], '\0');
    }
    assert_true(n_failed > n_calls * 3 / 4);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(every_use_sees_its_rows_for_all_budgets),
    VIBE_TEST(prompts_and_frames_see_their_rows_whatever_is_lent),
    VIBE_TEST(what_is_lent_is_not_copied_in_frames),
    VIBE_TEST(every_use_sees_its_rows_for_all_rings),
    VIBE_TEST(a_ring_has_the_slots_that_its_memory_holds),
    VIBE_TEST(every_use_sees_its_rows_for_all_chunks),
    VIBE_TEST(the_way_is_expected_before_it_is_taken),
    VIBE_TEST(all_pinned_is_copied_directly),
    VIBE_TEST(a_link_is_probed_from_either_memory),
    VIBE_TEST(a_pin_limit_is_met_with_a_bounce_ring),
    VIBE_TEST(little_memory_is_met_with_the_file),
    VIBE_TEST(nothing_pinned_is_copied_as_it_lies),
    VIBE_TEST(no_pinning_is_obeyed),
    VIBE_TEST(all_resident_needs_no_ring),
    VIBE_TEST(a_pass_that_broke_off_does_not_harm_the_next),
    VIBE_TEST(demotion_between_passes_is_not_seen),
    VIBE_TEST(every_failure_is_told_and_leaks_nothing),
};

VIBE_TEST_MAIN(tests)
