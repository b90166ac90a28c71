#include <stdlib.h>
#include <string.h>

#include "engine/backend/ops.h"
#include "engine/engine.h"
#include "tests/support/vibe_test.h"

/*
 * Calls of the allocator while a frame runs.  The program's own definitions
 * are used by all its libraries; a sanitizer has its own already.
 */
static volatile int is_counting; /* the compiler knows malloc, and not ours */
static volatile size_t n_calls;

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && \
    !defined(__clang__) && defined(__GLIBC__)
enum { COUNTS = 1 };

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static void count(void)
{
    n_calls += is_counting != 0;
}

void *malloc(size_t size)
{
    count();
    return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    count();
    return __libc_calloc(n, size);
}

void *realloc(void *old, size_t size)
{
    count();
    return __libc_realloc(old, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    count();
    return __libc_memalign(alignment, size);
}
#else
enum { COUNTS = 0 };
#endif

struct fixture {
    struct vibe_engine *engine;
    struct vibe_ops ops; /* the backend's, with our graph_run */
    const struct vibe_ops *own;
};

/* The CPU runs the body as it is; here its calls are counted. */
static void counting_graph_run(struct vibe_stream *s, struct vibe_graph **graph,
                               void (*body)(void *user), void *user)
{
    (void)s, (void)graph;
    is_counting = 1;
    body(user);
    is_counting = 0;
}

static size_t n_rests;

static void counting_rest(struct vibe_backend *be)
{
    assert_int_equal(be->is_reading, 0);
    n_rests++;
}

static int setup(void **state)
{
    const struct vibe_engine_options options = {
        .model = "tests/golden/tiny_tied",
        .device = VIBE_DEVICE_CPU,
        .threads = 1, /* a team of threads is made when it is first needed */
    };
    struct fixture *f = calloc(1, sizeof(*f));
    struct vibe_error err = {0};

    if (!f || vibe_engine_open(&f->engine, &options, &err))
        return -1;
    *state = f;
    f->own = f->engine->backend->ops;
    f->ops = *f->own;
    f->ops.graph_run = counting_graph_run;
    f->ops.rest = counting_rest;
    f->engine->backend->ops = &f->ops;
    n_calls = 0;
    n_rests = 0;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    f->engine->backend->ops = f->own;
    vibe_engine_free(f->engine);
    free(f);
    return 0;
}

/* Begin a dialogue of one token and make n frames of it. */
static void make_frames(struct fixture *f, size_t n)
{
    struct vibe_generator *g = f->engine->generator;
    const size_t H = f->engine->config.lm.hidden_size;
    float *embed = calloc(H, sizeof(*embed));
    const struct vibe_opening opening = {
        .embeds = embed, .T = 1, .cfg_scale = 1.3f};

    assert_non_null(embed);
    assert_int_equal(vibe_generator_prepare(g, 3, NULL), VIBE_OK);
    assert_int_equal(vibe_generator_start(g, &opening, NULL), VIBE_OK);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(vibe_generator_step(g, NULL, NULL), VIBE_OK);
        vibe_generator_commit(g, 0, VIBE_CONTROL_DIFFUSION);
    }
    free(embed);
}

/* Beside this one, DEBUG=1 builds assert that neither backend allocates device
 * memory nor is waited for: see vibe_backend_seal. */
static void a_warm_frame_allocates_nothing(void **state)
{
    struct fixture *f = *state;
    void *volatile block; /* or it would not be allocated at all */

    if (!COUNTS)
        skip();
    is_counting = 1;
    block = malloc(1);
    is_counting = 0;
    free(block);
    assert_int_equal(n_calls, 1); /* it does count */

    make_frames(f, 4);

    assert_int_equal(n_calls, 1);
}

/* What prompts of two dialogues are computed in is there only while they are
 * read, and their samples are those of prompts that always have it. */
static void a_prompt_that_lends_its_memory_speaks_alike(void **state)
{
    struct fixture *f = *state;
    struct vibe_generator *g = f->engine->generator;
    const size_t n = f->engine->config.hop;
    float *kept = calloc(n, sizeof(*kept));

    assert_non_null(kept);
    make_frames(f, 3);
    memcpy(kept, g->host_pcm, n * sizeof(*kept));
    vibe_generator_lend(g);
    assert_int_equal(n_rests, 1);
    for (size_t i = 2; i <= 3; i++) {
        vibe_generator_end(g, 0);
        vibe_generator_rest(g);
        make_frames(f, 3);
        assert_memory_equal(kept, g->host_pcm, n * sizeof(*kept));
        assert_int_equal(n_rests, i);
    }
    free(kept);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(a_prompt_that_lends_its_memory_speaks_alike),
    VIBE_TEST(a_warm_frame_allocates_nothing),
};

VIBE_TEST_MAIN(tests)
