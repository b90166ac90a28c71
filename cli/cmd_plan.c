/* --plan and --print-table: where everything would be, and how fast. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/jobs.h"
#include "cli/json.h"
#include "cli/request.h"
#include "cli/residency.h"
#include "engine/vibevoice.h"

enum { HOP = 3200 }; /* samples of a frame; only to plan with */

static const double frame_of_speech_s = (double)HOP / VIBE_SAMPLE_RATE;

/* "streamed        4.1 GiB   9.7 layers, in each frame". */
static void print_part(const char *name, size_t bytes, const char *remark)
{
    char text[32];

    printf("%-16s %10s%s%s\n", name, vibe_plan_bytes(text, sizeof(text), bytes),
           *remark ? "   " : "", remark);
}

static void print_rows(const struct vibe_plan *plan, const char *path)
{
    char remark[128];

    snprintf(remark, sizeof(remark), "%.1f of %zu layers", plan->layers,
             plan->n_layers);
    print_part("layers", plan->resident, remark);
    if (!plan->streamed)
        return;
    snprintf(remark, sizeof(remark),
             "%.1f layers, through the link in each frame, %s",
             (double)plan->n_layers - plan->layers, vibe_residency_way(path));
    print_part("streamed", plan->streamed, remark);
    snprintf(remark, sizeof(remark), "%zu slots for what is streamed",
             plan->ring_slots);
    print_part("ring", plan->ring_slots * plan->chunk_bytes, remark);
}

static const char *encoder_remark(const struct vibe_engine_plan *made)
{
    if (made->plan.encoder)
        return "stays";
    return made->has_voices_first
               ? "only while voices are read, before all else"
               : "only while voices are read, where keys and values come later";
}

static void print_parts(const struct vibe_engine_plan *made, size_t n_dialogues)
{
    const struct vibe_plan_model *m = &made->model;
    const struct vibe_plan *plan = &made->plan;
    const char *on_host = "on the host, read through the link";
    char remark[96];

    print_rows(plan, made->path);
    print_part("diffusion head", m->head + m->head_prepared,
               plan->has_head_on_host ? on_host : "");
    print_part("codec", m->codec, plan->has_codec_on_host ? on_host : "");
    snprintf(remark, sizeof(remark), "%zu + %zu positions%s in %s%s",
             made->positive, made->negative,
             n_dialogues > 1 ? " of each dialogue" : "", made->kv_dtype,
             plan->has_kv_on_host ? ", on the host" : "");
    print_part("keys and values", plan->kv, remark);
    print_part("voice encoder", m->encoder, encoder_remark(made));
    print_part("prompt", m->prompt + m->scratch,
               plan->lends_prompt ? "where keys and values come later"
                                  : "what it is computed in");
    print_part("connectors", m->connectors, "");
    print_part("rest", m->lm + m->states + m->mail,
               "norms, scales, states, what attention passes on");
    snprintf(remark, sizeof(remark), "and %zu MiB of kernels later",
             made->memory.later >> 20);
    print_part("driver", made->memory.context, remark);
    print_part("total", plan->total, "at its peak");
}

/* Layers on other devices are read there, one device after the other. */
static double frame_s_of(const struct vibe_engine_plan *made, size_t steps)
{
    double s = vibe_plan_frame_s(&made->plan, &made->model, &made->rates,
                                 steps);

    for (size_t i = 0; i < made->n_fronts && s > 0; i++)
        s += (double)made->fronts[i].rows / made->rates.read;
    return s;
}

static void print_fronts(const struct vibe_engine_plan *made)
{
    char remark[128];
    size_t first = 0;

    for (size_t i = 0; i < made->n_fronts; i++) {
        const struct vibe_front_plan *front = &made->fronts[i];

        snprintf(remark, sizeof(remark), "layers %zu to %zu, on %s", first,
                 first + front->n_layers - 1, front->device);
        print_part("before", front->bytes, remark);
        first += front->n_layers;
    }
}

static void print_time(const struct vibe_engine_plan *made, size_t steps)
{
    const double s = frame_s_of(made, steps);

    if (s <= 0)
        return;
    printf("a frame takes %.1f ms at least, %.1f x real time: memory %.0f "
           "GB/s",
           1e3 * s, frame_of_speech_s / s, 1e-9 * made->rates.read);
    if (made->rates.link > 0)
        printf(", link %.1f GB/s", 1e-9 * made->rates.link);
    puts(" (probed)");
}

static void print_plan(const struct vibe_engine_plan *made,
                       const struct vibe_options *o, size_t n_dialogues)
{
    char total[32], left[32];

    if (!made->has_gpu) {
        printf("%s: everything is in the memory of the host\n", made->device);
        print_part("language model", made->plan.rows + made->model.lm, "");
        print_part("diffusion head", made->model.head, "");
        print_part("codec", made->model.codec, "");
        print_part("keys and values", made->plan.kv, "");
        print_fronts(made);
        print_time(made, (size_t)o->steps);
        return;
    }
    printf("%s: %s, %s free\n", made->device,
           vibe_plan_bytes(total, sizeof(total), made->memory.total),
           vibe_plan_bytes(left, sizeof(left), made->memory.free));
    printf("%s\n\n", made->plan.why);
    print_fronts(made);
    print_parts(made, n_dialogues);
    putchar('\n');
    print_time(made, (size_t)o->steps);
}

static json_t *fronts_json(const struct vibe_engine_plan *made)
{
    json_t *array = json_array();

    for (size_t i = 0; i < made->n_fronts; i++) {
        json_t *object = json_object();

        vibe_json_text(object, "device", made->fronts[i].device);
        vibe_json_count(object, "layers", made->fronts[i].n_layers);
        vibe_json_count(object, "bytes", made->fronts[i].bytes);
        json_array_append_new(array, object);
    }
    return array;
}

static void print_plan_json(const struct vibe_engine_plan *made, size_t steps)
{
    const struct vibe_plan *plan = &made->plan;
    json_t *object = json_object();

    vibe_json_text(object, "device", made->device);
    vibe_json_bool(object, "gpu", made->has_gpu);
    vibe_json_text(object, "why", made->has_gpu ? plan->why : "");
    vibe_json_text(object, "path", made->path);
    vibe_json_count(object, "layers", plan->n_layers);
    vibe_json_number(object, "gpu_layers", plan->layers);
    vibe_json_count(object, "resident_bytes", plan->resident);
    vibe_json_count(object, "streamed_bytes", plan->streamed);
    vibe_json_count(object, "ring_slots", plan->ring_slots);
    vibe_json_count(object, "chunk_bytes", plan->chunk_bytes);
    vibe_json_count(object, "kv_bytes", plan->kv);
    vibe_json_text(object, "kv_dtype", made->kv_dtype);
    vibe_json_count(object, "head_bytes", made->model.head);
    vibe_json_count(object, "codec_bytes", made->model.codec);
    vibe_json_count(object, "encoder_bytes", made->model.encoder);
    vibe_json_count(object, "scratch_bytes", made->model.scratch);
    vibe_json_count(object, "prompt_bytes", made->model.prompt);
    vibe_json_count(object, "connector_bytes", made->model.connectors);
    vibe_json_count(object, "rest_bytes",
                    made->model.lm + made->model.states + made->model.mail);
    vibe_json_count(object, "context_bytes", made->memory.context);
    vibe_json_count(object, "reserve_bytes", plan->reserve);
    vibe_json_count(object, "budget_bytes", plan->budget);
    vibe_json_count(object, "total_bytes", plan->total);
    vibe_json_count(object, "free_bytes",
                    made->has_gpu ? made->memory.free : 0);
    vibe_json_number(object, "read_bandwidth", made->rates.read);
    vibe_json_number(object, "link_bandwidth", made->rates.link);
    vibe_json_number(object, "frame_ms", 1e3 * frame_s_of(made, steps));
    json_object_set_new(object, "fronts", fronts_json(made));
    vibe_json_print(object);
}

enum vibe_exit vibe_cmd_plan(struct vibe_cli *cli, struct vibe_failure *why)
{
    const struct vibe_options *o = cli->options;
    struct vibe_engine_options wanted;
    struct vibe_engine_plan made;
    struct vibe_error err = {0};
    struct vibe_request *requests = NULL;
    struct vibe_jobs jobs = {0};
    enum vibe_exit status = VIBE_EXIT_OK;

    cli->n_dialogues = o->batch_size ? (size_t)o->batch_size : 1;
    if (o->scripts.n || o->text || o->batch) {
        status = vibe_jobs_open(&jobs, cli, VIBE_JOBS_READ, 0, why);
        if (status == VIBE_EXIT_OK)
            requests = vibe_requests_of(o, &jobs, &cli->n_requests);
        cli->requests = requests;
    }
    if (status == VIBE_EXIT_OK)
        status = vibe_cli_engine_options(&wanted, cli, why);
    if (status == VIBE_EXIT_OK &&
        vibe_engine_plan(&made, &wanted, 0, &err) != VIBE_OK)
        status = vibe_cli_fail_engine(&wanted, &err, why);
    if (status == VIBE_EXIT_OK && o->is_json)
        print_plan_json(&made, (size_t)o->steps);
    else if (status == VIBE_EXIT_OK)
        print_plan(&made, o, cli->n_dialogues);
    free(requests);
    vibe_jobs_release(&jobs);
    return status;
}

/* A machine that the table is made for. */
struct column {
    const char *name;
    size_t bytes; /* of memory; 0: a CPU, where everything fits */
    struct vibe_plan_rates rates;
};

enum { N_ROWS = 8, MAX_COLUMNS = 8, USUAL_CONTEXT = 300 << 20 };

struct table {
    struct column columns[MAX_COLUMNS];
    size_t n_columns;
    struct vibe_engine_plan here; /* what --auto would do */
    int has_here;
    size_t steps;
    int is_json;
};

/* Some layers stay, on a device where all that is asked fits. */
static int plan_row(struct vibe_plan *out, const struct table *table,
                    const struct vibe_plan_model *m, double layers)
{
    const struct vibe_plan_device device = {
        .free = SIZE_MAX / 4,
        .context = table->here.has_gpu ? table->here.memory.context
                                       : USUAL_CONTEXT,
        .later = table->here.memory.later,
    };
    const struct vibe_plan_request request = {
        .kind = VIBE_PLAN_LAYERS,
        .n_layers = layers,
        .reserve = -1,
        .positive = table->here.positive ? table->here.positive : 4096,
        .negative = table->here.negative ? table->here.negative : 2048,
        .ring_slots = VIBE_PLAN_RING_SLOTS, /* free memory is not a card's */
    };

    return vibe_plan_make(out, m, &device, &request, NULL);
}

/* Is this the largest row that --auto has room for? */
static int is_chosen(const struct table *table, double layers, double next)
{
    const double here = table->here.plan.layers;

    return table->here.has_gpu && layers <= here && (next > here);
}

/* Seconds of a frame; 0 where it does not fit, or a rate is unknown.  On a CPU
 * nothing is streamed, whatever a GPU would keep. */
static double frame_s(const struct table *table, const struct column *column,
                      const struct vibe_plan *plan,
                      const struct vibe_plan_model *m)
{
    struct vibe_plan here = *plan;

    if (column->bytes && plan->total > column->bytes)
        return 0;
    if (!column->bytes && !table->here.has_gpu)
        here.streamed = 0;
    return vibe_plan_frame_s(&here, m, &column->rates, table->steps);
}

static void print_cell(const struct table *table, const struct column *column,
                       const struct vibe_plan *plan,
                       const struct vibe_plan_model *m)
{
    const double s = frame_s(table, column, plan, m);

    if (s > 0)
        printf(" %11.0f", 1e3 * s);
    else
        printf(" %11s", "-");
}

static void print_row_json(const struct table *table, const char *weights,
                           const struct vibe_plan *plan,
                           const struct vibe_plan_model *m, int is_auto)
{
    json_t *object = json_object();
    json_t *times = json_object();

    vibe_json_text(object, "weights", weights);
    vibe_json_number(object, "gpu_layers", plan->layers);
    vibe_json_count(object, "total_bytes", plan->total);
    vibe_json_count(object, "streamed_bytes", plan->streamed);
    vibe_json_bool(object, "auto", is_auto);
    for (size_t i = 0; i < table->n_columns; i++) {
        const struct column *c = &table->columns[i];

        if (!c->bytes || plan->total <= c->bytes)
            vibe_json_number(times, c->name, 1e3 * frame_s(table, c, plan, m));
    }
    json_object_set_new(object, "frame_ms", times);
    vibe_json_print(object);
}

static void print_rows_of(const struct table *table, const char *weights,
                          const struct vibe_plan_model *m, int is_stored)
{
    for (size_t i = 0; i < N_ROWS; i++) {
        const double unit = (double)m->n_layers / (N_ROWS - 1);
        const double layers = (double)(N_ROWS - 1 - i) * unit;
        const int is_auto = is_stored &&
                            is_chosen(table, layers, layers + unit);
        char total[32], streamed[32];
        struct vibe_plan plan;

        if (plan_row(&plan, table, m, layers) != VIBE_OK)
            continue;
        if (table->is_json) {
            print_row_json(table, weights, &plan, m, is_auto);
            continue;
        }
        printf("%s %6.1f  %-10s %9s %9s", is_auto ? ">" : " ", plan.layers,
               weights, vibe_plan_bytes(total, sizeof(total), plan.total),
               vibe_plan_bytes(streamed, sizeof(streamed), plan.streamed));
        for (size_t c = 0; c < table->n_columns; c++)
            print_cell(table, &table->columns[c], &plan, m);
        putchar('\n');
    }
}

static void add_columns(struct table *table)
{
    if (table->has_here)
        table->columns[table->n_columns++] = (struct column){
            .name = "here",
            .bytes = table->here.has_gpu ? table->here.memory.total : 0,
            .rates = table->here.rates,
        };
    for (size_t i = 0; i < vibe_n_cards && table->n_columns < MAX_COLUMNS; i++)
        table->columns[table->n_columns++] = (struct column){
            .name = vibe_cards[i].name,
            .bytes = vibe_cards[i].bytes,
            .rates = vibe_cards[i].rates,
        };
}

static void print_head(const struct table *table)
{
    if (table->has_here)
        printf("here: %s\n", table->here.device);
    printf("ms for a frame of %.0f ms at least, of %zu steps; - does not "
           "fit\n\n  layers  weights         VRAM  streamed",
           1e3 * frame_of_speech_s, table->steps);
    for (size_t i = 0; i < table->n_columns; i++)
        printf(" %11s", table->columns[i].name);
    putchar('\n');
}

enum vibe_exit vibe_cmd_table(struct vibe_cli *cli, struct vibe_failure *why)
{
    static const struct {
        const char *name;
        enum vibe_weight_dtype dtype;
    } kinds[] = {
        {"as stored", VIBE_WEIGHTS_AUTO}, {"bf16", VIBE_WEIGHTS_BF16},
        {"float8", VIBE_WEIGHTS_F8_E4M3}, {"int8", VIBE_WEIGHTS_I8},
        {"int4", VIBE_WEIGHTS_I4},        {"packed", VIBE_WEIGHTS_BF16_PACKED},
    };
    const struct vibe_options *o = cli->options;
    struct table table = {.steps = (size_t)o->steps, .is_json = o->is_json};
    struct vibe_engine_options wanted;
    struct vibe_error err = {0};
    size_t stored = 0;

    if (vibe_cli_engine_options(&wanted, cli, why) != VIBE_EXIT_OK)
        return why->status;
    /* a machine on which nothing could be done can still tell of others */
    table.has_here = vibe_engine_plan(&table.here, &wanted, 1, NULL) == VIBE_OK;
    wanted.on_notice = NULL; /* said once */
    add_columns(&table);
    if (!o->is_json)
        print_head(&table);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        struct vibe_plan_model m;

        if (vibe_engine_measure(&m, &wanted, kinds[i].dtype, &err) != VIBE_OK)
            return vibe_cli_fail_engine(&wanted, &err, why);
        if (i == 0)
            stored = m.rows;
        else if (m.rows != stored)
            print_rows_of(&table, kinds[i].name, &m, 0);
        if (i == 0)
            print_rows_of(&table, kinds[i].name, &m, 1);
    }
    return VIBE_EXIT_OK;
}
