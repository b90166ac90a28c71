/* Running parity cases: inputs made twice, outputs compared. */
#include "engine/backend/parity.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/backend/cpu/cpu.h"
#include "engine/backend/parity_lab.h"
#include "engine/base/worst.h"
#include "engine/format/pack.h"
#include "engine/format/quant.h"

/* splitmix64 (Steele et al., 2014) */
static uint64_t next_random(struct vibe_lab *lab)
{
    uint64_t z = lab->random += 0x9E3779B97F4A7C15u;

    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

float vibe_lab_uniform(struct vibe_lab *lab)
{
    return (float)(next_random(lab) >> 40) * 0x1p-23f - 1.0f;
}

size_t vibe_lab_below(struct vibe_lab *lab, size_t n)
{
    return next_random(lab) % n;
}

/* [n] floats of a fill, or NULL with the lab's error set; free it. */
static float *host_floats(struct vibe_lab *lab, enum vibe_fill fill, size_t n)
{
    float *host = calloc(n ? n : 1, sizeof(*host));
    float size = 1.0f;

    if (!host) {
        vibe_fail(&lab->err, VIBE_E_NOMEM, "no memory for parity inputs");
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        if (fill == VIBE_FILL_UNEVEN && i % 64 == 0)
            size = 1.0f / (float)(1 << vibe_lab_below(lab, 8));
        host[i] = fill == VIBE_FILL_POISON ? NAN : size * vibe_lab_uniform(lab);
    }
    return host;
}

void vibe_lab_tensor(struct vibe_lab *lab, struct vibe_tensor t[VIBE_SIDES],
                     enum vibe_fill fill, size_t B, size_t T, size_t C)
{
    float *host = host_floats(lab, fill, B * T * C);

    assert(lab->n_tensors < VIBE_LAB_TENSORS);
    for (int side = 0; side < VIBE_SIDES; side++) {
        if (lab->err.code || vibe_tensor_init(&t[side], lab->be[side], VIBE_F32,
                                              B, T, C, &lab->err))
            continue;
        vibe_write(&lab->s[side], t[side].data, host,
                   B * T * C * sizeof(*host));
        lab->tensors[lab->n_tensors][side] = t[side];
    }
    lab->n_tensors++;
    free(host);
}

void vibe_lab_buffer(struct vibe_lab *lab, void *both[VIBE_SIDES],
                     const void *host, size_t bytes)
{
    assert(lab->n_buffers < VIBE_LAB_BUFFERS);
    for (int side = 0; side < VIBE_SIDES; side++) {
        both[side] = lab->be[side]->ops->alloc(lab->be[side], bytes);
        lab->buffers[lab->n_buffers][side] = both[side];
        if (both[side])
            vibe_write(&lab->s[side], both[side], host, bytes);
        else
            vibe_fail(&lab->err, VIBE_E_NOMEM, "%s: no memory for parity",
                      lab->be[side]->name);
    }
    lab->n_buffers++;
}

void vibe_lab_floats(struct vibe_lab *lab, float *both[VIBE_SIDES], size_t n)
{
    float *host = host_floats(lab, VIBE_FILL_RANDOM, n);
    void *data[VIBE_SIDES] = {NULL, NULL};

    if (host)
        vibe_lab_buffer(lab, data, host, n * sizeof(*host));
    both[VIBE_REFERENCE] = data[VIBE_REFERENCE];
    both[VIBE_TESTED] = data[VIBE_TESTED];
    free(host);
}

/* A stored weight of magnitude below 2, subnormals and zeros among them. */
static void random_weight(struct vibe_lab *lab, void *out,
                          enum vibe_dtype dtype)
{
    float f = vibe_lab_uniform(lab);
    uint32_t bits;
    uint16_t half;
    uint8_t byte;

    memcpy(&bits, &f, sizeof(bits));
    switch (dtype) {
    case VIBE_F32:
        memcpy(out, &f, sizeof(f));
        return;
    case VIBE_BF16:
        half = (uint16_t)(bits >> 16);
        memcpy(out, &half, sizeof(half));
        return;
    case VIBE_F16:
        half = (uint16_t)next_random(lab) & 0xBFFF;
        memcpy(out, &half, sizeof(half));
        return;
    case VIBE_F8_E4M3:
        byte = (uint8_t)next_random(lab) & 0xBF;
        memcpy(out, &byte, sizeof(byte));
        return;
    case VIBE_I8:
        byte = (uint8_t)next_random(lab);
        memcpy(out, &byte, sizeof(byte));
        return;
    case VIBE_I4:
    case VIBE_BF16_PACKED:
    case VIBE_I64:
    case VIBE_U8:
        break;
    }
    assert(0 && "a dtype that kernels are compared in");
}

/* Zeroed memory that lives as long as the matrices; NULL with the lab's error
 * set. */
static void *keep_bytes(struct vibe_lab *lab, size_t n)
{
    void *host = calloc(n ? n : 1, 1);

    assert(lab->n_hosts < VIBE_LAB_HOSTS);
    lab->hosts[lab->n_hosts++] = host;
    if (!host)
        vibe_fail(&lab->err, VIBE_E_NOMEM, "no memory for parity weights");
    return host;
}

static float *keep_floats(struct vibe_lab *lab, size_t n)
{
    float *host = keep_bytes(lab, n * sizeof(*host));

    for (size_t i = 0; host && i < n; i++)
        host[i] = vibe_lab_uniform(lab);
    return host;
}

/* About 1 / sqrt(K), or 1 where none are asked for; of I8 1 / 64 of it, so
 * that its weights are of the size of others'. */
static float *random_scales(struct vibe_lab *lab,
                            const struct vibe_lab_matrix *spec)
{
    float *scales = keep_floats(lab, spec->N);
    float size = spec->n_scales ? sqrtf((float)spec->K) : 1.0f;

    if (spec->dtype == VIBE_I8)
        size *= 64.0f;
    for (size_t i = 0; scales && i < spec->N; i++)
        scales[i] = (1.5f + 0.5f * scales[i]) / size;
    return scales;
}

/* Give a part of I4 the scales that make its weights as large. */
static void scale_groups(struct vibe_lab *lab, struct vibe_matrix_part *p,
                         const struct vibe_lab_matrix *spec)
{
    const float size = spec->n_scales ? 8.0f * sqrtf((float)spec->K) : 8.0f;
    const size_t group = spec->K % 128 ? 64 : 128;
    const size_t n = p->n * (spec->K / group);
    float *scales = keep_floats(lab, n);

    for (size_t i = 0; scales && i < n; i++) {
        scales[i] = vibe_quant_group_scale((1.5f + 0.5f * scales[i]) / size);
    }
    p->group = group;
    p->group_scale = scales;
}

/* Find block i of a part that is not packed yet; returns its rows. */
static size_t find_block(const void *row[VIBE_PACK_BLOCK],
                         const struct vibe_matrix_part *p, size_t K, size_t i)
{
    size_t first = i * VIBE_PACK_BLOCK;
    size_t n = p->n - first < VIBE_PACK_BLOCK ? p->n - first : VIBE_PACK_BLOCK;

    for (size_t r = 0; r < n; r++)
        row[r] = (const char *)p->data + (first + r) * K * 2;
    return n;
}

/* Replace the bf16 of a part by the same, packed. */
static void pack_part(struct vibe_lab *lab, struct vibe_matrix_part *p,
                      size_t K)
{
    const size_t n_blocks = vibe_pack_n_blocks(p->n);
    const void *row[VIBE_PACK_BLOCK];
    uint64_t *blocks = keep_bytes(lab, (n_blocks + 1) * sizeof(*blocks));
    char *packed;

    for (size_t i = 0; blocks && i < n_blocks; i++) {
        size_t n = find_block(row, p, K, i);

        blocks[i + 1] = blocks[i] + vibe_pack_block_bytes(row, n, K);
    }
    packed = keep_bytes(lab, blocks ? blocks[n_blocks] : 0);
    for (size_t i = 0; blocks && packed && i < n_blocks; i++) {
        size_t n = find_block(row, p, K, i);

        vibe_pack_block(packed + blocks[i], row, n, K);
    }
    p->data = packed;
    p->blocks = blocks;
}

/* Rows of random weights, from row on. */
static struct vibe_matrix_part random_part(struct vibe_lab *lab,
                                           const struct vibe_lab_matrix *spec,
                                           int i, size_t row)
{
    struct vibe_matrix_part p = {.dtype = spec->dtype, .n = spec->N - row};
    enum vibe_dtype dtype;
    size_t size;
    char *data;

    if (i + 1 < spec->n_parts)
        p.n = spec->N / (size_t)spec->n_parts;
    if (spec->is_mixed && i == 1)
        p.dtype = spec->dtype == VIBE_F32 ? VIBE_BF16 : VIBE_F32;
    /* made as what they are before they are packed; I4 has bytes to spare */
    dtype = p.dtype == VIBE_BF16_PACKED ? VIBE_BF16
            : p.dtype == VIBE_I4        ? VIBE_I8
                                        : p.dtype;
    size = vibe_dtype_size(dtype);
    data = keep_bytes(lab, p.n * spec->K * size);
    /* a wild bf16 is drawn as f16 is: any bits but for the largest */
    for (size_t k = 0; data && k < p.n * spec->K; k++)
        random_weight(lab, data + k * size, spec->is_wild ? VIBE_F16 : dtype);
    p.data = data;
    if (p.dtype == VIBE_I4)
        scale_groups(lab, &p, spec);
    if (p.dtype == VIBE_BF16_PACKED)
        pack_part(lab, &p, spec->K);
    return p;
}

void vibe_lab_matrix(struct vibe_lab *lab, struct vibe_matrix *both[VIBE_SIDES],
                     const struct vibe_lab_matrix *spec)
{
    int is_transposed = spec->layout == VIBE_LAYOUT_CONV_TRANSPOSE;
    float *scales = random_scales(lab, spec);
    float *bias = keep_floats(lab, is_transposed ? spec->out : spec->N);
    float *gamma = keep_floats(lab, spec->N);
    struct vibe_matrix_source src = {
        .n_parts = spec->n_parts,
        .layout = spec->layout,
        .N = spec->N,
        .K = spec->K,
        .in = spec->in,
        .out = spec->out,
        .is_pair = spec->is_pair,
        .bias = spec->has_bias ? bias : NULL,
        .gamma = spec->has_gamma ? gamma : NULL,
    };
    size_t row = 0;

    assert(lab->n_matrices < VIBE_LAB_MATRICES);
    for (int i = 0; i < spec->n_parts && !lab->err.code; i++) {
        struct vibe_matrix_part *p = &src.part[i];

        *p = random_part(lab, spec, i, row);
        if ((spec->n_scales && p->dtype != VIBE_I4) || p->dtype == VIBE_I8) {
            p->scale = scales + row;
            p->n_scales = spec->n_scales == 2 ? p->n : 1;
        }
        row += p->n;
    }
    for (int side = 0; side < VIBE_SIDES; side++) {
        both[side] = &lab->matrices[lab->n_matrices][side];
        if (!lab->err.code)
            vibe_matrix_load(both[side], lab->be[side], &src, &lab->err);
    }
    lab->sources[lab->n_matrices++] = src;
}

const struct vibe_matrix_source *vibe_lab_source(const struct vibe_lab *lab)
{
    assert(lab->n_matrices > 0);
    return &lab->sources[lab->n_matrices - 1];
}

/* Dense host copy of t, or NULL with the lab's error set; free it. */
static float *fetch(struct vibe_lab *lab, struct vibe_stream *s,
                    const struct vibe_tensor *t)
{
    float *host = calloc(t->B * t->T * t->C + 1, sizeof(*host));

    if (!host) {
        vibe_fail(&lab->err, VIBE_E_NOMEM, "no memory for parity results");
        return NULL;
    }
    for (size_t m = 0; m < t->B * t->T; m++) {
        size_t at = m / t->T * t->stride_b + m % t->T * t->stride_t;

        vibe_read(s, host + m * t->C, (const float *)t->data + at,
                  t->C * sizeof(*host));
    }
    if (vibe_stream_check(s, lab->err.code ? NULL : &lab->err) == VIBE_OK)
        return host;
    free(host);
    return NULL;
}

/* Largest difference; NaN when either is NaN somewhere. */
static double largest_error(const float *a, const float *b, size_t n)
{
    double worst = 0.0;

    for (size_t i = 0; i < n; i++)
        worst = vibe_worst(worst, fabs((double)a[i] - b[i]));
    return worst;
}

static void report(struct vibe_lab *lab, const char *op, const char *shape,
                   double max_err, double bound)
{
    int ok = max_err <= bound; /* false for NaN */

    if (!ok)
        lab->failed++;
    if (lab->report)
        lab->report(lab->user, op, shape, max_err, bound, ok);
}

static void compare(struct vibe_lab *lab, const char *op,
                    const struct vibe_tensor *a, enum vibe_side a_side,
                    const struct vibe_tensor *b, double bound,
                    const char *shape)
{
    float *got = NULL, *want = NULL;
    double max_err = NAN;

    if (!lab->err.code) {
        got = fetch(lab, &lab->s[VIBE_TESTED], b);
        want = fetch(lab, &lab->s[a_side], a);
    }
    if (got && want)
        max_err = largest_error(got, want, a->B * a->T * a->C);
    report(lab, op, shape, max_err, bound);
    free(got);
    free(want);
}

void vibe_lab_compare(struct vibe_lab *lab, const char *op,
                      const struct vibe_tensor t[VIBE_SIDES], double bound,
                      const char *shape, ...)
{
    char text[96];
    va_list ap;

    va_start(ap, shape);
    vsnprintf(text, sizeof(text), shape, ap);
    va_end(ap);
    compare(lab, op, &t[VIBE_REFERENCE], VIBE_REFERENCE, &t[VIBE_TESTED], bound,
            text);
}

void vibe_lab_same(struct vibe_lab *lab, const char *op,
                   const struct vibe_tensor *a, const struct vibe_tensor *b,
                   const char *shape, ...)
{
    char text[96];
    va_list ap;

    va_start(ap, shape);
    vsnprintf(text, sizeof(text), shape, ap);
    va_end(ap);
    compare(lab, op, a, VIBE_TESTED, b, 0.0, text);
}

void vibe_lab_clear(struct vibe_lab *lab)
{
    for (int side = 0; side < VIBE_SIDES; side++) {
        struct vibe_backend *be = lab->be[side];

        for (size_t i = 0; i < lab->n_tensors; i++)
            vibe_tensor_release(&lab->tensors[i][side], be);
        for (size_t i = 0; i < lab->n_buffers; i++)
            be->ops->free(be, lab->buffers[i][side]);
        for (size_t i = 0; i < lab->n_matrices; i++)
            vibe_matrix_release(&lab->matrices[i][side], be);
    }
    for (size_t i = 0; i < lab->n_hosts; i++)
        free(lab->hosts[i]);
    lab->n_tensors = lab->n_buffers = lab->n_matrices = lab->n_hosts = 0;
}

static void run_cases(struct vibe_lab *lab, vibe_parity_case *const *cases)
{
    for (; *cases && !lab->err.code; cases++)
        (*cases)(lab);
}

size_t vibe_parity_run(struct vibe_backend *be, uint64_t seed,
                       vibe_parity_report *report_fn, void *user,
                       struct vibe_error *err)
{
    struct vibe_lab *lab = calloc(1, sizeof(*lab));
    size_t failed;

    if (!lab) {
        vibe_fail(err, VIBE_E_NOMEM, "no memory for parity cases");
        return 1;
    }
    lab->random = seed;
    lab->report = report_fn;
    lab->user = user;
    lab->be[VIBE_TESTED] = be;
    vibe_cpu_open_isa(&lab->be[VIBE_REFERENCE], VIBE_CPU_SCALAR, 0, &lab->err);
    for (int side = 0; side < VIBE_SIDES && !lab->err.code; side++)
        vibe_stream_init(&lab->s[side], lab->be[side], &lab->err);

    run_cases(lab, vibe_parity_pieces);
    if (be->is_exact) {
        run_cases(lab, vibe_parity_products);
        run_cases(lab, vibe_parity_kept);
        run_cases(lab, vibe_parity_attention);
        run_cases(lab, vibe_parity_conv);
        run_cases(lab, vibe_parity_rows);
    } else {
        run_cases(lab, vibe_parity_rounded);
        run_cases(lab, vibe_parity_packed_rounded);
        run_cases(lab, vibe_parity_kept_rounded);
    }

    vibe_lab_clear(lab);
    for (int side = 0; side < VIBE_SIDES; side++)
        vibe_stream_release(&lab->s[side]);
    vibe_backend_free(lab->be[VIBE_REFERENCE]);
    if (lab->err.code && err)
        *err = lab->err;
    failed = lab->failed + (lab->err.code && !lab->failed);
    free(lab);
    return failed;
}
