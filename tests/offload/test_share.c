/* What the link and the CPU do together. */
#include "offload/share.h"

#include <stdlib.h>

#include "engine/base/error.h"
#include "tests/support/fake_device.h"
#include "tests/support/vibe_test.h"

static int setup(void **state)
{
    struct fake_device *d = calloc(1, sizeof(*d));

    if (!d)
        return -1;
    fake_device_init(d);
    *state = d;
    return 0;
}

static int teardown(void **state)
{
    fake_device_release(*state);
    free(*state);
    return 0;
}

static void both_end_at_the_same_time(void **state)
{
    const struct vibe_share_rates rates = {
        .alone = 24e9, .link = 20e9, .host = 20e9};
    const double share = vibe_share_choose(&rates);

    (void)state;
    assert_true(share > 0.45);
    assert_true(share < 0.5); /* the host has its team to wake up, too */
}

static void a_cpu_that_takes_from_the_link_gets_nothing(void **state)
{
    const struct vibe_share_rates rates = {
        .alone = 24e9, .link = 15e9, .host = 9.5e9};

    (void)state;
    assert_float_equal(vibe_share_choose(&rates), 0, 0);
    assert_float_equal(vibe_share_choose(&(struct vibe_share_rates){0}), 0, 0);
}

static void a_share_that_is_asked_for_is_no_slower_than_none(void **state)
{
    const struct vibe_share_rates rates = {
        .alone = 24e9, .link = 20e9, .host = 20e9};
    const struct vibe_share_rates worthless = {
        .alone = 24e9, .link = 15e9, .host = 9.5e9};

    (void)state;
    assert_float_equal(vibe_share_allow(&rates, 0.1), 0.1, 0);
    assert_float_equal(vibe_share_allow(&rates, 0.79), 0.79, 0);
    /* 0.8 of 24 GB in a second is more than the 19 that the host can do */
    assert_float_equal(vibe_share_allow(&rates, 0.8), vibe_share_choose(&rates),
                       0);
    assert_float_equal(vibe_share_allow(&worthless, 0.1), 0, 0);
}

static size_t work(void *user)
{
    size_t *n = user;

    (*n)++;
    return 1000;
}

static void measuring_counts_both(void **state)
{
    size_t n = 0;
    const struct vibe_share_work beside = {.work = work, .user = &n};
    struct vibe_share_rates rates;

    assert_int_equal(vibe_share_measure(&rates, fake_backend(*state),
                                        &fake_transfer, &beside, NULL),
                     VIBE_OK);
    assert_true(n > 1);
    assert_true(rates.alone > 0);
    assert_true(rates.link > 0);
    assert_true(rates.host > 0);
}

static void every_failure_is_told_and_leaks_nothing(void **state)
{
    size_t n = 0;
    const struct vibe_share_work beside = {.work = work, .user = &n};
    struct fake_device *d = *state;

    for (d->fail_at = 0; d->fail_at < 7; d->fail_at++) {
        struct vibe_share_rates rates;
        struct vibe_error err = {0};

        d->n_calls = 0;
        assert_int_not_equal(vibe_share_measure(&rates, fake_backend(d),
                                                &fake_transfer, &beside, &err),
                             VIBE_OK);
        assert_int_not_equal(err.msg[0], '\0');
        assert_int_equal(d->n_live, 0);
    }
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(both_end_at_the_same_time),
    VIBE_TEST(a_cpu_that_takes_from_the_link_gets_nothing),
    VIBE_TEST(a_share_that_is_asked_for_is_no_slower_than_none),
    VIBE_TEST(measuring_counts_both),
    VIBE_TEST(every_failure_is_told_and_leaks_nothing),
};

VIBE_TEST_MAIN(tests)
