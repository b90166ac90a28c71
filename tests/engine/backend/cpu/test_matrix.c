/* The layouts of the file against the definitions of the convolutions.  All
 * numbers are small integers, so every sum is exact. */
#include <string.h>

#include "engine/backend/cpu/cpu.h"
#include "engine/backend/ops.h"
#include "tests/support/vibe_test.h"

enum { IN = 3, OUT = 5, T = 6, STRIDE = 2, MOST = 256 };

struct fixture {
    struct vibe_backend *be;
    struct vibe_stream s;
    struct vibe_tensor x, y;
    struct vibe_matrix w;
    uint16_t weights[MOST]; /* bf16, as in the file */
    float wide[MOST];       /* the same */
    float bias[MOST];
};

static int setup(void **state)
{
    static struct fixture f;

    memset(&f, 0, sizeof(f));
    *state = &f;
    if (vibe_cpu_open_isa(&f.be, VIBE_CPU_SCALAR, 1, NULL) ||
        vibe_stream_init(&f.s, f.be, NULL))
        return -1;
    for (int i = 0; i < MOST; i++) {
        uint32_t bits;

        f.wide[i] = (float)(i * 7 % 31 - 15);
        f.bias[i] = (float)(i % 5);
        memcpy(&bits, &f.wide[i], sizeof(bits));
        f.weights[i] = (uint16_t)(bits >> 16);
    }
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vibe_matrix_release(&f->w, f->be);
    vibe_tensor_release(&f->x, f->be);
    vibe_tensor_release(&f->y, f->be);
    vibe_stream_release(&f->s);
    vibe_backend_free(f->be);
    return 0;
}

/* x[rows][IN] of small integers and y[n][N]. */
static void make_tensors(struct fixture *f, size_t rows, size_t n, size_t N)
{
    float *x;

    assert_int_equal(
        vibe_tensor_init(&f->x, f->be, VIBE_F32, 1, rows, IN, NULL), VIBE_OK);
    assert_int_equal(vibe_tensor_init(&f->y, f->be, VIBE_F32, 1, n, N, NULL),
                     VIBE_OK);
    x = f->x.data;
    for (size_t i = 0; i < rows * IN; i++)
        x[i] = (float)(int)(i * 5 % 13) - 6.0f;
}

/* y = W x for windows of taps rows of x, step rows apart. */
static void slide(struct fixture *f, size_t taps, size_t step)
{
    struct vibe_tensor windows = f->x;

    windows.T = f->y.T;
    windows.C = taps * IN;
    windows.stride_t = step * IN;
    vibe_gemm(&f->s, &f->y, &windows, &f->w, VIBE_STORE, NULL);
    assert_int_equal(vibe_stream_check(&f->s, NULL), VIBE_OK);
}

static void convolution_reads_out_in_taps(void **state)
{
    enum { TAPS = 4 };
    struct fixture *f = *state;
    struct vibe_matrix_source src = {
        .part = {{.data = f->weights, .dtype = VIBE_BF16, .n = OUT}},
        .n_parts = 1,
        .layout = VIBE_LAYOUT_CONV,
        .N = OUT,
        .K = TAPS * IN,
        .in = IN,
        .bias = f->bias,
    };
    const float *x, *y;

    make_tensors(f, T * STRIDE + TAPS - STRIDE, T, OUT);
    assert_int_equal(vibe_matrix_load(&f->w, f->be, &src, NULL), VIBE_OK);
    slide(f, TAPS, STRIDE);

    x = f->x.data;
    y = f->y.data;
    for (size_t t = 0; t < T; t++)
        for (size_t o = 0; o < OUT; o++) {
            float want = f->bias[o];

            for (size_t i = 0; i < IN; i++)
                for (size_t j = 0; j < TAPS; j++)
                    want += f->wide[(o * IN + i) * TAPS + j] *
                            x[(t * STRIDE + j) * IN + i];
            assert_float_equal(y[t * OUT + o], want, 0.0f);
        }
}

/* y[n s + r][o] = b[o] + sum_i W[i][o][r] x[n][i] + W[i][o][r + s] x[n - 1][i],
 * where row 0 of x here is the column before the first. */
static void transposed_convolution_reads_in_out_taps(void **state)
{
    struct fixture *f = *state;
    struct vibe_matrix_source src = {
        .part = {{.data = f->weights, .dtype = VIBE_BF16, .n = STRIDE * OUT}},
        .n_parts = 1,
        .layout = VIBE_LAYOUT_CONV_TRANSPOSE,
        .N = STRIDE * OUT,
        .K = 2 * IN,
        .in = IN,
        .out = OUT,
        .bias = f->bias,
    };
    const float *x, *y;

    make_tensors(f, 1 + T, T, STRIDE * OUT);
    assert_int_equal(vibe_matrix_load(&f->w, f->be, &src, NULL), VIBE_OK);
    slide(f, 2, 1);

    x = f->x.data;
    y = f->y.data;
    for (size_t n = 0; n < T; n++)
        for (size_t r = 0; r < STRIDE; r++)
            for (size_t o = 0; o < OUT; o++) {
                float want = f->bias[o];

                for (size_t i = 0; i < IN; i++) {
                    const float *w = f->wide + (i * OUT + o) * 2 * STRIDE;

                    want += w[r] * x[(n + 1) * IN + i];
                    want += w[r + STRIDE] * x[n * IN + i];
                }
                assert_float_equal(y[(n * STRIDE + r) * OUT + o], want, 0.0f);
            }
}

static void scales_follow_the_rows_of_each_part(void **state)
{
    enum { N = 4 };
    struct fixture *f = *state;
    const float whole = 4.0f, rows[] = {2.0f, 8.0f};
    struct vibe_matrix_source src = {
        .part = {{.data = f->weights,
                  .dtype = VIBE_BF16,
                  .n = 1,
                  .scale = &whole,
                  .n_scales = 1},
                 {.data = f->weights + IN, .dtype = VIBE_BF16, .n = 1},
                 {.data = f->weights + 2 * IN,
                  .dtype = VIBE_BF16,
                  .n = 2,
                  .scale = rows,
                  .n_scales = 2}},
        .n_parts = 3,
        .N = N,
        .K = IN,
    };
    const float scale[N] = {4.0f, 1.0f, 2.0f, 8.0f};
    const float *x, *y;

    make_tensors(f, 1, 1, N);
    assert_int_equal(vibe_matrix_load(&f->w, f->be, &src, NULL), VIBE_OK);
    slide(f, 1, 1);

    x = f->x.data;
    y = f->y.data;
    for (size_t n = 0; n < N; n++) {
        float sum = 0.0f;

        for (size_t k = 0; k < IN; k++)
            sum += f->wide[n * IN + k] * x[k];
        assert_float_equal(y[n], scale[n] * sum, 0.0f);
    }
}

static void some_rows_are_a_matrix_of_their_own(void **state)
{
    enum { K = 3, A = 64, B = 96, N = A + B };
    static uint16_t weights[N * K];
    static float bias[N], scales[B];
    const struct vibe_matrix_source src = {
        .part = {{.data = weights, .dtype = VIBE_BF16, .n = A},
                 {.data = weights + A * K,
                  .dtype = VIBE_BF16,
                  .n = B,
                  .scale = scales,
                  .n_scales = B}},
        .n_parts = 2,
        .N = N,
        .K = K,
        .bias = bias,
    };
    const struct vibe_matrix_source last = vibe_matrix_source_rows(&src, 128,
                                                                   N - 128);
    const struct vibe_matrix_source most = vibe_matrix_source_rows(&src, 0,
                                                                   128);

    (void)state;
    assert_int_equal(last.n_parts, 1);
    assert_int_equal(last.part[0].n, N - 128);
    assert_ptr_equal(last.part[0].data, weights + (size_t)128 * K);
    assert_ptr_equal(last.part[0].scale, scales + 64);
    assert_int_equal(last.part[0].n_scales, N - 128);
    assert_ptr_equal(last.bias, bias + 128);
    assert_int_equal(most.n_parts, 2);
    assert_int_equal(most.part[0].n, A);
    assert_int_equal(most.part[1].n, 64);
    assert_ptr_equal(most.part[1].data, weights + (size_t)A * K);
}

static void some_rows_of_a_pair_have_both_halves(void **state)
{
    enum { K = 3, A = 96, N = 2 * A };
    static uint16_t weights[N * K];
    const struct vibe_matrix_source src = {
        .part = {{.data = weights, .dtype = VIBE_BF16, .n = A},
                 {.data = weights + A * K, .dtype = VIBE_BF16, .n = A}},
        .n_parts = 2,
        .N = N,
        .K = K,
        .is_pair = 1,
    };
    const struct vibe_matrix_source rows = vibe_matrix_source_rows(&src, 128,
                                                                   64);

    (void)state;
    assert_int_equal(rows.n_parts, 2);
    assert_int_equal(rows.part[0].n, 32);
    assert_int_equal(rows.part[1].n, 32);
    assert_ptr_equal(rows.part[0].data, weights + (size_t)64 * K);
    assert_ptr_equal(rows.part[1].data, weights + (size_t)(A + 64) * K);
}

static void linear_weights_stay_where_they_are(void **state)
{
    struct fixture *f = *state;
    struct vibe_matrix_source src = {
        .part = {{.data = f->weights, .dtype = VIBE_BF16, .n = OUT}},
        .n_parts = 1,
        .N = OUT,
        .K = IN,
    };

    assert_int_equal(vibe_matrix_load(&f->w, f->be, &src, NULL), VIBE_OK);
    assert_ptr_equal(f->w.part[0].data, f->weights);
    assert_int_equal(f->w.bytes, OUT * IN * sizeof(uint16_t));
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(convolution_reads_out_in_taps),
    VIBE_TEST(transposed_convolution_reads_in_out_taps),
    VIBE_TEST(scales_follow_the_rows_of_each_part),
    VIBE_TEST(some_rows_are_a_matrix_of_their_own),
    VIBE_TEST(some_rows_of_a_pair_have_both_halves),
    VIBE_TEST(linear_weights_stay_where_they_are),
};

VIBE_TEST_MAIN(tests)
