/* Every set of CPU kernels that this machine runs, against the reference. */
#include <stdio.h>
#include <string.h>

#include "engine/backend/backend.h"
#include "engine/backend/cpu/cpu.h"
#include "engine/backend/ops.h"
#include "engine/backend/parity.h"
#include "tests/support/vibe_test.h"

struct fixture {
    struct vibe_backend *be;
    struct vibe_error err;
    size_t n_reported, n_rounded;
    size_t n_failed;
};

static int setup(void **state)
{
    static struct fixture f;

    f = (struct fixture){0};
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vibe_backend_free(f->be);
    return 0;
}

static void note(void *user, const char *op, const char *shape, double max_err,
                 double bound, int ok)
{
    struct fixture *f = user;

    f->n_reported++;
    f->n_rounded += strcmp(op, "gemm rounded") == 0;
    if (ok)
        return;
    f->n_failed++;
    print_error("%s %s: off by %g, allowed %g\n", op, shape, max_err, bound);
}

static void run(struct fixture *f, enum vibe_cpu_isa isa, int threads)
{
    if (!vibe_cpu_has(isa)) {
        print_message("this machine does not run %s\n", vibe_cpu_isa_name(isa));
        skip();
    }
    assert_int_equal(vibe_cpu_open_isa(&f->be, isa, threads, &f->err), VIBE_OK);

    assert_int_equal(vibe_parity_run(f->be, 1, note, f, &f->err), 0);
    assert_int_equal(f->n_failed, 0);
    assert_true(f->n_reported > 200);
}

/* What is rounded to bf16, against bounds of its own. */
static void rounded_amx_is_near_the_reference(void **state)
{
    struct fixture *f = *state;

    if (!vibe_cpu_has(VIBE_CPU_AMX))
        skip();
    assert_int_equal(vibe_cpu_open_isa(&f->be, VIBE_CPU_AMX, 2, &f->err),
                     VIBE_OK);
    f->be->is_exact = 0;

    assert_int_equal(vibe_parity_run(f->be, 1, note, f, &f->err), 0);
    assert_true(f->n_rounded > 8);
}

static void scalar_equals_the_reference(void **state)
{
    run(*state, VIBE_CPU_SCALAR, 1);
}

static void avx2_equals_the_reference(void **state)
{
    run(*state, VIBE_CPU_AVX2, 2);
}

static void avx512_equals_the_reference(void **state)
{
    run(*state, VIBE_CPU_AVX512, 2);
}

static void amx_equals_the_reference(void **state)
{
    run(*state, VIBE_CPU_AMX, 2);
}

/* An op that leaves its output alone: what parity is there to catch. */
static void do_nothing(struct vibe_stream *s, const struct vibe_tensor *y,
                       const struct vibe_tensor *x, const struct vibe_matrix *w,
                       enum vibe_epilogue epilogue,
                       const struct vibe_tensor *gate)
{
    (void)s, (void)y, (void)x, (void)w, (void)epilogue, (void)gate;
}

static void parity_names_the_op_that_differs(void **state)
{
    struct fixture *f = *state;
    /* not exact: only the few cases that may be rounded */
    const struct vibe_backend_options fast = {.threads = 2};
    const struct vibe_ops *sound;
    struct vibe_ops broken;
    size_t n_failed;

    assert_int_equal(vibe_cpu_open(&f->be, &fast, &f->err), VIBE_OK);
    sound = f->be->ops;
    broken = *sound;
    broken.gemm = do_nothing;
    f->be->ops = &broken;
    n_failed = vibe_parity_run(f->be, 1, NULL, NULL, &f->err);
    f->be->ops = sound; /* teardown closes the backend through it */

    assert_true(n_failed > 0);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(scalar_equals_the_reference),
    VIBE_TEST(avx2_equals_the_reference),
    VIBE_TEST(avx512_equals_the_reference),
    VIBE_TEST(amx_equals_the_reference),
    VIBE_TEST(rounded_amx_is_near_the_reference),
    VIBE_TEST(parity_names_the_op_that_differs),
};

VIBE_TEST_MAIN(tests)
