#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/backend/ops.h"
#include "tests/support/vibe_test.h"

/* A head as Qwen2 has it, with a dialogue of some minutes. */
enum { T = 600, GROUP = 3, HEAD = 128, C = (GROUP + 2) * HEAD, BLOCK = 256 };

struct fixture {
    struct vibe_backend *be;
    struct vibe_stream s;
    struct vibe_tensor qkv, y, memory;
    float bias[HEAD]; /* of all keys, before they are turned */
    float centre[HEAD];
    float inv_freq[HEAD / 2];
    uint64_t random;
};

/* About normal: the sum of four uniform numbers. */
static float normal(struct fixture *f)
{
    float sum = 0.0f;

    for (int i = 0; i < 4; i++) {
        f->random = f->random * 6364136223846793005u + 1442695040888963407u;
        sum += (float)(f->random >> 40) * 0x1p-24f - 0.5f;
    }
    return sum * 1.7f;
}

static int setup(void **state)
{
    const struct vibe_backend_options options = {.threads = 1};
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f || vibe_backend_open(&f->be, &options, NULL) ||
        vibe_stream_init(&f->s, f->be, NULL) ||
        vibe_tensor_init(&f->qkv, f->be, VIBE_F32, 1, T, C, NULL) ||
        vibe_tensor_init(&f->y, f->be, VIBE_F32, 1, T, GROUP * HEAD, NULL) ||
        vibe_tensor_init(&f->memory, f->be, VIBE_F32, 3, 2 * BLOCK, HEAD, NULL))
        return -1;
    f->random = 5;
    for (size_t i = 0; i < HEAD / 2; i++)
        f->inv_freq[i] = powf(1e6f, -2.0f * (float)i / HEAD);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vibe_tensor_release(&f->memory, f->be);
    vibe_tensor_release(&f->y, f->be);
    vibe_tensor_release(&f->qkv, f->be);
    vibe_stream_release(&f->s);
    vibe_backend_free(f->be);
    free(f);
    return 0;
}

/* Rows of random numbers whose keys have the bias in common, in the quarter of
 * the channels that turns slowest. */
static void fill(struct fixture *f, float bias)
{
    for (size_t i = 0; i < HEAD; i++) {
        f->bias[i] = i % (HEAD / 2) >= HEAD * 3 / 8 ? bias * normal(f) : 0.0f;
        f->centre[i] = f->bias[i];
    }
    f->random = 7; /* the same rows whatever the bias */
    for (size_t t = 0; t < T; t++)
        for (size_t c = 0; c < C; c++) {
            float *x = (float *)f->qkv.data + t * C + c;

            *x = normal(f);
            if (c / HEAD == GROUP)
                *x += f->bias[c % HEAD];
        }
}

/* y[T][GROUP * HEAD], owned, of attention with such a cache. */
static float *attend(struct fixture *f, enum vibe_dtype dtype,
                     const float *centre)
{
    const size_t bytes = T * C * sizeof(float);
    const size_t block = BLOCK * HEAD * 2;
    float *data = f->memory.data;
    void *table[] = {data, data + block, data + 2 * block};
    const struct vibe_kv kv = {table, 1, 3, BLOCK, 1, 1, HEAD, dtype};
    const struct vibe_rope rope = {f->inv_freq, centre};
    const int32_t zero = 0;
    const struct vibe_rows rows = {&zero, &zero};
    float *kept = malloc(bytes);
    float *y = malloc(T * GROUP * HEAD * sizeof(*y));

    assert_non_null(kept);
    assert_non_null(y);
    memcpy(kept, f->qkv.data, bytes);
    vibe_attention(&f->s, &f->y, &f->qkv, &kv, 0, &rows, &rope);
    assert_int_equal(vibe_stream_check(&f->s, NULL), VIBE_OK);
    memcpy(f->qkv.data, kept, bytes);
    memcpy(y, f->y.data, T * GROUP * HEAD * sizeof(*y));
    free(kept);
    return y;
}

/* |got - want| / |want|, over everything. */
static double error(float *got, const float *want)
{
    double diff = 0.0, all = 0.0;

    for (size_t i = 0; i < T * GROUP * HEAD; i++) {
        diff += pow((double)got[i] - want[i], 2.0);
        all += pow((double)want[i], 2.0);
    }
    free(got);
    return sqrt(diff / all);
}

/* Codes have three bits after the first: rounding a number costs 2^-4 / sqrt(3)
 * of it at most, in the mean 2.6 %; of a value's weight twice as much, as there
 * are key and value to round. */
static void float8_keeps_attention_to_a_few_percent(void **state)
{
    struct fixture *f = *state;
    float *want;

    fill(f, 0.0f);
    want = attend(f, VIBE_F32, NULL);
    assert_true(error(attend(f, VIBE_BF16, NULL), want) < 0.005);
    assert_true(error(attend(f, VIBE_F8_E4M3, NULL), want) < 0.06);
    free(want);
}

/* What all keys have in common is rounded with them, unless it is taken off
 * first: then nothing changes. */
static void a_common_part_of_the_keys_costs_nothing(void **state)
{
    struct fixture *f = *state;
    double plain, spoilt, centred;
    float *want;

    fill(f, 0.0f);
    want = attend(f, VIBE_F32, NULL);
    plain = error(attend(f, VIBE_F8_E4M3, NULL), want);
    free(want);
    fill(f, 50.0f);
    want = attend(f, VIBE_F32, NULL);
    spoilt = error(attend(f, VIBE_F8_E4M3, NULL), want);
    centred = error(attend(f, VIBE_F8_E4M3, f->centre), want);
    free(want);

    assert_true(spoilt > 5 * plain);
    /* it does turn a little, and so leaves some of itself */
    assert_true(centred < 1.2 * plain);
}

/* The common part changes no weight, so without rounding nothing changes. */
static void the_centre_is_of_float8_alone(void **state)
{
    struct fixture *f = *state;
    float *want;

    fill(f, 2.0f);
    want = attend(f, VIBE_F32, NULL);
    assert_true(error(attend(f, VIBE_F32, f->centre), want) == 0.0);
    free(want);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(float8_keeps_attention_to_a_few_percent),
    VIBE_TEST(a_common_part_of_the_keys_costs_nothing),
    VIBE_TEST(the_centre_is_of_float8_alone),
};

VIBE_TEST_MAIN(tests)
