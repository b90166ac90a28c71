#include "engine/verify.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/worst.h"
#include "engine/model/dpm_solver.h"

/*
 * What float32 arithmetic may be off by, relative to max(1, largest recorded
 * value): an independent float64 implementation agrees with the records to
 * 3e-5, and the longest sums (the codec's 29 blocks) lose about as much.
 */
static const double BOUND = 1e-4;

void vibe_verify_report(struct vibe_verify *v, const char *name,
                        double max_error, double max_ref, double bound,
                        int is_free)
{
    const struct vibe_verify_row row = {
        .name = name,
        .max_error = max_error,
        .max_ref = max_ref,
        .bound = bound,
        .is_free = is_free,
        .is_ok = is_free || max_error <= bound, /* a NaN is not */
    };

    v->summary->n_compared += !is_free && bound < (double)INFINITY;
    v->summary->n_failed += !row.is_ok;
    if (v->visit)
        v->visit(v->user, &row);
}

void vibe_verify_compare(struct vibe_verify *v, const char *name,
                         const float *got, const float *want, size_t n,
                         int is_free)
{
    double max_error = 0.0;
    double max_ref = 0.0;

    for (size_t i = 0; i < n; i++) {
        max_error = vibe_worst(max_error,
                               fabs((double)got[i] - (double)want[i]));
        max_ref = fmax(max_ref, fabs((double)want[i]));
    }
    vibe_verify_report(v, name, max_error, max_ref, BOUND * fmax(1.0, max_ref),
                       is_free);
}

/* Frames of each voice: the runs of the diffusion token in the record. */
static size_t voice_runs(size_t *n_frames, size_t cap, const int64_t *ids,
                         size_t n, int64_t diffusion)
{
    size_t V = 0;

    for (size_t i = 0; i < n; i++) {
        if (ids[i] != diffusion)
            continue;
        if (i == 0 || ids[i - 1] != diffusion)
            V++;
        if (V <= cap)
            n_frames[V - 1]++;
    }
    return V;
}

static void compare_ids(struct vibe_verify *v, const int64_t *ids, size_t n)
{
    const struct vibe_prompt *prompt = &v->prompt;
    size_t n_wrong = prompt->n > n ? prompt->n - n : n - prompt->n;

    for (size_t i = 0; i < n && i < prompt->n; i++)
        n_wrong += prompt->ids[i] != ids[i];
    vibe_verify_report(v, "prompt.ids", (double)n_wrong, (double)n, 0.0, 0);
}

int vibe_verify_prompt(struct vibe_verify *v)
{
    enum { MAX_VOICES = 64 };
    const size_t n = vibe_golden_size(&v->golden, "prompt.ids");
    const int32_t *control = v->engine->control_ids;
    size_t n_frames[MAX_VOICES] = {0};
    size_t V = 0;
    int64_t *ids = NULL;
    int rc = vibe_golden_i64(&v->golden, &ids, "prompt.ids", n, v->err);

    if (rc == VIBE_OK)
        V = voice_runs(n_frames, MAX_VOICES, ids, n,
                       control[VIBE_CONTROL_DIFFUSION]);
    if (rc == VIBE_OK && V > MAX_VOICES)
        rc = vibe_fail(v->err, VIBE_E_FORMAT, "prompt.ids has %zu voices", V);
    if (rc == VIBE_OK)
        rc = vibe_prompt_build(&v->prompt, v->engine->tokenizer, control,
                               &v->golden.script, n_frames, V, v->err);
    if (rc == VIBE_OK)
        compare_ids(v, ids, n);
    free(ids);
    return rc;
}

static int verify_table(struct vibe_verify *v, size_t n)
{
    struct vibe_dpm_solver solver = {0};
    char times[32], sigmas[32];
    int64_t *t = NULL;
    float *sigma = NULL;
    double worst_t = 0.0;
    double worst_sigma = 0.0;
    int rc = vibe_dpm_solver_init(&solver, n, v->err);

    snprintf(times, sizeof(times), "dpm.timesteps%zu", n);
    snprintf(sigmas, sizeof(sigmas), "dpm.sigmas%zu", n);
    if (rc == VIBE_OK)
        rc = vibe_golden_i64(&v->golden, &t, times, n, v->err);
    if (rc == VIBE_OK)
        rc = vibe_golden_f32(&v->golden, &sigma, sigmas, n + 1, v->err);
    for (size_t i = 0; rc == VIBE_OK && i < n; i++) {
        const double error = fabs((double)solver.sigmas[i] - (double)sigma[i]);

        worst_t = fmax(worst_t, fabs((double)(solver.timesteps[i] - t[i])));
        worst_sigma = vibe_worst(worst_sigma, error / (double)sigma[i]);
    }
    if (rc == VIBE_OK) {
        vibe_verify_report(v, times, worst_t, 999.0, 0.0, 0);
        /* relative; one rounding to float32 is 6e-8 of the value, and the
         * square root and the quotient of the reference are rounded, too */
        vibe_verify_report(v, sigmas, worst_sigma, 1.0, 2.4e-7, 0);
    }
    free(t);
    free(sigma);
    vibe_dpm_solver_release(&solver);
    return rc;
}

int vibe_verify_tables(struct vibe_verify *v)
{
    int rc = VIBE_OK;

    for (size_t n = 1; n <= 100 && rc == VIBE_OK; n++) {
        char name[32];

        snprintf(name, sizeof(name), "dpm.timesteps%zu", n);
        if (vibe_golden_size(&v->golden, name))
            rc = verify_table(v, n);
    }
    return rc;
}

static void release(struct vibe_verify *v)
{
    vibe_prompt_release(&v->prompt);
    vibe_golden_release(&v->golden);
}

int vibe_engine_verify(struct vibe_engine *engine, const char *golden,
                       void (*visit)(void *user,
                                     const struct vibe_verify_row *row),
                       void *user, struct vibe_verify_summary *summary,
                       struct vibe_error *err)
{
    static int (*const parts[])(struct vibe_verify * v) = {
        vibe_verify_prompt, vibe_verify_tables, vibe_verify_voices,
        vibe_verify_codec,  vibe_verify_forced, vibe_verify_free,
    };
    struct vibe_verify v = {
        .engine = engine,
        .visit = visit,
        .user = user,
        .summary = summary,
        .err = err,
    };
    int rc = vibe_golden_init(&v.golden, golden, err);

    *summary = (struct vibe_verify_summary){0};
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        if (rc == VIBE_OK)
            rc = parts[i](&v);
    release(&v);
    return rc;
}
