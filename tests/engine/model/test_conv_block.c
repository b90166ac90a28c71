#include "engine/model/conv_block.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/backend/ops.h"
#include "tests/support/vibe_test.h"

enum { MAX_FLOATS = 4096 };

/* What is compared sums at most 40 products of numbers below 1 in another
 * order: 40 * 2^-24 of rounding, times a few. */
static const float TOLERANCE = 1e-5f;

struct fixture {
    struct vibe_backend *be;
    struct vibe_stream stream;
    struct vibe_conv conv;
    struct vibe_conv_scratch scratch;
    struct vibe_tensor window, state, past;
    float w[MAX_FLOATS]; /* as a file has it */
    float bias[8];
    float x[MAX_FLOATS], y[MAX_FLOATS];
};

static int setup(void **state)
{
    const struct vibe_backend_options options = {.threads = 1};
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f || vibe_backend_open(&f->be, &options, NULL) ||
        vibe_stream_init(&f->stream, f->be, NULL) ||
        vibe_tensor_init(&f->window, f->be, VIBE_F32, 1, 1, MAX_FLOATS, NULL))
        return -1;
    f->scratch.window = f->window.data;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vibe_matrix_release(&f->conv.w, f->be);
    vibe_tensor_release(&f->past, f->be);
    vibe_tensor_release(&f->state, f->be);
    vibe_tensor_release(&f->window, f->be);
    vibe_stream_release(&f->stream);
    vibe_backend_free(f->be);
    free(f);
    return 0;
}

/* Numbers in (-1, 1) that look random and are always the same. */
static void fill(float *out, size_t n, uint32_t seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        out[i] = (float)(seed >> 8) / (float)(1 << 23) - 1.0f;
    }
}

/* A layer with made-up weights and a silent past. */
static void make(struct fixture *f, size_t in, size_t out, size_t taps,
                 size_t stride, int is_transposed)
{
    size_t N = is_transposed ? out * stride : out;
    size_t K = is_transposed ? in * 2 : in * taps;
    struct vibe_matrix_source src = {
        .n_parts = 1,
        .layout = is_transposed ? VIBE_LAYOUT_CONV_TRANSPOSE : VIBE_LAYOUT_CONV,
        .N = N,
        .K = K,
        .in = in,
        .out = is_transposed ? out : 0,
        .bias = f->bias,
    };

    assert_true(N * K <= MAX_FLOATS && out <= 8);
    fill(f->w, N * K, 1);
    fill(f->bias, out, 2);
    fill(f->x, MAX_FLOATS, 3);
    src.part[0] = (struct vibe_matrix_part){
        .data = f->w, .dtype = VIBE_F32, .n = N};
    f->conv = (struct vibe_conv){
        .in = in,
        .out = out,
        .taps = taps,
        .stride = stride,
        .is_transposed = is_transposed,
        .past = is_transposed ? 1 : taps - stride,
    };
    assert_int_equal(vibe_matrix_load(&f->conv.w, f->be, &src, NULL), VIBE_OK);
    assert_int_equal(vibe_tensor_init(&f->state, f->be, VIBE_F32, 1, 1,
                                      f->conv.past * in + 1, NULL),
                     VIBE_OK);
    assert_int_equal(vibe_tensor_init(&f->past, f->be, VIBE_F32, 1, 1,
                                      f->conv.past * in + 1, NULL),
                     VIBE_OK);
}

/* Run T columns of x from `first`, appending to y at column y_at. */
static size_t run(struct fixture *f, size_t first, size_t T, size_t y_at)
{
    size_t n = vibe_conv_length(&f->conv, T);
    struct vibe_tensor x = vibe_dense(f->x + first * f->conv.in, 1, T,
                                      f->conv.in);
    struct vibe_tensor y = vibe_dense(f->y + y_at * f->conv.out, 1, n,
                                      f->conv.out);
    const struct vibe_conv_memory memory = {.now = f->state, .past = f->past};

    vibe_copy(&f->stream, &f->past, &f->state);
    vibe_conv_forward(&f->conv, &f->stream, &y, &x, &memory, &f->scratch);
    assert_int_equal(vibe_stream_check(&f->stream, NULL), VIBE_OK);
    return y_at + n;
}

static float input(const struct fixture *f, long t, size_t T, size_t i)
{
    if (t < 0 || t >= (long)T)
        return 0.0f;
    return f->x[(size_t)t * f->conv.in + i];
}

/* y[o, t] = b[o] + sum W[o, i, j] x[i, t s + j - (k - s)], zeros outside. */
static double expected(const struct fixture *f, size_t t, size_t o, size_t T)
{
    const struct vibe_conv *c = &f->conv;
    double sum = (double)f->bias[o];

    for (size_t i = 0; i < c->in; i++)
        for (size_t j = 0; j < c->taps; j++) {
            long at = (long)(t * c->stride + j) - (long)(c->taps - c->stride);

            sum += (double)f->w[(o * c->in + i) * c->taps + j] *
                   (double)input(f, at, T, i);
        }
    return sum;
}

/* y[o, t] = b[o] + sum_i W[i, o, r] x[i, n] + W[i, o, r + s] x[i, n - 1],
 * n = t / s, r = t % s. */
static double expected_transposed(const struct fixture *f, size_t t, size_t o,
                                  size_t T)
{
    const struct vibe_conv *c = &f->conv;
    long n = (long)(t / c->stride);
    double sum = (double)f->bias[o];

    for (size_t i = 0; i < c->in; i++) {
        const float *w = f->w + (i * c->out + o) * c->taps + t % c->stride;

        sum += (double)w[0] * (double)input(f, n, T, i) +
               (double)w[c->stride] * (double)input(f, n - 1, T, i);
    }
    return sum;
}

static void assert_output(const struct fixture *f, size_t T)
{
    size_t n = vibe_conv_length(&f->conv, T);

    for (size_t t = 0; t < n; t++)
        for (size_t o = 0; o < f->conv.out; o++) {
            double want = f->conv.is_transposed
                              ? expected_transposed(f, t, o, T)
                              : expected(f, t, o, T);

            assert_float_equal(f->y[t * f->conv.out + o], (float)want,
                               TOLERANCE);
        }
}

static void a_strided_convolution_is_causal(void **state)
{
    struct fixture *f = *state;

    make(f, 3, 5, 8, 4, 0);
    assert_int_equal(run(f, 0, 24, 0), 6);

    assert_output(f, 24);
}

/* ceil(T / s) columns, as if zeros followed. */
static void a_part_of_a_stride_is_completed_by_zeros(void **state)
{
    struct fixture *f = *state;

    make(f, 3, 5, 10, 5, 0);
    assert_int_equal(run(f, 0, 11, 0), 3);

    assert_output(f, 11);
}

static void a_stem_convolution_is_causal(void **state)
{
    struct fixture *f = *state;

    make(f, 2, 4, 7, 1, 0);
    run(f, 0, 9, 0);

    assert_output(f, 9);
}

static void a_transposed_convolution_is_causal(void **state)
{
    struct fixture *f = *state;

    make(f, 4, 3, 10, 5, 1);
    assert_int_equal(run(f, 0, 6, 0), 30);

    assert_output(f, 6);
}

/* Chunks of 1 (vibe_linear) and of several columns (vibe_gemm) mix. */
static void chunks_of_a_transposed_convolution_equal_the_whole(void **state)
{
    struct fixture *f = *state;
    size_t at = 0;

    make(f, 4, 3, 8, 4, 1);
    at = run(f, 0, 1, at);
    at = run(f, 1, 3, at);
    at = run(f, 4, 1, at);
    run(f, 5, 2, at);

    assert_output(f, 7);
}

static void chunks_of_a_convolution_equal_the_whole(void **state)
{
    struct fixture *f = *state;
    size_t at = 0;

    make(f, 3, 5, 4, 2, 0);
    at = run(f, 0, 2, at);
    at = run(f, 2, 8, at);
    at = run(f, 10, 2, at);
    run(f, 12, 3, at);

    assert_output(f, 15);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(a_strided_convolution_is_causal),
    VIBE_TEST(a_part_of_a_stride_is_completed_by_zeros),
    VIBE_TEST(a_stem_convolution_is_causal),
    VIBE_TEST(a_transposed_convolution_is_causal),
    VIBE_TEST(chunks_of_a_transposed_convolution_equal_the_whole),
    VIBE_TEST(chunks_of_a_convolution_equal_the_whole),
};

VIBE_TEST_MAIN(tests)
