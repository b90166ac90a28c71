/*
 * The heap against the definition of BPE, which looks through the whole piece
 * for the lowest rank before every merge, with random merges.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/text/bpe.h"
#include "tests/support/vibe_test.h"

enum {
    N_LETTERS = 4, /* few, so that merges overlap a lot */
    N_MERGES = 300,
    MAX_PIECE = 3000,
};

struct rule {
    int32_t left, right, made;
};

struct fixture {
    struct vibe_bpe bpe;
    struct vibe_bpe_scratch scratch;
    struct vibe_ids got;
    struct rule rules[N_MERGES];
    size_t n_rules;
    uint64_t rng;
};

/* splitmix64: the same merges and pieces on every machine. */
static size_t pick(struct fixture *f, size_t n)
{
    uint64_t z = (f->rng += 0x9E3779B97F4A7C15u);

    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (size_t)((z ^ (z >> 31)) % n);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f)
        return -1;
    f->rng = 7;
    *state = f;
    return vibe_bpe_init(&f->bpe, N_MERGES, NULL);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vibe_bpe_release(&f->bpe);
    vibe_bpe_scratch_release(&f->scratch);
    vibe_ids_release(&f->got);
    free(f);
    return 0;
}

static void add_random_merges(struct fixture *f)
{
    for (int i = 0; i < 256; i++)
        f->bpe.byte_id[i] = i;
    while (f->n_rules < N_MERGES) {
        size_t n_known = N_LETTERS + f->n_rules;
        struct rule rule;

        /* Mostly short symbols, so that most rules come to be used. */
        rule.left = (int32_t)pick(f, 1 + pick(f, n_known));
        rule.right = (int32_t)pick(f, 1 + pick(f, n_known));
        rule.made = (int32_t)n_known;
        if (vibe_bpe_add(&f->bpe, rule.left, rule.right, rule.made) ==
            f->n_rules)
            f->rules[f->n_rules++] = rule;
    }
}

/* Apply the first rule, leftmost, until none applies.  Return the new n. */
static size_t merge_by_definition(const struct fixture *f, int32_t *ids,
                                  size_t n)
{
    size_t r = 0;

    while (r < f->n_rules) {
        const struct rule *rule = &f->rules[r];
        size_t i = 0;

        while (i + 1 < n && (ids[i] != rule->left || ids[i + 1] != rule->right))
            i++;
        r++;
        if (i + 1 >= n)
            continue;
        ids[i] = rule->made;
        memmove(ids + i + 1, ids + i + 2, (n - i - 2) * sizeof(*ids));
        n--;
        r = 0;
    }
    return n;
}

static void compare(struct fixture *f, size_t n)
{
    static int32_t want[MAX_PIECE];
    static char piece[MAX_PIECE];
    size_t n_want;

    for (size_t i = 0; i < n; i++) {
        want[i] = (int32_t)pick(f, N_LETTERS);
        piece[i] = (char)want[i];
    }
    n_want = merge_by_definition(f, want, n);

    f->got.n = 0;
    assert_int_equal(
        vibe_bpe_encode(&f->bpe, &f->scratch, &f->got, piece, n, NULL),
        VIBE_OK);
    assert_int_equal(f->got.n, n_want);
    if (n_want > 0)
        assert_memory_equal(f->got.ids, want, n_want * sizeof(*want));
}

static void encode_merges_as_defined(void **state)
{
    struct fixture *f = *state;

    add_random_merges(f);
    for (int i = 0; i < 3000; i++)
        compare(f, pick(f, 40));
    compare(f, MAX_PIECE);
}

static void encode_merges_equal_pairs_from_the_left(void **state)
{
    struct fixture *f = *state;
    static const int32_t want[] = {256, 256, 'a'};

    for (int i = 0; i < 256; i++)
        f->bpe.byte_id[i] = i;
    vibe_bpe_add(&f->bpe, 'a', 'a', 256);

    assert_int_equal(
        vibe_bpe_encode(&f->bpe, &f->scratch, &f->got, "aaaaa", 5, NULL),
        VIBE_OK);
    assert_int_equal(f->got.n, 3);
    assert_memory_equal(f->got.ids, want, sizeof(want));
}

static void add_returns_the_rank_of_an_earlier_merge(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(vibe_bpe_add(&f->bpe, 1, 2, 9), 0);
    assert_int_equal(vibe_bpe_add(&f->bpe, 2, 1, 10), 1);
    assert_int_equal(vibe_bpe_add(&f->bpe, 1, 2, 11), 0);
    assert_int_equal(f->bpe.n_merges, 2);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(encode_merges_as_defined),
    VIBE_TEST(encode_merges_equal_pairs_from_the_left),
    VIBE_TEST(add_returns_the_rank_of_an_earlier_merge),
};

VIBE_TEST_MAIN(tests)
