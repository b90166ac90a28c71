#include "cli/errands.h"

#include <pthread.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "tests/support/vibe_test.h"

enum { MANY = 1000 };

struct fixture {
    struct vibe_errands *errands;
    struct vibe_failure why;
    pthread_mutex_t gate; /* held: errands wait in front of it */
    size_t done[MANY];
    size_t n_done;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f)
        return -1;
    *state = f;
    pthread_mutex_init(&f->gate, NULL);
    return vibe_errands_open(&f->errands, &f->why) == VIBE_EXIT_OK ? 0 : -1;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vibe_errands_free(f->errands);
    pthread_mutex_destroy(&f->gate);
    free(f);
    return 0;
}

static void finish(struct fixture *f)
{
    vibe_errands_free(f->errands);
    f->errands = NULL;
}

/* Write down one's number, once the gate is open. */
static void note(void *user, void *object)
{
    struct fixture *f = user;
    const size_t *number = object;

    pthread_mutex_lock(&f->gate);
    f->done[f->n_done++] = *number;
    pthread_mutex_unlock(&f->gate);
}

static void does_all_in_their_order(void **state)
{
    static size_t numbers[MANY]; /* more than may wait */
    struct fixture *f = *state;

    for (size_t i = 0; i < MANY; i++) {
        numbers[i] = i;
        vibe_errands_add(f->errands, note, f, &numbers[i]);
    }
    finish(f);

    assert_int_equal(f->n_done, MANY);
    for (size_t i = 0; i < MANY; i++)
        assert_int_equal(f->done[i], i);
}

static void returns_before_an_errand_is_done(void **state)
{
    struct fixture *f = *state;
    size_t number = 1;

    pthread_mutex_lock(&f->gate);
    vibe_errands_add(f->errands, note, f, &number);
    assert_int_equal(f->n_done, 0); /* and we are here */
    pthread_mutex_unlock(&f->gate);
    finish(f);

    assert_int_equal(f->n_done, 1);
}

static void may_have_nothing_to_do(void **state)
{
    finish(*state);
    vibe_errands_free(NULL);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(does_all_in_their_order),
    VIBE_TEST(returns_before_an_errand_is_done),
    VIBE_TEST(may_have_nothing_to_do),
};

VIBE_TEST_MAIN(tests)
