#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/backend/cpu/cpu.h"
#include "engine/backend/ops.h"
#include "tests/support/vibe_test.h"

struct fixture {
    struct vibe_backend *be;
    struct vibe_stream s;
    struct vibe_tensor t;
    struct vibe_error err;
};

static int setup(void **state)
{
    static struct fixture f;

    f = (struct fixture){0};
    *state = &f;
    unsetenv("VIBEVOICE_CPU_ISA");
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    unsetenv("VIBEVOICE_CPU_ISA");
    if (!f->be)
        return 0;
    vibe_tensor_release(&f->t, f->be);
    vibe_stream_release(&f->s);
    vibe_backend_free(f->be);
    return 0;
}

static int open_cpu(struct fixture *f)
{
    struct vibe_backend_options options = {.threads = 2};

    return vibe_backend_open(&f->be, &options, &f->err);
}

static void open_refuses_kernels_it_does_not_know(void **state)
{
    struct fixture *f = *state;

    setenv("VIBEVOICE_CPU_ISA", "sse9", 1);
    assert_int_equal(open_cpu(f), VIBE_E_ARG);
    assert_non_null(strstr(f->err.msg, "'sse9'"));
    assert_null(f->be);
}

static void open_refuses_kernels_the_cpu_lacks(void **state)
{
    struct fixture *f = *state;

    if (vibe_cpu_has(VIBE_CPU_AMX))
        skip();
    setenv("VIBEVOICE_CPU_ISA", "amx", 1);
    assert_int_equal(open_cpu(f), VIBE_E_UNSUPPORTED);
    assert_non_null(strstr(f->err.msg, "amx"));
    assert_null(f->be);
}

static void open_takes_the_kernels_that_are_named(void **state)
{
    struct fixture *f = *state;

    setenv("VIBEVOICE_CPU_ISA", "scalar", 1);
    assert_int_equal(open_cpu(f), VIBE_OK);
    assert_string_equal(f->be->name, "CPU, 2 threads, scalar");
}

static void open_takes_the_best_kernels_by_itself(void **state)
{
    struct fixture *f = *state;
    enum vibe_cpu_isa best = VIBE_CPU_N_ISA - 1;

    while (!vibe_cpu_has(best))
        best--;
    assert_int_equal(open_cpu(f), VIBE_OK);
    assert_non_null(strstr(f->be->name, vibe_cpu_isa_name(best)));
}

static void tensor_too_large_for_memory_is_an_error(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(open_cpu(f), VIBE_OK);
    assert_int_equal(vibe_tensor_init(&f->t, f->be, VIBE_F32, SIZE_MAX / 2,
                                      SIZE_MAX / 2, 2, &f->err),
                     VIBE_E_NOMEM);
    assert_null(f->t.data);
}

static void views_share_memory(void **state)
{
    struct fixture *f = *state;
    struct vibe_tensor v;
    float *data;

    assert_int_equal(open_cpu(f), VIBE_OK);
    assert_int_equal(vibe_tensor_init(&f->t, f->be, VIBE_F32, 2, 3, 4, &f->err),
                     VIBE_OK);
    data = f->t.data;
    assert_float_equal(data[23], 0.0f, 0.0f); /* zeroed */

    v = vibe_tensor_batch(&f->t, 1, 1);
    assert_ptr_equal(v.data, data + 12);
    v = vibe_tensor_rows(&v, 2, 1);
    assert_ptr_equal(v.data, data + 12 + 8);
    v = vibe_tensor_channels(&v, 3, 1);
    assert_ptr_equal(v.data, data + 23);
    v = vibe_tensor_broadcast(&v, 7);
    assert_int_equal(v.B, 7);
    assert_int_equal(v.stride_b, 0);
}

static void ops_after_an_error_do_nothing_until_it_is_taken(void **state)
{
    struct fixture *f = *state;
    float one = 1.0f;
    struct vibe_tensor x;

    assert_int_equal(open_cpu(f), VIBE_OK);
    assert_int_equal(vibe_stream_init(&f->s, f->be, &f->err), VIBE_OK);
    assert_int_equal(vibe_tensor_init(&f->t, f->be, VIBE_F32, 1, 1, 1, &f->err),
                     VIBE_OK);
    x = f->t;

    vibe_fail(&f->s.err, VIBE_E_DEVICE, "the device said no");
    vibe_affine(&f->s, &x, &x, 1.0f, 5.0f);
    vibe_write(&f->s, x.data, &one, sizeof(one));
    assert_float_equal(*(float *)x.data, 0.0f, 0.0f);

    assert_int_equal(vibe_stream_check(&f->s, &f->err), VIBE_E_DEVICE);
    assert_string_equal(f->err.msg, "the device said no");
    vibe_affine(&f->s, &x, &x, 1.0f, 5.0f);
    assert_int_equal(vibe_stream_check(&f->s, &f->err), VIBE_OK);
    assert_float_equal(*(float *)x.data, 5.0f, 0.0f);
}

/* The status of a child that does something to a sealed backend. */
static int status_of_sealed(struct fixture *f, void (*act)(struct fixture *f))
{
    int status = 0;
    pid_t child;

    vibe_backend_seal(f->be);
    fflush(NULL);
    child = fork();
    if (child == 0) {
        if (!freopen("/dev/null", "w", stderr))
            _exit(2);
        act(f);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    vibe_backend_unseal(f->be);
    return status;
}

static void allocate(struct fixture *f)
{
    f->be->ops->alloc(f->be, 64);
}

static void wait_for_it(struct fixture *f)
{
    vibe_stream_check(&f->s, NULL);
}

static void a_sealed_backend_neither_allocates_nor_waits(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(open_cpu(f), VIBE_OK);
    assert_int_equal(vibe_stream_init(&f->s, f->be, NULL), VIBE_OK);
    vibe_backend_seal(f->be);
    if (!f->be->is_sealed)
        skip(); /* only DEBUG=1 builds seal */

    assert_true(WIFSIGNALED(status_of_sealed(f, allocate)));
    assert_true(WIFSIGNALED(status_of_sealed(f, wait_for_it)));
    assert_int_equal(vibe_stream_check(&f->s, NULL), VIBE_OK);
}

static void a_timed_stream_tells_moments_in_their_order(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(open_cpu(f), VIBE_OK);
    assert_int_equal(vibe_stream_init(&f->s, f->be, NULL), VIBE_OK);
    vibe_mark(&f->s, 0);
    assert_true(vibe_mark_s(&f->s, 0) == 0.0);

    f->s.is_timed = 1;
    vibe_mark(&f->s, 0);
    vibe_mark(&f->s, VIBE_MARKS - 1);
    assert_true(vibe_mark_s(&f->s, 0) > 0.0);
    assert_true(vibe_mark_s(&f->s, VIBE_MARKS - 1) >= vibe_mark_s(&f->s, 0));
}

static void write_one(void *user)
{
    struct fixture *f = user;
    const float one = 1.0f;

    vibe_write(&f->s, f->t.data, &one, sizeof(one));
}

static void what_runs_beside_is_there_after_meeting(void **state)
{
    struct fixture *f = *state;
    float found = 0.0f;

    assert_int_equal(open_cpu(f), VIBE_OK);
    assert_int_equal(vibe_stream_init(&f->s, f->be, NULL), VIBE_OK);
    assert_int_equal(vibe_tensor_init(&f->t, f->be, VIBE_F32, 1, 1, 1, NULL),
                     VIBE_OK);
    vibe_beside(&f->s, write_one, f);
    vibe_meet(&f->s);
    vibe_read(&f->s, &found, f->t.data, sizeof(found));

    assert_int_equal(vibe_stream_check(&f->s, NULL), VIBE_OK);
    assert_float_equal(found, 1.0f, 0.0f);
}

static void products_usually_take_parts_but_of_int4(void **state)
{
    static const enum vibe_dtype dtypes[] = {VIBE_BF16, VIBE_F8_E4M3, VIBE_I8,
                                             VIBE_BF16_PACKED};
    struct vibe_matrix w = {.n_parts = 1};

    (void)state;
    for (size_t i = 0; i < sizeof(dtypes) / sizeof(*dtypes); i++) {
        w.part[0].dtype = dtypes[i];
        assert_int_equal(vibe_usual_form(&w), VIBE_FORM_PARTS);
    }
    w.part[0].dtype = VIBE_I4;
    assert_int_equal(vibe_usual_form(&w), VIBE_FORM_PLAIN);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(open_refuses_kernels_it_does_not_know),
    VIBE_TEST(open_refuses_kernels_the_cpu_lacks),
    VIBE_TEST(open_takes_the_kernels_that_are_named),
    VIBE_TEST(open_takes_the_best_kernels_by_itself),
    VIBE_TEST(tensor_too_large_for_memory_is_an_error),
    VIBE_TEST(views_share_memory),
    VIBE_TEST(ops_after_an_error_do_nothing_until_it_is_taken),
    VIBE_TEST(a_sealed_backend_neither_allocates_nor_waits),
    VIBE_TEST(what_runs_beside_is_there_after_meeting),
    VIBE_TEST(a_timed_stream_tells_moments_in_their_order),
    VIBE_TEST(products_usually_take_parts_but_of_int4),
};

VIBE_TEST_MAIN(tests)
