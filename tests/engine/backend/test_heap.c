#include "engine/backend/heap.h"

#include <stdlib.h>

#include "tests/support/vibe_test.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

/* A device that counts its spans and has room for so many bytes. */
struct device {
    size_t room, n_spans;
};

struct fixture {
    struct device device;
    struct vibe_heap *heap;
};

static void *take(void *user, size_t bytes)
{
    struct device *device = user;

    if (bytes > device->room)
        return NULL;
    device->room -= bytes;
    device->n_spans++;
    return malloc(bytes);
}

static void give(void *user, void *span)
{
    struct device *device = user;

    device->n_spans--;
    free(span);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    const struct vibe_heap_source source = {take, give, &f->device};

    if (!f)
        return -1;
    f->device.room = 64 * MIB;
    *state = f;
    return vibe_heap_open(&f->heap, &source, NULL);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vibe_heap_free(f->heap);
    free(f);
    return 0;
}

static struct vibe_memory count(const struct fixture *f)
{
    struct vibe_memory m;

    vibe_heap_count(f->heap, &m);
    return m;
}

static void small_pieces_share_a_span(void **state)
{
    struct fixture *f = *state;
    char *a = vibe_heap_take(f->heap, 1, VIBE_FOR_LM);
    char *b = vibe_heap_take(f->heap, 300, VIBE_FOR_HEAD);
    char *c = vibe_heap_take(f->heap, 1, VIBE_FOR_LM);

    assert_ptr_equal(b, a + 256);
    assert_ptr_equal(c, b + 512);
    assert_int_equal(f->device.n_spans, 1);
    assert_int_equal(count(f).bytes[VIBE_FOR_LM], 512);
    assert_int_equal(count(f).bytes[VIBE_FOR_HEAD], 512);
    assert_int_equal(count(f).used, 1024);
    assert_int_equal(count(f).taken, 2 * MIB);
}

static void everything_fits_in_what_was_reserved(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(vibe_heap_reserve(f->heap, 8 * MIB), 0);
    for (int i = 0; i < 8; i++)
        assert_non_null(vibe_heap_take(f->heap, MIB, VIBE_FOR_KV));
    assert_int_equal(f->device.n_spans, 1);
    assert_int_equal(count(f).taken_peak, 8 * MIB);

    assert_non_null(vibe_heap_take(f->heap, 1, VIBE_FOR_KV));
    assert_int_equal(f->device.n_spans, 2);
}

static void what_is_given_back_is_taken_again(void **state)
{
    struct fixture *f = *state;
    char *a = vibe_heap_take(f->heap, 512 * KIB, VIBE_FOR_ENCODER);
    char *b = vibe_heap_take(f->heap, 512 * KIB, VIBE_FOR_ENCODER);
    char *c = vibe_heap_take(f->heap, KIB, VIBE_FOR_LM);

    assert_int_equal(vibe_heap_give(f->heap, b), 0);
    assert_int_equal(vibe_heap_give(f->heap, a), 0);
    assert_ptr_equal(vibe_heap_take(f->heap, MIB, VIBE_FOR_KV), a);
    assert_ptr_equal(c, b + 512 * KIB);
    assert_int_equal(count(f).bytes[VIBE_FOR_ENCODER], 0);
    assert_int_equal(count(f).peak[VIBE_FOR_ENCODER], MIB);
}

static void what_prompts_take_leaves_no_hole(void **state)
{
    struct fixture *f = *state;
    char *kept, *first, *second;

    vibe_heap_reserve(f->heap, 8 * MIB);
    kept = vibe_heap_take(f->heap, MIB, VIBE_FOR_LM);
    first = vibe_heap_take(f->heap, MIB, VIBE_FOR_PROMPT);
    second = vibe_heap_take(f->heap, 2 * MIB, VIBE_FOR_PROMPT);
    assert_ptr_equal(first, kept + 7 * MIB);
    assert_ptr_equal(second, first - 2 * MIB);
    assert_ptr_equal(vibe_heap_take(f->heap, MIB, VIBE_FOR_KV), kept + MIB);

    assert_int_equal(vibe_heap_give(f->heap, first), 0);
    assert_int_equal(vibe_heap_give(f->heap, second), 0);
    assert_ptr_equal(vibe_heap_take(f->heap, 6 * MIB, VIBE_FOR_KV),
                     kept + 2 * MIB);
    assert_int_equal(f->device.n_spans, 1);
}

static void empty_spans_go_back_unless_reserved(void **state)
{
    struct fixture *f = *state;
    void *in, *out;

    vibe_heap_reserve(f->heap, 4 * MIB);
    in = vibe_heap_take(f->heap, 4 * MIB, VIBE_FOR_LM);
    out = vibe_heap_take(f->heap, 5 * MIB + 1, VIBE_FOR_LM);
    assert_int_equal(count(f).taken, 10 * MIB);
    assert_int_equal(vibe_heap_give(f->heap, out), 0);
    assert_int_equal(vibe_heap_give(f->heap, in), 0);
    assert_int_equal(f->device.n_spans, 1);
    assert_int_equal(count(f).taken, 4 * MIB);
    assert_int_equal(count(f).taken_peak, 10 * MIB);
}

static void a_full_device_gives_nothing(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(vibe_heap_reserve(f->heap, 65 * MIB), 1);
    assert_null(vibe_heap_take(f->heap, 65 * MIB, VIBE_FOR_LM));
    assert_int_equal(count(f).taken, 0);
    assert_non_null(vibe_heap_take(f->heap, 64 * MIB, VIBE_FOR_LM));
}

static void the_largest_span_is_found(void **state)
{
    struct fixture *f = *state;
    size_t bytes = 1;
    char *piece;

    assert_null(vibe_heap_largest(f->heap, &bytes));
    assert_int_equal(bytes, 0);
    vibe_heap_take(f->heap, 1, VIBE_FOR_LM);
    assert_int_equal(vibe_heap_reserve(f->heap, 8 * MIB), 0);
    vibe_heap_take(f->heap, 3 * MIB, VIBE_FOR_LM);
    piece = vibe_heap_take(f->heap, 2 * MIB, VIBE_FOR_LM);
    assert_ptr_equal((char *)vibe_heap_largest(f->heap, &bytes) + 3 * MIB,
                     piece);
    assert_int_equal(bytes, 8 * MIB);
}

static void other_memory_is_not_its_own(void **state)
{
    struct fixture *f = *state;
    int other;

    assert_int_equal(vibe_heap_give(f->heap, &other), 1);
    assert_int_equal(vibe_heap_give(f->heap, NULL), 1);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(small_pieces_share_a_span),
    VIBE_TEST(everything_fits_in_what_was_reserved),
    VIBE_TEST(what_is_given_back_is_taken_again),
    VIBE_TEST(what_prompts_take_leaves_no_hole),
    VIBE_TEST(empty_spans_go_back_unless_reserved),
    VIBE_TEST(a_full_device_gives_nothing),
    VIBE_TEST(the_largest_span_is_found),
    VIBE_TEST(other_memory_is_not_its_own),
};

VIBE_TEST_MAIN(tests)
