#include "engine/format/readahead.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/support/vibe_test.h"
#include "tests/support/weights_dir.h"

enum { COLUMNS = 1024, ROWS = 16384 }; /* 32 MB: more than a thread's step */

/* A checkpoint that is a hole: no page of it is in memory until it is read. */
static int setup(void **state)
{
    struct st_header h = {0};
    struct weights_fixture *f;

    if (weights_setup(state))
        return -1;
    f = *state;
    st_header_add(&h, "a.weight", "BF16", "[16384,1024]",
                  (size_t)2 * ROWS * COLUMNS);
    st_header_add(&h, "b.weight", "BF16", "[16384,1024]",
                  (size_t)2 * ROWS * COLUMNS);
    st_header_write(&h, st_path(&f->dir, "model.safetensors"));
    weights_open(f);
    return 0;
}

static int teardown(void **state)
{
    return weights_teardown(state);
}

/* Pages of both tensors that are in memory, of all they have. */
static double share_in_memory(const struct weights_fixture *f)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t n_in = 0;
    size_t n_all = 0;

    for (size_t i = 0; i < vibe_weights_count(f->w); i++) {
        struct vibe_weight weight;
        const size_t n = (size_t)2 * ROWS * COLUMNS / page;
        unsigned char *in = calloc(n, 1);
        uintptr_t at;

        assert_non_null(in);
        vibe_weights_get(f->w, i, &weight);
        at = ((uintptr_t)weight.data + page - 1) / page * page;
        assert_int_equal(mincore((void *)at, (n - 1) * page, in), 0);
        for (size_t p = 0; p < n - 1; p++)
            n_in += in[p] & 1;
        n_all += n - 1;
        free(in);
    }
    return (double)n_in / (double)n_all;
}

static void everything_is_read_before_it_is_asked_for(void **state)
{
    struct weights_fixture *f = *state;
    struct vibe_readahead *r;

    /* the kernel reads some pages ahead of the header, by itself */
    assert_true(share_in_memory(f) < 0.5);
    r = vibe_readahead_begin(f->w, 3);
    assert_non_null(r);
    vibe_readahead_wait(r);
    assert_true(share_in_memory(f) > 0.99);
    vibe_readahead_end(r);
}

static void it_may_be_ended_at_any_time(void **state)
{
    struct weights_fixture *f = *state;

    for (int i = 0; i < 20; i++)
        vibe_readahead_end(vibe_readahead_begin(f->w, 1 + i % 4));
    vibe_readahead_end(NULL);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(everything_is_read_before_it_is_asked_for),
    VIBE_TEST(it_may_be_ended_at_any_time),
};

VIBE_TEST_MAIN(tests)
