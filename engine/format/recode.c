#include "engine/format/recode.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/base/size.h"
#include "engine/base/team.h"
#include "engine/format/finite.h"
#include "engine/format/pack.h"
#include "engine/format/quant.h"
#include "engine/format/weights.h"

enum { TASK_ROWS = VIBE_PACK_BLOCK };

/* A weight seen as rows. */
struct rows {
    const struct vibe_weight *w;
    size_t n, K;
};

static struct rows rows_of(const struct vibe_weight *w)
{
    size_t n = w->n_dims ? w->shape[0] : 1;

    return (struct rows){.w = w, .n = n, .K = n ? w->n / n : 0};
}

enum vibe_dtype vibe_recode_dtype(const struct vibe_weight *w,
                                  enum vibe_weight_dtype as)
{
    return vibe_quant_dtype(as, w->dtype, rows_of(w).K);
}

/* Rows of the block or task that i is, and where it begins. */
static size_t task_rows(const struct rows *rows, size_t i)
{
    size_t left = rows->n - i * TASK_ROWS;

    return left < TASK_ROWS ? left : TASK_ROWS;
}

static size_t n_tasks(const struct rows *rows)
{
    return (rows->n + TASK_ROWS - 1) / TASK_ROWS;
}

/* out[n][K] = the rows of a task as f32, scaled. */
static void widen_task(float *out, const struct rows *rows, size_t i)
{
    const struct vibe_weight *w = rows->w;
    const size_t first = i * TASK_ROWS;
    const size_t n = task_rows(rows, i);
    const size_t K = rows->K;
    const char *data = w->data;

    if (w->dtype == VIBE_BF16_PACKED) {
        uint16_t *halves = (uint16_t *)out + n * K; /* the upper half */

        assert(w->blocks);
        vibe_unpack_block(halves, data + (w->blocks[i] - w->blocks[0]), n, K);
        for (size_t k = 0; k < n * K; k++)
            vibe_dtype_to_f32(out + k, halves + k, VIBE_BF16, 1);
        return;
    }
    data += first * vibe_dtype_bytes(w->dtype, K);
    if (w->dtype == VIBE_I4) {
        vibe_quant_widen(out, data, w->group_scale + first * (K / w->group),
                         VIBE_I4, w->group, n, K);
        return;
    }
    vibe_dtype_to_f32(out, data, w->dtype, n * K);
    for (size_t r = 0; w->scale && r < n; r++)
        for (size_t k = 0; k < K; k++)
            out[r * K + k] *= w->scale[w->n_scales > 1 ? first + r : 0];
}

/* What the threads share. */
struct job {
    struct rows rows;
    struct vibe_recoded *out;
    size_t *block_bytes;                /* while blocks are measured */
    const struct vibe_recoded *checked; /* while errors are */
    struct vibe_recode_error *errors;   /* [tasks] */
    int is_out_of_memory;               /* set by any of them */
    int is_damaged;                     /* likewise: not all is finite */
};

static float *take_wide(struct job *job, size_t i)
{
    float *wide = malloc((task_rows(&job->rows, i) * job->rows.K + 1) *
                         sizeof(*wide));

    if (wide)
        widen_task(wide, &job->rows, i);
    else
        __atomic_store_n(&job->is_out_of_memory, 1, __ATOMIC_RELAXED);
    return wide;
}

/* Nearest bf16, ties to even; NaN stays NaN, and what was a bf16 (packed)
 * stays that one.  In place: out may be in. */
static void round_bf16(void *out, const float *in, size_t n)
{
    char *to = out;

    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        uint16_t half;

        memcpy(&bits, &in[i], sizeof(bits));
        half = (bits & 0x7FFFFFFFu) > 0x7F800000u
                   ? (uint16_t)(bits >> 16 | (bits & 0xFFFF ? 0x40 : 0))
                   : (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
        memcpy(to + 2 * i, &half, sizeof(half));
    }
}

static void quantise_task(void *user, size_t i)
{
    struct job *job = user;
    struct vibe_recoded *out = job->out;
    const size_t first = i * TASK_ROWS;
    const size_t n = task_rows(&job->rows, i);
    const size_t K = job->rows.K;
    float *wide = take_wide(job, i);
    char *to = (char *)out->data + first * vibe_dtype_bytes(out->dtype, K);

    if (!wide)
        return;
    if (out->dtype == VIBE_BF16)
        round_bf16(to, wide, n * K);
    else if (vibe_finite_f32(wide, n * K))
        vibe_quant_rows(to,
                        out->dtype == VIBE_I4
                            ? out->group_scale + first * (K / out->group)
                            : out->scale + first,
                        out->dtype, out->group, wide, n, K);
    else
        __atomic_store_n(&job->is_damaged, 1, __ATOMIC_RELAXED);
    free(wide);
}

/* Find the bf16 rows of a block: of the file, or rounded in *wide, which is to
 * be freed. */
static int find_block(struct job *job, const void *row[TASK_ROWS], float **wide,
                      size_t i)
{
    const struct vibe_weight *w = job->rows.w;
    const size_t n = task_rows(&job->rows, i);
    const size_t K = job->rows.K;
    const char *data = (const char *)w->data + i * TASK_ROWS * K * 2;

    *wide = NULL;
    if (w->dtype != VIBE_BF16 || w->scale) {
        *wide = take_wide(job, i);
        if (!*wide)
            return 1;
        round_bf16(*wide, *wide, n * K);
        data = (const char *)*wide;
    }
    for (size_t r = 0; r < n; r++)
        row[r] = data + r * K * 2;
    return 0;
}

static void measure_block(void *user, size_t i)
{
    struct job *job = user;
    const void *row[TASK_ROWS];
    float *wide;

    if (find_block(job, row, &wide, i))
        return;
    job->block_bytes[i] = vibe_pack_block_bytes(row, task_rows(&job->rows, i),
                                                job->rows.K);
    free(wide);
}

static void pack_block(void *user, size_t i)
{
    struct job *job = user;
    const void *row[TASK_ROWS];
    float *wide;

    if (find_block(job, row, &wide, i))
        return;
    vibe_pack_block((char *)job->out->data + job->out->blocks[i], row,
                    task_rows(&job->rows, i), job->rows.K);
    free(wide);
}

static int no_memory(const struct vibe_weight *w, enum vibe_dtype to,
                     struct vibe_error *err)
{
    return vibe_fail(err, VIBE_E_NOMEM, "%s: no memory for %s as %s", w->file,
                     w->name, vibe_dtype_name(to));
}

static int pack(struct job *job, int threads, struct vibe_error *err)
{
    struct vibe_recoded *out = job->out;
    const struct rows *rows = &job->rows;
    const size_t n = n_tasks(rows);
    const size_t header = vibe_pack_header_bytes(rows->n);

    job->block_bytes = calloc(n + 1, sizeof(*job->block_bytes));
    out->blocks = calloc(n + 1, sizeof(*out->blocks));
    if (!job->block_bytes || !out->blocks) {
        free(job->block_bytes);
        return no_memory(rows->w, out->dtype, err);
    }
    vibe_team_run(threads, n, measure_block, job);
    out->blocks[0] = header;
    for (size_t i = 0; i < n; i++)
        out->blocks[i + 1] = out->blocks[i] + job->block_bytes[i];
    out->bytes = out->blocks[n];
    out->data = malloc(out->bytes);
    if (out->data && !job->is_out_of_memory) {
        vibe_pack_header_write(out->data, rows->n, rows->K, job->block_bytes);
        vibe_team_run(threads, n, pack_block, job);
    }
    free(job->block_bytes);
    return out->data && !job->is_out_of_memory
               ? VIBE_OK
               : no_memory(rows->w, out->dtype, err);
}

int vibe_recode(struct vibe_recoded *out, const struct vibe_weight *w,
                enum vibe_dtype to, size_t group, int threads,
                struct vibe_error *err)
{
    struct job job = {.rows = rows_of(w), .out = out};
    const size_t n = job.rows.n;
    const size_t K = job.rows.K;

    *out = (struct vibe_recoded){.dtype = to};
    if (to == VIBE_BF16_PACKED)
        return pack(&job, threads, err);
    out->bytes = n * vibe_dtype_bytes(to, K);
    out->data = malloc(out->bytes + 1);
    if (to == VIBE_I4) {
        out->group = group && K % group == 0 ? group : VIBE_QUANT_GROUP;
        out->group_scale = malloc((n * (K / out->group) + 1) *
                                  sizeof(*out->group_scale));
    } else if (to != VIBE_BF16) {
        out->scale = malloc((n + 1) * sizeof(*out->scale));
    }
    if (!out->data || (to == VIBE_I4 && !out->group_scale) ||
        ((to == VIBE_F8_E4M3 || to == VIBE_I8) && !out->scale))
        return no_memory(w, to, err);
    vibe_team_run(threads, n_tasks(&job.rows), quantise_task, &job);
    if (job.is_damaged)
        return vibe_fail(err, VIBE_E_FORMAT,
                         "%s: tensor %s holds NaN or infinity, expected finite "
                         "weights to make %s of",
                         w->file, w->name, vibe_dtype_name(to));
    return job.is_out_of_memory ? no_memory(w, to, err) : VIBE_OK;
}

void vibe_recoded_release(struct vibe_recoded *r)
{
    free(r->data);
    free(r->scale);
    free(r->group_scale);
    free(r->blocks);
    *r = (struct vibe_recoded){0};
}

/* The same rows, as they were and as they are now. */
static void compare_task(void *user, size_t i)
{
    struct job *job = user;
    const struct vibe_recoded *r = job->checked;
    const struct vibe_weight now = {
        .data = r->blocks ? (const char *)r->data + r->blocks[0]
                          : (const char *)r->data,
        .dtype = r->dtype,
        .scale = r->scale,
        .n_scales = job->rows.n,
        .group = r->group,
        .group_scale = r->group_scale,
        .blocks = r->blocks,
    };
    struct job again = {
        .rows = {.w = &now, .n = job->rows.n, .K = job->rows.K}};
    const size_t n = task_rows(&job->rows, i) * job->rows.K;
    float *was = take_wide(job, i);
    float *is = take_wide(&again, i);

    if (again.is_out_of_memory)
        __atomic_store_n(&job->is_out_of_memory, 1, __ATOMIC_RELAXED);
    for (size_t k = 0; was && is && k < n; k++) {
        double d = (double)is[k] - was[k];

        job->errors[i].signal += (double)was[k] * was[k];
        job->errors[i].noise += d * d;
    }
    free(was);
    free(is);
}

int vibe_recode_measure(struct vibe_recode_error *out,
                        const struct vibe_weight *w,
                        const struct vibe_recoded *r, int threads,
                        struct vibe_error *err)
{
    struct job job = {.rows = rows_of(w), .checked = r};
    const size_t n = n_tasks(&job.rows);

    job.errors = calloc(n + 1, sizeof(*job.errors));
    if (!job.errors)
        return no_memory(w, r->dtype, err);
    vibe_team_run(threads, n, compare_task, &job);
    *out = (struct vibe_recode_error){0};
    for (size_t i = 0; i < n; i++) {
        out->signal += job.errors[i].signal;
        out->noise += job.errors[i].noise;
    }
    free(job.errors);
    return job.is_out_of_memory ? no_memory(w, r->dtype, err) : VIBE_OK;
}
