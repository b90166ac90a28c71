#include "offload/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/error.h"
#include "tests/support/fake_device.h"
#include "tests/support/vibe_test.h"

enum { CHUNKS = 10, BYTES = 1000, ROOM = 1024 }; /* rounded up to 256 */

struct fixture {
    struct fake_device d;
    struct vibe_arena_options options;
    struct vibe_arena *arena;
    struct vibe_arena_chunk *chunks[CHUNKS];
    size_t place[VIBE_N_PLACES];
};

/* Chunk i is i, BYTES times. */
static void lay(void *user, size_t matrix, size_t first, size_t n, void *out)
{
    (void)user, (void)first, (void)n;
    memset(out, (int)matrix, BYTES);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f)
        return -1;
    *state = f;
    fake_device_init(&f->d);
    f->options = (struct vibe_arena_options){
        .slab_bytes = 3 * ROOM, .limit = SIZE_MAX, .threads = 2};
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vibe_arena_free(f->arena);
    fake_device_release(&f->d);
    free(f);
    return 0;
}

/* Add all chunks and wait for their places; each is what it should be. */
static void fill(struct fixture *f)
{
    const struct vibe_layer_out source = {.lay = lay};

    assert_int_equal(vibe_arena_open(&f->arena, fake_backend(&f->d),
                                     &fake_transfer, &source, &f->options,
                                     NULL),
                     VIBE_OK);
    for (size_t i = 0; i < CHUNKS; i++)
        assert_int_equal(
            vibe_arena_add(
                &f->chunks[i], f->arena,
                &(const struct vibe_piece){.matrix = i, .n = 1, .bytes = BYTES},
                NULL),
            VIBE_OK);
    vibe_arena_fill(f->arena);
    vibe_arena_settle(f->arena);
    assert_true(vibe_arena_count(f->arena, f->place));
    for (size_t i = 0; i < CHUNKS; i++) {
        unsigned char bytes[BYTES], want[BYTES];
        const void *host;

        memset(want, (int)i, BYTES);
        vibe_arena_lay(f->chunks[i], bytes);
        assert_memory_equal(bytes, want, BYTES);
        if (vibe_arena_find(f->chunks[i], &host) != VIBE_PLACE_FILE)
            assert_memory_equal(host, want, BYTES);
        else
            assert_null(host);
    }
}

static void everything_is_pinned_where_it_can_be(void **state)
{
    struct fixture *f = *state;

    fill(f);
    assert_int_equal(f->place[VIBE_PLACE_PINNED], CHUNKS * BYTES);
}

static void a_refused_slab_ends_pinning(void **state)
{
    struct fixture *f = *state;

    f->d.pinned_left = 4 * ROOM; /* one slab of three, and the last one's one */
    fill(f);
    assert_int_equal(f->place[VIBE_PLACE_PINNED], 3 * BYTES);
    assert_int_equal(f->place[VIBE_PLACE_PAGEABLE], (CHUNKS - 3) * BYTES);
}

static void nothing_is_pinned_unasked(void **state)
{
    struct fixture *f = *state;

    f->options.is_unpinned = 1;
    fill(f);
    assert_int_equal(f->place[VIBE_PLACE_PAGEABLE], CHUNKS * BYTES);
    assert_int_equal(f->d.n_live, 0);
}

static void what_the_limit_leaves_out_stays_in_the_file(void **state)
{
    struct fixture *f = *state;

    f->options.limit = 7 * ROOM;
    fill(f);
    /* two slabs of three fit, a third does not, the last of one does */
    assert_int_equal(f->place[VIBE_PLACE_PINNED], 7 * BYTES);
    assert_int_equal(f->place[VIBE_PLACE_FILE], 3 * BYTES);
}

static void a_chunk_larger_than_a_slab_has_its_own(void **state)
{
    struct fixture *f = *state;

    f->options.slab_bytes = 10;
    fill(f);
    assert_int_equal(f->place[VIBE_PLACE_PINNED], CHUNKS * BYTES);
    assert_int_equal(f->d.n_live, CHUNKS);
}

static void what_is_there_is_not_added_again(void **state)
{
    struct fixture *f = *state;
    const struct vibe_piece piece = {.matrix = 3, .n = 64, .bytes = BYTES};
    const struct vibe_piece next = {
        .matrix = 3, .first = 64, .n = 64, .bytes = BYTES};
    struct vibe_arena_chunk *chunk, *same, *other;

    fill(f);
    assert_int_equal(vibe_arena_add(&chunk, f->arena, &piece, NULL), VIBE_OK);
    assert_int_equal(vibe_arena_add(&same, f->arena, &piece, NULL), VIBE_OK);
    assert_int_equal(vibe_arena_add(&other, f->arena, &next, NULL), VIBE_OK);

    assert_ptr_equal(chunk, same);
    assert_ptr_not_equal(chunk, other);
    /* the new one is yet to be placed */
    assert_false(vibe_arena_count(f->arena, f->place));
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(everything_is_pinned_where_it_can_be),
    VIBE_TEST(a_refused_slab_ends_pinning),
    VIBE_TEST(nothing_is_pinned_unasked),
    VIBE_TEST(what_the_limit_leaves_out_stays_in_the_file),
    VIBE_TEST(a_chunk_larger_than_a_slab_has_its_own),
    VIBE_TEST(what_is_there_is_not_added_again),
};

VIBE_TEST_MAIN(tests)
