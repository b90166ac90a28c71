#include <string.h>

#include "engine/backend/backend.h"
#include "engine/backend/cpu/cpu.h"
#include "offload/transfer.h"
#include "tests/support/vibe_test.h"

struct fixture {
    struct vibe_backend *be;
    const struct vibe_transfer *t;
    char *device, *host;
};

enum { BYTES = 1000 };

static int setup(void **state)
{
    static struct fixture f;

    f = (struct fixture){0};
    *state = &f;
    if (vibe_cpu_open_isa(&f.be, VIBE_CPU_SCALAR, 1, NULL))
        return -1;
    f.t = f.be->transfer;
    f.device = f.t->device_alloc(f.be, BYTES);
    f.host = f.t->pinned_alloc(f.be, BYTES);
    return f.device && f.host ? 0 : -1;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    f->t->device_free(f->be, f->device);
    f->t->pinned_free(f->be, f->host);
    vibe_backend_free(f->be);
    return 0;
}

static void copy_has_arrived_when_its_event_is_reached(void **state)
{
    struct fixture *f = *state;
    struct vibe_event *event = NULL;

    memset(f->host, 7, BYTES);
    memset(f->device, 0, BYTES);
    assert_int_equal(f->t->event_create(&event, f->be, NULL), VIBE_OK);

    assert_int_equal(f->t->copy(f->be, f->device, f->host, BYTES - 1, NULL),
                     VIBE_OK);
    assert_int_equal(f->t->event_record(event, VIBE_QUEUE_COPY, NULL), VIBE_OK);
    assert_int_equal(f->t->event_wait(event, VIBE_QUEUE_HOST, NULL), VIBE_OK);
    assert_memory_equal(f->device, f->host, BYTES - 1);
    assert_int_equal(f->device[BYTES - 1], 0);
    f->t->event_destroy(event);
}

static void an_event_never_recorded_holds_nobody_back(void **state)
{
    struct fixture *f = *state;
    struct vibe_event *event = NULL;

    assert_int_equal(f->t->event_create(&event, f->be, NULL), VIBE_OK);
    assert_int_equal(f->t->event_wait(event, VIBE_QUEUE_COMPUTE, NULL),
                     VIBE_OK);
    f->t->event_destroy(event);
}

static void memory_is_aligned_and_counted(void **state)
{
    struct fixture *f = *state;

    assert_int_equal((uintptr_t)f->device % 256, 0);
    assert_true(f->t->free_bytes(f->be) > BYTES);
}

static void what_cannot_be_had_is_null(void **state)
{
    struct fixture *f = *state;

    assert_null(f->t->device_alloc(f->be, SIZE_MAX - 1));
    assert_null(f->t->pinned_alloc(f->be, SIZE_MAX - 1));
    f->t->device_free(f->be, NULL);
    f->t->pinned_free(f->be, NULL);
    f->t->event_destroy(NULL);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(copy_has_arrived_when_its_event_is_reached),
    VIBE_TEST(an_event_never_recorded_holds_nobody_back),
    VIBE_TEST(memory_is_aligned_and_counted),
    VIBE_TEST(what_cannot_be_had_is_null),
};

VIBE_TEST_MAIN(tests)
