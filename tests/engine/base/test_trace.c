#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/error.h"
#include "engine/base/trace.h"
#include "tests/support/scratch.h"
#include "tests/support/vibe_test.h"

struct fixture {
    struct vibe_scratch scratch;
    struct vibe_trace *trace;
    json_t *root; /* what load() read */
};

enum { CAPACITY = 4, N_NAMES = 7 /* of the process and of three tracks */ };

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f || vibe_scratch_enter(&f->scratch))
        return -1;
    *state = f;
    return vibe_trace_open(&f->trace, "t.json", CAPACITY, NULL);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    int rc;

    json_decref(f->root);
    vibe_trace_free(f->trace);
    rc = vibe_scratch_leave(&f->scratch);
    free(f);
    return rc;
}

/* Write the trace and parse it; returns its events. */
static const json_t *load(struct fixture *f)
{
    json_error_t why;

    assert_int_equal(vibe_trace_write(f->trace, NULL), VIBE_OK);
    f->root = json_load_file("t.json", JSON_REJECT_DUPLICATES, &why);
    assert_non_null(f->root);
    return json_object_get(f->root, "traceEvents");
}

static const char *text(const json_t *event, const char *key)
{
    return json_string_value(json_object_get(event, key));
}

static double number(const json_t *event, const char *key)
{
    return json_number_value(json_object_get(event, key));
}

static void open_names_the_file_it_cannot_make(void **state)
{
    struct vibe_trace *trace = NULL;
    struct vibe_error err = {0};

    (void)state;
    assert_int_equal(vibe_trace_open(&trace, "none/t.json", 1, &err),
                     VIBE_E_IO);
    assert_string_equal(err.msg, "none/t.json: No such file or directory");
    assert_null(trace);
}

static void what_is_not_written_leaves_no_file(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(vibe_file_count(), 1);
    vibe_trace_free(f->trace);
    f->trace = NULL;
    assert_int_equal(vibe_file_count(), 0);
}

static void a_full_disk_leaves_no_file(void **state)
{
    struct fixture *f = *state;
    struct vibe_error err = {0};

    if (!vibe_file_exists("/dev/full"))
        skip();
    vibe_trace_free(f->trace);
    assert_int_equal(symlink("/dev/full", "t.json.part"), 0);
    assert_int_equal(vibe_trace_open(&f->trace, "t.json", 1, &err), VIBE_OK);
    assert_int_equal(vibe_trace_write(f->trace, &err), VIBE_E_IO);
    assert_string_equal(err.msg, "t.json: No space left on device");
    assert_int_equal(vibe_file_count(), 0);
}

static void no_trace_takes_everything(void **state)
{
    (void)state;

    vibe_trace_span(NULL, VIBE_TRACK_HOST, "x", 0, 1);
    vibe_trace_counter(NULL, "x", 0, 1);
    vibe_trace_free(NULL);
}

static void names_the_tracks(void **state)
{
    const json_t *events = load(*state);
    const json_t *compute = json_array_get(events, 3);

    assert_int_equal(json_array_size(events), N_NAMES);
    assert_string_equal(text(compute, "ph"), "M");
    assert_string_equal(text(compute, "name"), "thread_name");
    assert_string_equal(text(json_object_get(compute, "args"), "name"),
                        "compute");
    assert_true(number(compute, "tid") == 2);
}

static void a_span_has_its_track_and_length(void **state)
{
    struct fixture *f = *state;
    const double now = vibe_clock_s();
    const json_t *span;

    vibe_trace_span(f->trace, VIBE_TRACK_COPY, "chunk", now, now + 0.25);
    span = json_array_get(load(f), N_NAMES);

    assert_string_equal(text(span, "ph"), "X");
    assert_string_equal(text(span, "name"), "chunk");
    assert_true(number(span, "tid") == 3);
    assert_true(number(span, "ts") >= 0);
    /* a difference of two clock readings, cut to whole ns */
    assert_true(number(span, "dur") > 249999 && number(span, "dur") < 250001);
}

static void time_before_the_start_is_negative(void **state)
{
    struct fixture *f = *state;
    const double now = vibe_clock_s();
    const json_t *span;

    vibe_trace_span(f->trace, VIBE_TRACK_HOST, "open", now - 9.0, now);
    span = json_array_get(load(f), N_NAMES);

    assert_true(number(span, "ts") < -8e6);
}

static void a_counter_has_its_value(void **state)
{
    struct fixture *f = *state;
    const json_t *counter;

    vibe_trace_counter(f->trace, "VRAM", vibe_clock_s(),
                       (size_t)80 << 30); /* more than 32 bits */
    counter = json_array_get(load(f), N_NAMES);

    assert_string_equal(text(counter, "ph"), "C");
    assert_int_equal(json_integer_value(json_object_get(
                         json_object_get(counter, "args"), "value")),
                     (int64_t)80 << 30);
}

static void only_the_last_events_are_kept(void **state)
{
    struct fixture *f = *state;
    const json_t *events;

    for (size_t i = 0; i < 10; i++)
        vibe_trace_counter(f->trace, "n", vibe_clock_s(), i);
    events = load(f);

    assert_int_equal(json_array_size(events), N_NAMES + CAPACITY);
    for (size_t i = 0; i < CAPACITY; i++)
        assert_true(
            number(json_object_get(json_array_get(events, N_NAMES + i), "args"),
                   "value") == (double)(i + 6));
    assert_true(
        number(json_object_get(f->root, "otherData"), "forgotten_events") == 6);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(open_names_the_file_it_cannot_make),
    VIBE_TEST(what_is_not_written_leaves_no_file),
    VIBE_TEST(a_full_disk_leaves_no_file),
    VIBE_TEST(no_trace_takes_everything),
    VIBE_TEST(names_the_tracks),
    VIBE_TEST(a_span_has_its_track_and_length),
    VIBE_TEST(time_before_the_start_is_negative),
    VIBE_TEST(a_counter_has_its_value),
    VIBE_TEST(only_the_last_events_are_kept),
};

VIBE_TEST_MAIN(tests)
