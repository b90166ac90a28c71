/*
 * vibe_attention over kernels.
 *
 * The heads that share a KV head go through it together.  Positions are cut
 * into splits of fixed size; each split gives, per head, its largest score,
 * the sum of its weights and the weighted sum of values, and splits are merged
 * in order.  A long context of one row is so worked on by all threads, and the
 * result is the same as when one thread takes the row's splits one by one.
 */
#include <float.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/state.h"
#include "engine/base/float8.h"

enum {
    SPLIT = 256, /* positions; keys and values of a head stay in L2 */
    CHUNK = 64,  /* positions whose scores are kept */
    ROWS = 16,   /* of a prompt that pass by a split */
};

struct job {
    const struct vibe_cpu_kernels *k;
    const struct vibe_tensor *y, *qkv;
    const struct vibe_kv *kv;
    const struct vibe_rows *rows;
    size_t layer, group;
    size_t part; /* floats of one part: [group] tops, [group] totals,
                    [group][head_dim] sums */
};

static size_t last_position(const struct job *a, size_t m)
{
    return (size_t)a->rows->pos[m / a->y->T] + m % a->y->T;
}

/* Scores of positions p .. p + n - 1, all in one block, for n_h heads. */
static void score(const struct job *a, float s[][CHUNK], const float *q,
                  size_t m, size_t head, size_t p, size_t n, int n_h)
{
    size_t hd = a->kv->head_dim;
    size_t row = hd * vibe_dtype_size(a->kv->dtype);
    const char *keys = vibe_cpu_kv_row(a->kv, (size_t)a->rows->seq[m / a->y->T],
                                       a->layer, 0, head, p);
    float out[VIBE_CPU_DOT_W * VIBE_CPU_DOT_X];

    for (size_t i = 0; i < n; i += VIBE_CPU_DOT_W) {
        const void *w[VIBE_CPU_DOT_W];

        for (size_t r = 0; r < VIBE_CPU_DOT_W; r++)
            w[r] = keys + (i + r < n ? i + r : n - 1) * row;
        a->k->dot[a->kv->dtype](out, w, q, hd, hd, n_h);
        for (size_t r = 0; r < VIBE_CPU_DOT_W && i + r < n; r++)
            for (int h = 0; h < n_h; h++)
                s[h][i + r] = out[r * VIBE_CPU_DOT_X + (size_t)h];
    }
}

/* Multiply what belongs to positions p .. p + n - 1 by the scales of their keys
 * (which 0) or values (1). */
static void scale_columns(const struct job *a, float s[][CHUNK], size_t m,
                          size_t which, size_t head, size_t p, size_t n,
                          int n_h)
{
    const uint8_t *exponents = vibe_cpu_kv_exponent(
        a->kv, (size_t)a->rows->seq[m / a->y->T], a->layer, which, head, p);

    for (size_t i = 0; i < n; i++) {
        const float scale = vibe_f8_scale(exponents[i]);

        for (int h = 0; h < n_h; h++)
            s[h][i] *= scale;
    }
}

/* Heads first .. first + n_h - 1 of a group over positions p .. end - 1. */
static void attend_heads(const struct job *a, float *part, size_t m,
                         size_t head, size_t first, int n_h, size_t p,
                         size_t end)
{
    size_t hd = a->kv->head_dim, bt = a->kv->block_tokens;
    size_t seq = (size_t)a->rows->seq[m / a->y->T];
    float *tops = part + first;
    float *totals = part + a->group + first;
    float *sums = part + 2 * a->group + first * hd;
    const float *q = vibe_cpu_row(a->qkv, m) + (head * a->group + first) * hd;
    float s[VIBE_CPU_DOT_X][CHUNK], factor[VIBE_CPU_DOT_X];
    float scale = 1.0f / sqrtf((float)hd);
    const int is_scaled = a->kv->dtype == VIBE_F8_E4M3;

    for (size_t n; p < end; p += n) {
        n = CHUNK - p % CHUNK;
        n = n < bt - p % bt ? n : bt - p % bt;
        n = n < end - p ? n : end - p;
        score(a, s, q, m, head, p, n, n_h);
        if (is_scaled)
            scale_columns(a, s, m, 0, head, p, n, n_h);
        for (int h = 0; h < n_h; h++) {
            float sum = a->k->soften(s[h], n, scale, &tops[h], &factor[h]);

            totals[h] = totals[h] * factor[h] + sum;
        }
        if (is_scaled)
            scale_columns(a, s, m, 1, head, p, n, n_h);
        a->k->mix[a->kv->dtype](
            sums, factor, s[0], CHUNK,
            vibe_cpu_kv_row(a->kv, seq, a->layer, 1, head, p), n, hd, n_h);
    }
}

/* Row m, the heads of one KV head, positions of one split: fill the part. */
static void attend_split(const struct job *a, float *part, size_t m,
                         size_t head, size_t split)
{
    size_t p = split * SPLIT;
    size_t end = last_position(a, m) + 1;
    size_t step = (size_t)a->k->dot_x;

    end = end < p + SPLIT ? end : p + SPLIT;
    memset(part, 0, a->part * sizeof(*part));
    for (size_t h = 0; h < a->group; h++)
        part[h] = -FLT_MAX;
    for (size_t h = 0; h < a->group; h += step) {
        size_t n_h = a->group - h < step ? a->group - h : step;

        attend_heads(a, part, m, head, h, (int)n_h, p, end);
    }
}

/* into = into and from together. */
static void merge(const struct job *a, float *into, const float *from)
{
    size_t hd = a->kv->head_dim;

    for (size_t h = 0; h < a->group; h++) {
        float top = fmaxf(into[h], from[h]);
        float f = expf(into[h] - top);
        float g = expf(from[h] - top);
        float *x = into + 2 * a->group + h * hd;
        const float *y = from + 2 * a->group + h * hd;

        into[h] = top;
        into[a->group + h] = into[a->group + h] * f + from[a->group + h] * g;
        for (size_t i = 0; i < hd; i++)
            x[i] = x[i] * f + y[i] * g;
    }
}

/* y = sums / total for the heads of one KV head. */
static void finish(const struct job *a, const float *part, size_t m,
                   size_t head)
{
    size_t hd = a->kv->head_dim;
    float *y = vibe_cpu_row(a->y, m) + head * a->group * hd;

    for (size_t h = 0; h < a->group; h++) {
        float total = part[a->group + h];
        const float *sums = part + 2 * a->group + h * hd;

        for (size_t i = 0; i < hd; i++)
            y[h * hd + i] = sums[i] / total;
    }
}

/* Few rows: every split is a task, merged afterwards. */
static void attend_few(struct vibe_stream *s, const struct job *a)
{
    size_t n_kv = a->kv->n_kv_heads;
    size_t n_units = a->y->B * a->y->T * n_kv;
    size_t most = 1;
    int threads;
    float *parts;

    for (size_t m = 0; m < a->y->B * a->y->T; m++)
        if (last_position(a, m) / SPLIT + 1 > most)
            most = last_position(a, m) / SPLIT + 1;
    parts = vibe_cpu_scratch(s, n_units * most * a->part * sizeof(*parts));
    if (!parts)
        return;
    threads = vibe_cpu_team(s, n_units * most * a->part * CHUNK);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (size_t task = 0; task < n_units * most; task++) {
        size_t unit = task / most, split = task % most;

        if (split * SPLIT <= last_position(a, unit / n_kv))
            attend_split(a, parts + task * a->part, unit / n_kv, unit % n_kv,
                         split);
    }
    for (size_t unit = 0; unit < n_units; unit++) {
        float *part = parts + unit * most * a->part;
        size_t n = last_position(a, unit / n_kv) / SPLIT + 1;

        for (size_t split = 1; split < n; split++)
            merge(a, part, part + split * a->part);
        finish(a, part, unit / n_kv, unit % n_kv);
    }
}

/* Rows m .. m + n - 1 of one sequence, one KV head; parts is [n + 1]. */
static void attend_rows(const struct job *a, float *parts, size_t m, size_t n,
                        size_t head)
{
    float *next = parts + n * a->part;

    for (size_t split = 0; split * SPLIT <= last_position(a, m + n - 1);
         split++) {
        for (size_t i = 0; i < n; i++) {
            float *part = split ? next : parts + i * a->part;

            if (split * SPLIT > last_position(a, m + i))
                continue;
            attend_split(a, part, m + i, head, split);
            if (split)
                merge(a, parts + i * a->part, next);
        }
    }
    for (size_t i = 0; i < n; i++)
        finish(a, parts + i * a->part, m + i, head);
}

/* Many rows: a task takes some rows of one sequence along all splits. */
static void attend_many(struct vibe_stream *s, const struct job *a)
{
    size_t n_kv = a->kv->n_kv_heads;
    size_t T = a->y->T;
    size_t n_tiles = (T + ROWS - 1) / ROWS;
    size_t n_tasks = a->y->B * n_tiles * n_kv;
    size_t each = (ROWS + 1) * a->part;
    int threads = vibe_cpu_of(s)->threads;
    float *parts = vibe_cpu_scratch(s, (size_t)threads * each * sizeof(*parts));

    if (!parts)
        return;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (size_t task = 0; task < n_tasks; task++) {
        size_t tile = n_tiles - 1 - task / n_kv % n_tiles; /* longest first */
        size_t b = task / n_kv / n_tiles;
        size_t n = T - tile * ROWS < ROWS ? T - tile * ROWS : ROWS;

        attend_rows(a, parts + (size_t)omp_get_thread_num() * each,
                    b * T + tile * ROWS, n, task % n_kv);
    }
}

static void attention(struct vibe_stream *s, const struct vibe_tensor *y,
                      const struct vibe_tensor *qkv, const struct vibe_kv *kv,
                      size_t layer, const struct vibe_rows *rows,
                      const struct vibe_rope *rope)
{
    size_t group = y->C / kv->head_dim / kv->n_kv_heads;
    struct job a = {
        .k = vibe_cpu_of(s)->kernels,
        .y = y,
        .qkv = qkv,
        .kv = kv,
        .rows = rows,
        .layer = layer,
        .group = group,
        .part = group * (kv->head_dim + 2),
    };

    vibe_cpu_rope(s, qkv, kv, layer, rows, rope);
    if (y->T < ROWS)
        attend_few(s, &a);
    else
        attend_many(s, &a);
}

void vibe_cpu_attention_init(struct vibe_ops *ops)
{
    ops->attention = attention;
}
