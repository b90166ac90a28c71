#include "offload/residency.h"

#include <stdlib.h>

#include "engine/base/error.h"
#include "tests/support/vibe_test.h"

/* A model of 28 layers: attention 5 units of 64 rows, MLP 33 and 17. */
enum { LAYERS = 28, N = 3 * LAYERS, ROW = 100 };

struct fixture {
    struct vibe_residency_matrix matrix[N];
    struct vibe_residency_input in;
    struct vibe_residency r;
};

static size_t piece_bytes(const void *user, size_t matrix, size_t first,
                          size_t n)
{
    (void)user, (void)matrix, (void)first;
    return n * ROW;
}

static int setup(void **state)
{
    static struct fixture f;

    f = (struct fixture){0};
    for (size_t i = 0; i < N; i++) {
        static const size_t units[] = {5, 33, 17};

        f.matrix[i].N = units[i % 3] * 64 - (i % 3 == 2 ? 7 : 0);
        f.matrix[i].is_kept = i % 3 == 0;
    }
    f.in = (struct vibe_residency_input){
        .matrix = f.matrix,
        .n_matrices = N,
        .piece_bytes = piece_bytes,
        .chunk_bytes = 4 * 64 * ROW,
        .granule = 1,
        .budget = SIZE_MAX,
    };
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vibe_residency_release(&f->r);
    return 0;
}

static size_t all_bytes(const struct fixture *f, int only_kept)
{
    size_t bytes = 0;

    for (size_t i = 0; i < N; i++)
        if (!only_kept || f->matrix[i].is_kept)
            bytes += f->matrix[i].N * ROW;
    return bytes;
}

static void make(struct fixture *f, size_t budget)
{
    f->in.budget = budget;
    assert_int_equal(vibe_residency_init(&f->r, &f->in, NULL), VIBE_OK);
}

/* Every row is in one piece; resident ones come first in their matrix. */
static void check_cover(const struct fixture *f)
{
    const struct vibe_residency *r = &f->r;
    size_t i = 0;

    for (size_t m = 0; m < N; m++) {
        size_t row = 0;
        int was_resident = 1;

        while (i < r->n_pieces && r->pieces[i].matrix == m) {
            assert_int_equal(r->pieces[i].first, row);
            assert_true(was_resident || !r->pieces[i].is_resident);
            was_resident = r->pieces[i].is_resident;
            row += r->pieces[i++].n;
            assert_true(row % 64 == 0 || row == f->matrix[m].N);
        }
        assert_int_equal(row, f->matrix[m].N);
    }
    assert_int_equal(i, r->n_pieces);
    assert_int_equal(r->resident_bytes + r->streamed_bytes + r->lent_bytes,
                     all_bytes(f, 0));
}

static void what_fits_is_one_piece_each(void **state)
{
    struct fixture *f = *state;

    make(f, all_bytes(f, 0));
    assert_int_equal(f->r.n_pieces, N);
    assert_int_equal(f->r.n_chunks, 0);
    assert_int_equal(f->r.slot_bytes, 0);
    check_cover(f);
}

static void every_budget_is_kept_and_used(void **state)
{
    struct fixture *f = *state;
    const size_t all = all_bytes(f, 0);

    for (size_t budget = 0; budget < all; budget += all / 57) {
        make(f, budget);
        check_cover(f);
        assert_true(f->r.resident_bytes <= budget);
        assert_true(f->r.resident_bytes + 2 * f->in.chunk_bytes > budget);
        assert_true(f->r.slot_bytes <= f->in.chunk_bytes);
        vibe_residency_release(&f->r);
    }
}

static void allocations_are_rounded_in_the_budget(void **state)
{
    struct fixture *f = *state;

    f->in.granule = 4096;
    make(f, all_bytes(f, 0) / 2);
    assert_int_equal(f->r.resident_bytes % 4096, 0);
    assert_true(f->r.resident_bytes <= all_bytes(f, 0) / 2);
}

static void a_share_of_what_streams_is_lent(void **state)
{
    struct fixture *f = *state;
    const size_t all = all_bytes(f, 0);

    for (int tenths = 1; tenths <= 10; tenths++) {
        const double lent = 0.1 * tenths;
        double streamed;

        f->in.lent = lent;
        make(f, all / 3);
        check_cover(f);
        streamed = (double)(all - f->r.resident_bytes);
        /* a unit of each matrix may be missing */
        assert_true((double)f->r.lent_bytes <= lent * streamed + 1);
        assert_true((double)(f->r.lent_bytes + (size_t)N * 64 * ROW) >=
                    lent * streamed);
        assert_true(f->r.slot_bytes <= f->in.chunk_bytes);
        vibe_residency_release(&f->r);
    }
}

static void blocks_beside_lent_rows_are_of_one_size(void **state)
{
    struct fixture *f = *state;

    /* of 33 units 9 are not lent, of which a chunk holds 4 */
    f->in.lent = 24.0 / 33;
    make(f, 0);
    for (size_t i = 0; i < f->r.n_pieces; i++)
        if (f->r.pieces[i].matrix == 1 && !f->r.pieces[i].is_lent)
            assert_int_equal(f->r.pieces[i].n, 3 * 64);
}

static void nothing_is_lent_of_what_stays(void **state)
{
    struct fixture *f = *state;

    f->in.lent = 0.5;
    make(f, all_bytes(f, 0));
    check_cover(f);
    assert_int_equal(f->r.n_lent, 0);
}

static void lent_rows_are_the_last_of_their_matrix(void **state)
{
    struct fixture *f = *state;

    f->in.lent = 0.4;
    make(f, all_bytes(f, 0) / 2);
    for (size_t i = 1; i < f->r.n_pieces; i++)
        if (f->r.pieces[i].matrix == f->r.pieces[i - 1].matrix)
            assert_true(f->r.pieces[i].is_lent >= f->r.pieces[i - 1].is_lent);
}

static void kept_matrices_stream_last(void **state)
{
    struct fixture *f = *state;

    make(f, all_bytes(f, 1));
    for (size_t i = 0; i < f->r.n_pieces; i++)
        assert_int_equal(f->r.pieces[i].is_resident,
                         f->matrix[f->r.pieces[i].matrix].is_kept);
    vibe_residency_release(&f->r);

    make(f, all_bytes(f, 1) - 1);
    assert_int_not_equal(f->r.n_pieces, 0);
    for (size_t i = 0; i < f->r.n_pieces; i++)
        assert_true(!f->r.pieces[i].is_resident ||
                    f->matrix[f->r.pieces[i].matrix].is_kept);
}

/* At each matrix as much has been streamed as at the same part of the whole,
 * within two chunks. */
static void chunks_are_spread_evenly(void **state)
{
    struct fixture *f = *state;
    double streamed = 0.0, seen = 0.0, share;

    make(f, all_bytes(f, 1) + (all_bytes(f, 0) - all_bytes(f, 1)) / 3);
    share = (double)f->r.streamed_bytes /
            (double)(all_bytes(f, 0) - all_bytes(f, 1));
    for (size_t i = 0; i < f->r.n_pieces; i++) {
        const struct vibe_piece *p = &f->r.pieces[i];

        if (f->matrix[p->matrix].is_kept)
            continue;
        seen += (double)p->bytes;
        streamed += p->is_resident ? 0.0 : (double)p->bytes;
        if (i + 1 < f->r.n_pieces && p[1].matrix != p->matrix)
            assert_true(streamed - share * seen < 2.0 * 25600.0 &&
                        share * seen - streamed < 2.0 * 25600.0);
    }
}

static void a_small_matrix_is_never_cut(void **state)
{
    struct fixture *f = *state;

    f->matrix[0].N = 40;
    f->in.chunk_bytes = 1;
    make(f, 0);
    assert_int_equal(f->r.pieces[0].n, 40);
    assert_int_equal(f->r.pieces[1].n, 64);
    check_cover(f);
}

static void demotion_ends_with_everything_streamed(void **state)
{
    struct fixture *f = *state;
    size_t before;

    make(f, all_bytes(f, 0));
    for (;;) {
        const size_t i = vibe_residency_last(&f->r);

        if (i == f->r.n_pieces)
            break;
        before = f->r.resident_bytes;
        assert_int_equal(vibe_residency_demote(&f->r, i, NULL), VIBE_OK);
        assert_true(f->r.resident_bytes < before);
        check_cover(f);
    }
    assert_int_equal(f->r.resident_bytes, 0);
    assert_true(f->r.slot_bytes <= f->in.chunk_bytes);
}

/* Each time one matrix, whole: gate and up, down, and then attention. */
static void demotion_takes_the_largest_from_the_end_and_kept_ones_last(
    void **state)
{
    static const size_t order[] = {1, 2, 0};
    struct fixture *f = *state;

    make(f, all_bytes(f, 0));
    for (size_t n = 0; n < N; n++) {
        const size_t layer = LAYERS - 1 - n % LAYERS;
        const size_t i = vibe_residency_last(&f->r);

        assert_int_equal(f->r.pieces[i].matrix, 3 * layer + order[n / LAYERS]);
        assert_int_equal(vibe_residency_demote(&f->r, i, NULL), VIBE_OK);
    }
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(what_fits_is_one_piece_each),
    VIBE_TEST(every_budget_is_kept_and_used),
    VIBE_TEST(allocations_are_rounded_in_the_budget),
    VIBE_TEST(a_share_of_what_streams_is_lent),
    VIBE_TEST(blocks_beside_lent_rows_are_of_one_size),
    VIBE_TEST(nothing_is_lent_of_what_stays),
    VIBE_TEST(lent_rows_are_the_last_of_their_matrix),
    VIBE_TEST(kept_matrices_stream_last),
    VIBE_TEST(chunks_are_spread_evenly),
    VIBE_TEST(a_small_matrix_is_never_cut),
    VIBE_TEST(demotion_ends_with_everything_streamed),
    VIBE_TEST(demotion_takes_the_largest_from_the_end_and_kept_ones_last),
};

VIBE_TEST_MAIN(tests)
