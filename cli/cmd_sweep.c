/* --benchmark: the time of a frame for each number of resident layers. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/json.h"
#include "engine/vibevoice.h"

enum { N_POINTS = 8 }; /* from no layer to all of them */

/* What was measured with some layers on the GPU. */
struct point {
    double layers;              /* that were resident */
    size_t n_layers;            /* of the model */
    size_t resident, streamed;  /* bytes of their rows */
    size_t vram;                /* peak, the driver's included; 0: CPU */
    double mean_s, deviation_s; /* of a frame, over the repeats */
    double bound_s;             /* by bytes and bandwidths; 0: unknown */
    double prompt_s;            /* of --prompt */
    double rtf;                 /* seconds for one of speech, of all */
};

struct sweep {
    struct vibe_cli *cli;
    size_t n_dialogues;
    struct vibe_engine_options wanted;
    char device[96];
    enum vibe_sweep_format format;
    json_t *all; /* for one array of them */
    size_t n_printed;
};

static double mean_of(const double *values, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += values[i];
    return sum / (double)n;
}

/* Standard deviation of a sample; 0 of one value. */
static double deviation_of(const double *values, size_t n, double mean)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += (values[i] - mean) * (values[i] - mean);
    return n > 1 ? sqrt(sum / (double)(n - 1)) : 0;
}

/* Layers on other devices stay there. */
static size_t layers_before(const struct vibe_engine_plan *made)
{
    size_t n = 0;

    for (size_t i = 0; i < made->n_fronts; i++)
        n += made->fronts[i].n_layers;
    return n;
}

/* Time an open engine as often as was asked. */
static int time_point(struct point *out, struct vibe_engine *engine,
                      const struct sweep *sweep, struct vibe_error *err)
{
    const struct vibe_options *o = sweep->cli->options;
    const size_t n = (size_t)o->repeats;
    struct vibe_bench bench = {0};
    struct vibe_engine_stats stats;
    struct vibe_engine_info info;
    double *times = calloc(n, sizeof(*times));
    int rc = times ? VIBE_OK
                   : vibe_fail(err, VIBE_E_NOMEM, "no memory for %zu times", n);

    for (size_t i = 0; i < n && rc == VIBE_OK; i++) {
        rc = vibe_engine_bench(engine, &bench, (size_t)o->frames, (int)o->steps,
                               (size_t)o->context, (size_t)o->prompt, err);
        times[i] = bench.frame_s;
    }
    if (rc == VIBE_OK) {
        vibe_engine_stats(engine, &stats);
        vibe_engine_describe(engine, &info);
        out->layers += stats.gpu_layers;
        out->n_layers += stats.n_layers;
        out->resident = stats.resident_bytes;
        out->streamed = stats.streamed_bytes;
        out->vram = bench.vram_peak;
        out->mean_s = mean_of(times, n);
        out->deviation_s = deviation_of(times, n, out->mean_s);
        out->prompt_s = bench.prefill_s;
        out->rtf = out->mean_s * VIBE_SAMPLE_RATE /
                   (double)(info.hop * sweep->n_dialogues);
    }
    free(times);
    return rc;
}

static int measure(struct point *out, struct sweep *sweep,
                   const struct vibe_engine_plan *made, struct vibe_error *err)
{
    const struct vibe_options *o = sweep->cli->options;
    struct vibe_engine *engine;
    int rc = vibe_engine_open(&engine, &sweep->wanted, err);

    snprintf(sweep->device, sizeof(sweep->device), "%s", made->device);
    *out = (struct point){
        .layers = (double)layers_before(made),
        .n_layers = layers_before(made),
        .bound_s = vibe_plan_frame_s(&made->plan, &made->model, &made->rates,
                                     (size_t)o->steps),
    };
    if (rc == VIBE_OK)
        rc = time_point(out, engine, sweep, err);
    vibe_engine_free(engine);
    sweep->wanted.on_notice = NULL; /* said once */
    return rc;
}

static json_t *json_of(const struct sweep *sweep, const struct point *p)
{
    const struct vibe_options *o = sweep->cli->options;
    json_t *object = json_object();

    vibe_json_text(object, "device", sweep->device);
    vibe_json_text(object, "model", sweep->wanted.model);
    vibe_json_count(object, "steps", (size_t)o->steps);
    vibe_json_count(object, "context", (size_t)o->context);
    vibe_json_count(object, "frames", (size_t)o->frames);
    vibe_json_count(object, "repeats", (size_t)o->repeats);
    vibe_json_count(object, "dialogues", sweep->n_dialogues);
    vibe_json_count(object, "layers", p->n_layers);
    vibe_json_number(object, "gpu_layers", p->layers);
    vibe_json_count(object, "resident_bytes", p->resident);
    vibe_json_count(object, "streamed_bytes", p->streamed);
    vibe_json_count(object, "vram_peak_bytes", p->vram);
    vibe_json_number(object, "frame_ms", 1e3 * p->mean_s);
    vibe_json_number(object, "frame_ms_sd", 1e3 * p->deviation_s);
    vibe_json_number(object, "prompt_s", o->prompt > 0 ? p->prompt_s : NAN);
    vibe_json_number(object, "bound_ms",
                     p->bound_s > 0 ? 1e3 * p->bound_s : NAN);
    vibe_json_number(object, "rtf", p->rtf);
    return object;
}

static void print_csv(const struct sweep *sweep, const struct point *p)
{
    char prompt[32] = "", bound[32] = ""; /* unknown is no number */

    if (!sweep->n_printed)
        puts("gpu_layers,layers,dialogues,resident_bytes,streamed_bytes,"
             "vram_peak_bytes,frame_ms,frame_ms_sd,prompt_s,bound_ms,rtf");
    if (sweep->cli->options->prompt > 0)
        snprintf(prompt, sizeof(prompt), "%.3f", p->prompt_s);
    if (p->bound_s > 0)
        snprintf(bound, sizeof(bound), "%.3f", 1e3 * p->bound_s);
    printf("%.1f,%zu,%zu,%zu,%zu,%zu,%.3f,%.3f,%s,%s,%.4f\n", p->layers,
           p->n_layers, sweep->n_dialogues, p->resident, p->streamed, p->vram,
           1e3 * p->mean_s, 1e3 * p->deviation_s, prompt, bound, p->rtf);
}

static void print_row(const struct sweep *sweep, const struct point *p)
{
    char vram[32], streamed[32], prompt[32] = "-", bound[32] = "-";

    if (!sweep->n_printed)
        puts("| layers on the GPU |  peak VRAM |   streamed |          ms per "
             "frame |    bound | s per prompt | x real time |\n"
             "|------------------:|-----------:|-----------:|----------------"
             "------:|---------:|-------------:|------------:|");
    if (sweep->cli->options->prompt > 0)
        snprintf(prompt, sizeof(prompt), "%.3f", p->prompt_s);
    if (p->bound_s > 0)
        snprintf(bound, sizeof(bound), "%.2f", 1e3 * p->bound_s);
    printf("| %8.1f of %5zu | %10s | %10s | %10.3f +- %7.3f | %8s | %12s | "
           "%11.2f |\n",
           p->layers, p->n_layers,
           p->vram ? vibe_plan_bytes(vram, sizeof(vram), p->vram) : "-",
           p->streamed
               ? vibe_plan_bytes(streamed, sizeof(streamed), p->streamed)
               : "-",
           1e3 * p->mean_s, 1e3 * p->deviation_s, bound, prompt,
           p->rtf > 0 ? 1 / p->rtf : 0);
}

static void print_point(struct sweep *sweep, const struct point *p)
{
    if (sweep->format == VIBE_SWEEP_JSON)
        json_array_append_new(sweep->all, json_of(sweep, p));
    else if (sweep->format == VIBE_SWEEP_JSONL)
        vibe_json_print(json_of(sweep, p));
    else if (sweep->format == VIBE_SWEEP_CSV)
        print_csv(sweep, p);
    else
        print_row(sweep, p);
    sweep->n_printed++;
    fflush(stdout); /* the next one takes a while */
}

/* One number of layers: that of the wish at hand. */
static int add_point(struct sweep *sweep, const struct vibe_engine_plan *made,
                     struct vibe_error *err)
{
    struct point point;
    const int rc = measure(&point, sweep, made, err);

    if (rc == VIBE_OK)
        print_point(sweep, &point);
    return rc;
}

/*
 * As many layers as were asked for, or every number of them once: what does
 * not fit is planned as what does.  A CPU has them all.
 */
static int measure_all(struct sweep *sweep, struct vibe_error *err)
{
    struct vibe_plan_request *plan = &sweep->wanted.plan;
    struct vibe_engine_plan made;
    int rc = vibe_engine_plan(&made, &sweep->wanted, 0, err);

    if (rc != VIBE_OK)
        return rc;
    if (!made.has_gpu || plan->kind != VIBE_PLAN_AUTO)
        return add_point(sweep, &made, err);
    plan->kind = VIBE_PLAN_SHARE;
    for (int i = 0; i < N_POINTS && rc == VIBE_OK; i++) {
        const double last = made.plan.layers;

        plan->share = (double)i / (N_POINTS - 1);
        rc = vibe_engine_plan(&made, &sweep->wanted, 0, err);
        if (rc == VIBE_OK && i > 0 && made.plan.layers <= last)
            break;
        if (rc == VIBE_OK)
            rc = add_point(sweep, &made, err);
    }
    return rc;
}

enum vibe_exit vibe_cmd_benchmark(struct vibe_cli *cli,
                                  struct vibe_failure *why)
{
    const struct vibe_options *o = cli->options;
    struct sweep sweep = {
        .cli = cli,
        .n_dialogues = o->batch_size ? (size_t)o->batch_size : 1,
        .format = o->is_json ? VIBE_SWEEP_JSONL
                             : (enum vibe_sweep_format)o->bench_format,
        .all = json_array(),
    };
    struct vibe_error err = {0};
    enum vibe_exit status;

    cli->n_dialogues = sweep.n_dialogues;
    cli->n_positions = vibe_cli_positions(o);
    status = vibe_cli_engine_options(&sweep.wanted, cli, why);
    if (status == VIBE_EXIT_OK && measure_all(&sweep, &err) != VIBE_OK)
        status = vibe_cli_fail_engine(&sweep.wanted, &err, why);
    if (status == VIBE_EXIT_OK && sweep.format == VIBE_SWEEP_JSON)
        vibe_json_print(json_incref(sweep.all));
    json_decref(sweep.all);
    return status;
}
