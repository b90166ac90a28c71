#include "engine/base/error.h"
#include "engine/text/ids.h"
#include "tests/support/vibe_test.h"

static int setup(void **state)
{
    (void)state;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return 0;
}

static void push_keeps_every_id(void **state)
{
    struct vibe_ids list = {0};

    (void)state;
    for (int32_t i = 0; i < 10000; i++)
        assert_int_equal(vibe_ids_push(&list, 3 * i, NULL), VIBE_OK);
    assert_int_equal(list.n, 10000);
    for (int32_t i = 0; i < 10000; i++)
        assert_int_equal(list.ids[i], 3 * i);
    vibe_ids_release(&list);
    assert_null(list.ids);
    assert_int_equal(list.n, 0);
}

static void reserve_refuses_what_no_memory_can_hold(void **state)
{
    struct vibe_ids list = {0};
    struct vibe_error err;

    (void)state;
    assert_int_equal(vibe_ids_push(&list, 7, NULL), VIBE_OK);
    assert_int_equal(vibe_ids_reserve(&list, SIZE_MAX, &err), VIBE_E_NOMEM);
    assert_int_equal(vibe_ids_reserve(&list, SIZE_MAX / 4, &err), VIBE_E_NOMEM);
    assert_int_equal(list.n, 1);
    assert_int_equal(list.ids[0], 7);
    vibe_ids_release(&list);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(push_keeps_every_id),
    VIBE_TEST(reserve_refuses_what_no_memory_can_hold),
};

VIBE_TEST_MAIN(tests)
