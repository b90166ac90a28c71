#include "engine/format/recode.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/format/pack.h"
#include "engine/format/quant.h"
#include "engine/format/weights.h"
#include "tests/support/vibe_test.h"

enum { ROWS = 65, COLUMNS = 192, THREADS = 3 };

struct fixture {
    float wide[ROWS * COLUMNS];
    uint16_t bf16[ROWS * COLUMNS];
    struct vibe_weight w;
    struct vibe_recoded got;
    struct vibe_recode_error e;
};

/* Weights of one sign and the other, of very different sizes by row. */
static int setup(void **state)
{
    static struct fixture f;

    memset(&f, 0, sizeof(f));
    for (size_t i = 0; i < (size_t)ROWS * COLUMNS; i++) {
        float v = (float)((int)(i * 2654435761u % 2001) - 1000) *
                  (i / COLUMNS % 7 ? 1e-4f : 3.0f);
        uint32_t bits;

        memcpy(&bits, &v, sizeof(bits));
        f.bf16[i] = (uint16_t)(bits >> 16);
        vibe_dtype_to_f32(&f.wide[i], &f.bf16[i], VIBE_BF16, 1);
    }
    f.w = (struct vibe_weight){
        .data = f.bf16,
        .dtype = VIBE_BF16,
        .n_dims = 2,
        .shape = {ROWS, COLUMNS},
        .n = (size_t)ROWS * COLUMNS,
        .name = "w",
        .file = "f",
    };
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vibe_recoded_release(&f->got);
    return 0;
}

static void recode(struct fixture *f, enum vibe_dtype to)
{
    vibe_recoded_release(&f->got);
    assert_int_equal(
        vibe_recode(&f->got, &f->w, to, VIBE_QUANT_GROUP, THREADS, NULL),
        VIBE_OK);
    assert_int_equal(f->got.dtype, to);
}

/* The recoded matrix as what the next one is made of. */
static void take_recoded(struct fixture *f, struct vibe_recoded *r)
{
    *r = f->got;
    f->got = (struct vibe_recoded){0};
    f->w.data = r->blocks ? (const char *)r->data + r->blocks[0]
                          : (const char *)r->data;
    f->w.dtype = r->dtype;
    f->w.scale = r->scale;
    f->w.n_scales = r->scale ? ROWS : 0;
    f->w.group = r->group;
    f->w.group_scale = r->group_scale;
    f->w.blocks = r->blocks;
}

/* The nearest bf16 of what is finite, ties to even. */
static uint16_t nearest(float f)
{
    uint32_t bits;

    memcpy(&bits, &f, sizeof(bits));
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

static void rows_are_quantised_as_by_themselves(void **state)
{
    static const enum vibe_dtype dtypes[] = {VIBE_F8_E4M3, VIBE_I8, VIBE_I4};
    struct fixture *f = *state;
    char codes[ROWS * COLUMNS];
    float scale[ROWS * COLUMNS / 64];

    for (size_t d = 0; d < 3; d++) {
        size_t group = dtypes[d] == VIBE_I4 ? 64 : 0;
        size_t n_scales = ROWS * vibe_quant_row_scales(group, COLUMNS);

        recode(f, dtypes[d]);
        vibe_quant_rows(codes, scale, dtypes[d], group, f->wide, ROWS, COLUMNS);
        assert_memory_equal(f->got.data, codes, f->got.bytes);
        assert_memory_equal(group ? f->got.group_scale : f->got.scale, scale,
                            n_scales * sizeof(*scale));
    }
}

static void pack_and_unpack(struct fixture *f)
{
    struct vibe_recoded packed;

    recode(f, VIBE_BF16_PACKED);
    assert_int_equal(
        vibe_pack_check(f->got.data, f->got.bytes, ROWS, COLUMNS, "w", NULL),
        VIBE_OK);
    take_recoded(f, &packed);
    recode(f, VIBE_BF16);
    assert_memory_equal(f->got.data, f->bf16, sizeof(f->bf16));
    vibe_recoded_release(&packed);
}

static void packed_and_back_is_the_same(void **state)
{
    pack_and_unpack(*state);
}

/* Denormals, infinities and NaN of both kinds among them. */
static void packed_and_back_keeps_whatever_bits(void **state)
{
    struct fixture *f = *state;

    for (size_t i = 0; i < (size_t)ROWS * COLUMNS; i++)
        f->bf16[i] = (uint16_t)(i * 40503u);
    f->bf16[0] = 0x7F81; /* a NaN that signals */
    pack_and_unpack(f);
}

static void quantised_weights_can_be_recoded(void **state)
{
    struct fixture *f = *state;
    struct vibe_recoded four;

    recode(f, VIBE_I4);
    take_recoded(f, &four);
    recode(f, VIBE_BF16);
    assert_int_equal(vibe_recode_measure(&f->e, &f->w, &f->got, THREADS, NULL),
                     VIBE_OK);
    assert_true(f->e.noise == 0.0); /* bf16 holds them, see quant.h */
    vibe_recoded_release(&four);
}

/* Rows of what has scales are widened a few at a time: each needs its own. */
static void what_is_recoded_has_the_values_of_all_its_rows(void **state)
{
    static const enum vibe_dtype dtypes[] = {VIBE_F8_E4M3, VIBE_I8, VIBE_I4};
    struct fixture *f = *state;
    float want[ROWS * COLUMNS];

    for (size_t d = 0; d < 3; d++) {
        const struct vibe_weight plain = f->w;
        struct vibe_recoded first;

        recode(f, dtypes[d]);
        take_recoded(f, &first);
        vibe_quant_widen(want, first.data,
                         first.group ? first.group_scale : first.scale,
                         dtypes[d], first.group, ROWS, COLUMNS);
        recode(f, VIBE_BF16);
        for (size_t i = 0; i < (size_t)ROWS * COLUMNS; i++)
            assert_int_equal(((uint16_t *)f->got.data)[i], nearest(want[i]));
        vibe_recoded_release(&first);
        f->w = plain;
    }
}

static void one_scale_is_for_every_row(void **state)
{
    static const float half = 0.5f;
    struct fixture *f = *state;

    f->w.scale = &half;
    f->w.n_scales = 1;
    recode(f, VIBE_BF16);
    for (size_t i = 0; i < (size_t)ROWS * COLUMNS; i++)
        assert_int_equal(((uint16_t *)f->got.data)[i],
                         nearest(f->wide[i] * half));
}

static void floats_become_the_nearest_bf16(void **state)
{
    static const struct {
        uint32_t bits;
        uint16_t half;
    } cases[] = {
        {0x3F800000, 0x3F80}, {0x3F807FFF, 0x3F80}, {0x3F808000, 0x3F80},
        {0x3F808001, 0x3F81}, {0x3F818000, 0x3F82}, {0xBF818000, 0xBF82},
        {0x7F7FFFFF, 0x7F80}, {0x7F800000, 0x7F80}, {0xFF800000, 0xFF80},
        {0x7F800001, 0x7FC0}, {0x7FC10000, 0x7FC1}, {0x00008001, 0x0001},
    };
    enum { N = sizeof(cases) / sizeof(*cases) };
    struct fixture *f = *state;

    for (size_t i = 0; i < N; i++)
        memcpy(&f->wide[i], &cases[i].bits, sizeof(f->wide[i]));
    f->w.data = f->wide;
    f->w.dtype = VIBE_F32;
    recode(f, VIBE_BF16);
    for (size_t i = 0; i < N; i++)
        assert_int_equal(((uint16_t *)f->got.data)[i], cases[i].half);
}

static void measure_tells_signal_from_noise(void **state)
{
    struct fixture *f = *state;
    double signal = 0.0;

    for (size_t i = 0; i < (size_t)ROWS * COLUMNS; i++)
        signal += (double)f->wide[i] * f->wide[i];
    recode(f, VIBE_BF16_PACKED);
    assert_int_equal(vibe_recode_measure(&f->e, &f->w, &f->got, THREADS, NULL),
                     VIBE_OK);
    assert_true(f->e.noise == 0.0);
    assert_true(fabs(f->e.signal - signal) <= signal * 1e-12);
    recode(f, VIBE_I8);
    assert_int_equal(vibe_recode_measure(&f->e, &f->w, &f->got, THREADS, NULL),
                     VIBE_OK);
    /* uniform weights: half a step of 127 in each direction, 48 dB */
    assert_true(f->e.noise > f->e.signal * 1e-6);
    assert_true(f->e.noise < f->e.signal * 1e-4);
}

static void int4_falls_back_where_groups_do_not_fit(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(vibe_recode_dtype(&f->w, VIBE_WEIGHTS_I4), VIBE_I4);
    f->w.shape[1] = 100;
    f->w.n = (size_t)ROWS * 100;
    assert_int_equal(vibe_recode_dtype(&f->w, VIBE_WEIGHTS_I4), VIBE_I8);
    assert_int_equal(vibe_recode_dtype(&f->w, VIBE_WEIGHTS_AUTO), VIBE_BF16);
}

static void what_has_no_code_is_refused_by_name(void **state)
{
    static const enum vibe_dtype dtypes[] = {VIBE_F8_E4M3, VIBE_I8, VIBE_I4};
    static const uint16_t wild[] = {0x7FC0, 0xFF80}; /* NaN, -infinity */
    struct fixture *f = *state;

    for (size_t i = 0; i < 6; i++) { /* in the last row of the first task */
        uint16_t *at = &f->bf16[VIBE_PACK_BLOCK * COLUMNS - 1 - i];
        struct vibe_error err = {0};

        *at = wild[i % 2];
        vibe_recoded_release(&f->got);
        assert_int_equal(vibe_recode(&f->got, &f->w, dtypes[i / 2],
                                     VIBE_QUANT_GROUP, THREADS, &err),
                         VIBE_E_FORMAT);
        assert_non_null(strstr(err.msg, "f: tensor w holds NaN or infinity"));
        *at = 0;
    }
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(rows_are_quantised_as_by_themselves),
    VIBE_TEST(packed_and_back_is_the_same),
    VIBE_TEST(packed_and_back_keeps_whatever_bits),
    VIBE_TEST(quantised_weights_can_be_recoded),
    VIBE_TEST(what_is_recoded_has_the_values_of_all_its_rows),
    VIBE_TEST(one_scale_is_for_every_row),
    VIBE_TEST(floats_become_the_nearest_bf16),
    VIBE_TEST(measure_tells_signal_from_noise),
    VIBE_TEST(int4_falls_back_where_groups_do_not_fit),
    VIBE_TEST(what_has_no_code_is_refused_by_name),
};

VIBE_TEST_MAIN(tests)
