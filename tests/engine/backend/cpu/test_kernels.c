/* What parity leaves open: every code of every dtype, and functions over their
 * whole range.  Each test runs with every set of kernels this CPU has. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/backend/cpu/cpu.h"
#include "engine/backend/ops.h"
#include "engine/format/pack.h"
#include "tests/support/vibe_test.h"

struct fixture {
    struct vibe_backend *be;
    struct vibe_stream s;
    struct vibe_tensor x, y;
};

static int setup(void **state)
{
    static struct fixture f;

    f = (struct fixture){0};
    *state = &f;
    return 0;
}

static void close_cpu(struct fixture *f)
{
    if (!f->be)
        return;
    vibe_tensor_release(&f->x, f->be);
    vibe_tensor_release(&f->y, f->be);
    vibe_stream_release(&f->s);
    vibe_backend_free(f->be);
    f->be = NULL;
}

static int teardown(void **state)
{
    close_cpu(*state);
    return 0;
}

/* Open with x [M][K] of zeros and y [M][N]; false where the CPU has no such
 * kernels. */
static int open_cpu(struct fixture *f, enum vibe_cpu_isa isa, size_t M,
                    size_t N, size_t K)
{
    close_cpu(f);
    if (!vibe_cpu_has(isa))
        return 0;
    assert_int_equal(vibe_cpu_open_isa(&f->be, isa, 2, NULL), VIBE_OK);
    assert_int_equal(vibe_stream_init(&f->s, f->be, NULL), VIBE_OK);
    assert_int_equal(vibe_tensor_init(&f->x, f->be, VIBE_F32, M, 1, K, NULL),
                     VIBE_OK);
    assert_int_equal(vibe_tensor_init(&f->y, f->be, VIBE_F32, M, 1, N, NULL),
                     VIBE_OK);
    return 1;
}

static struct vibe_matrix matrix(const void *data, enum vibe_dtype dtype,
                                 size_t N, size_t K)
{
    return (struct vibe_matrix){
        .N = N,
        .K = K,
        .bytes = N * K * vibe_dtype_size(dtype),
        .n_parts = 1,
        .part = {{.data = data, .dtype = dtype, .n = N}},
    };
}

enum { CODES = 256 };

/* y[m] = column m of W, by x = identity: weights come out as they are stored.
 * bf16 below 2^-126 may become 0, as AMX tiles have no subnormals. */
static void check_codes(struct fixture *f, const void *data,
                        enum vibe_dtype dtype, size_t N)
{
    float *want = malloc(N * CODES * sizeof(*want));
    struct vibe_matrix w = matrix(data, dtype, N, CODES);
    float *x = f->x.data, *y = f->y.data;

    assert_non_null(want);
    vibe_dtype_to_f32(want, data, dtype, N * CODES);
    for (size_t m = 0; m < CODES; m++)
        x[m * CODES + m] = 1.0f;
    for (int is_gemm = 0; is_gemm < 2; is_gemm++) {
        memset(y, 0xFF, CODES * N * sizeof(*y));
        if (is_gemm)
            vibe_gemm(&f->s, &f->y, &f->x, &w, VIBE_STORE, NULL);
        else
            vibe_linear(&f->s, &f->y, &f->x, &w, VIBE_STORE, NULL);
        for (size_t m = 0; m < CODES; m++)
            for (size_t n = 0; n < N; n++)
                if (fabsf(want[n * CODES + m]) >= 0x1p-126f)
                    assert_true(y[m * N + n] == want[n * CODES + m]);
                else
                    assert_true(fabsf(y[m * N + n]) < 0x1p-126f);
    }
    free(want);
}

static void f8_weights_are_widened_exactly(void **state)
{
    struct fixture *f = *state;
    uint8_t codes[CODES];

    for (int i = 0; i < CODES; i++)
        codes[i] = (uint8_t)((i & 0x7F) == 0x7F ? 0 : i);
    for (enum vibe_cpu_isa isa = 0; isa < VIBE_CPU_N_ISA; isa++)
        if (open_cpu(f, isa, CODES, 1, CODES))
            check_codes(f, codes, VIBE_F8_E4M3, 1);
}

static void check_halves(struct fixture *f, enum vibe_dtype dtype,
                         unsigned exponent)
{
    static uint16_t codes[65536];

    for (unsigned i = 0; i < 65536; i++) /* no infinities, no NaN */
        codes[i] = (uint16_t)((i & exponent) == exponent ? 0 : i);
    for (enum vibe_cpu_isa isa = 0; isa < VIBE_CPU_N_ISA; isa++)
        if (open_cpu(f, isa, CODES, 65536 / CODES, CODES))
            check_codes(f, codes, dtype, 65536 / CODES);
}

static void f16_weights_are_widened_exactly(void **state)
{
    check_halves(*state, VIBE_F16, 0x7C00);
}

static void bf16_weights_are_widened_exactly(void **state)
{
    check_halves(*state, VIBE_BF16, 0x7F80);
}

static void nan_weights_stay_nan(void **state)
{
    enum { K = 40, N = 20 };
    struct fixture *f = *state;
    uint8_t codes[N * K] = {0};
    struct vibe_matrix w = matrix(codes, VIBE_F8_E4M3, N, K);

    codes[3 * K + 5] = 0x7F;
    codes[7 * K + K - 1] = 0xFF;
    for (enum vibe_cpu_isa isa = 0; isa < VIBE_CPU_N_ISA; isa++) {
        if (!open_cpu(f, isa, 2, N, K))
            continue;
        for (int is_gemm = 0; is_gemm < 2; is_gemm++) {
            const float *y = f->y.data;

            if (is_gemm)
                vibe_gemm(&f->s, &f->y, &f->x, &w, VIBE_STORE, NULL);
            else
                vibe_linear(&f->s, &f->y, &f->x, &w, VIBE_STORE, NULL);
            for (size_t n = 0; n < 2 * N; n++)
                assert_int_equal(isnan(y[n]) != 0, n % N == 3 || n % N == 7);
        }
    }
}

enum { POINTS = 20001 };

/* From -limit to limit, both ends among them. */
static float point(size_t i, float limit)
{
    return limit * (2.0f * (float)i / (POINTS - 1) - 1.0f);
}

/* 2e-7 near zero, where the fit and exp err; beyond, z times a rounding. */
static void gelu_is_the_exact_one(void **state)
{
    struct fixture *f = *state;
    const float one = 1.0f;
    struct vibe_matrix w = matrix(&one, VIBE_F32, 1, 1);

    for (enum vibe_cpu_isa isa = 0; isa < VIBE_CPU_N_ISA; isa++) {
        if (!open_cpu(f, isa, POINTS, 1, 1))
            continue;
        for (size_t i = 0; i < POINTS; i++)
            ((float *)f->x.data)[i] = point(i, 20.0f);
        vibe_gemm(&f->s, &f->y, &f->x, &w, VIBE_GELU, NULL);
        for (size_t i = 0; i < POINTS; i++) {
            double z = ((float *)f->x.data)[i];
            double want = z / 2 * erfc(-z * M_SQRT1_2);
            double got = ((float *)f->y.data)[i];

            assert_true(fabs(got - want) <= 2e-7 + 0x1p-24 * fabs(want));
        }
    }
}

/* exp is good to 3e-7 of itself and so is silu; e^-88 stands for less. */
static void silu_is_good_to_a_millionth_of_itself(void **state)
{
    struct fixture *f = *state;

    for (enum vibe_cpu_isa isa = 0; isa < VIBE_CPU_N_ISA; isa++) {
        if (!open_cpu(f, isa, 1, POINTS, POINTS))
            continue;
        for (size_t i = 0; i < POINTS; i++)
            ((float *)f->x.data)[i] = point(i, 1000.0f);
        vibe_add_silu(&f->s, &f->y, &f->x, NULL);
        for (size_t i = 0; i < POINTS; i++) {
            double z = ((float *)f->x.data)[i];
            double want = z / (1.0 + exp(-z));
            double got = ((float *)f->y.data)[i];

            assert_true(fabs(got - want) <= 1e-6 * fabs(want) + 1e-34);
        }
    }
}

static void results_do_not_depend_on_threads(void **state)
{
    enum { M = 33, N = 200, K = 300 };
    struct fixture *f = *state;
    static uint16_t weights[N * K];
    static float first[M * N];
    struct vibe_matrix w = matrix(weights, VIBE_BF16, N, K);

    for (size_t i = 0; i < N * K; i++)
        weights[i] = (uint16_t)(0x3E00 + i * 2654435761u % 512);
    for (enum vibe_cpu_isa isa = 0; isa < VIBE_CPU_N_ISA; isa++) {
        for (int threads = 1; threads <= 5; threads += 2) {
            if (!open_cpu(f, isa, M, N, K))
                continue;
            vibe_backend_free(f->be);
            assert_int_equal(vibe_cpu_open_isa(&f->be, isa, threads, NULL),
                             VIBE_OK);
            f->s.be = f->be;
            for (size_t i = 0; i < M * K; i++)
                ((float *)f->x.data)[i] = point(i * 7919 % POINTS, 3.0f);
            vibe_gemm(&f->s, &f->y, &f->x, &w, VIBE_STORE, NULL);
            if (threads == 1)
                memcpy(first, f->y.data, sizeof(first));
            assert_memory_equal(first, f->y.data, sizeof(first));
        }
    }
}

/* A block's worth of rows and some, with escapes and subnormals among them. */
static void fill_bf16(uint16_t *w, size_t n)
{
    for (size_t i = 0; i < n; i++)
        w[i] = (uint16_t)(0x3C00 + i * 2654435761u % 1024 +
                          (i % 97 ? 0 : 0x8000 - (i % 3) * 0x1E00));
}

static void packed_weights_have_the_products_of_bf16(void **state)
{
    enum { M = 70, N = 45, K = 600 };
    struct fixture *f = *state;
    static uint16_t bf16[N * K];
    static uint64_t blocks[3];
    static float want[M * N];
    static char packed[4 * N * K + 65536];
    struct vibe_matrix plain = matrix(bf16, VIBE_BF16, N, K);
    struct vibe_matrix w = matrix(packed, VIBE_BF16_PACKED, N, K);

    fill_bf16(bf16, (size_t)N * K);
    for (size_t i = 0; i < 2; i++) {
        const void *row[VIBE_PACK_BLOCK];
        size_t n = i ? N - VIBE_PACK_BLOCK : VIBE_PACK_BLOCK;

        for (size_t r = 0; r < n; r++)
            row[r] = bf16 + (i * VIBE_PACK_BLOCK + r) * K;
        blocks[i + 1] = blocks[i] + vibe_pack_block_bytes(row, n, K);
        assert_true(blocks[i + 1] <= sizeof(packed));
        vibe_pack_block(packed + blocks[i], row, n, K);
    }
    w.part[0].blocks = blocks;
    for (enum vibe_cpu_isa isa = 0; isa < VIBE_CPU_N_ISA; isa++)
        for (int is_gemm = 0; is_gemm < 2; is_gemm++) {
            void (*op)(struct vibe_stream *, const struct vibe_tensor *,
                       const struct vibe_tensor *, const struct vibe_matrix *,
                       enum vibe_epilogue,
                       const struct vibe_tensor *) = is_gemm ? vibe_gemm
                                                             : vibe_linear;

            if (!open_cpu(f, isa, M, N, K))
                continue;
            for (size_t i = 0; i < (size_t)M * K; i++)
                ((float *)f->x.data)[i] = (float)(i % 13) - 6.0f;
            op(&f->s, &f->y, &f->x, &plain, VIBE_STORE, NULL);
            memcpy(want, f->y.data, sizeof(want));
            op(&f->s, &f->y, &f->x, &w, VIBE_STORE, NULL);
            assert_memory_equal(want, f->y.data, sizeof(want));
        }
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(f8_weights_are_widened_exactly),
    VIBE_TEST(f16_weights_are_widened_exactly),
    VIBE_TEST(bf16_weights_are_widened_exactly),
    VIBE_TEST(nan_weights_stay_nan),
    VIBE_TEST(gelu_is_the_exact_one),
    VIBE_TEST(silu_is_good_to_a_millionth_of_itself),
    VIBE_TEST(results_do_not_depend_on_threads),
    VIBE_TEST(packed_weights_have_the_products_of_bf16),
};

VIBE_TEST_MAIN(tests)
