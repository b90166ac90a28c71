#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/jobs.h"
#include "cli/json.h"
#include "cli/request.h"
#include "engine/vibevoice.h"

/* Write a count of bytes as "2.7 GiB" into buf. */
static const char *human_bytes(size_t n, char *buf, size_t size)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)n;
    size_t unit = 0;

    while (value >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1024;
        unit++;
    }
    snprintf(buf, size, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return buf;
}

static void print_info(const char *model, const struct vibe_engine_info *info,
                       const struct vibe_options *o)
{
    size_t frame = info->frame_bytes + (size_t)o->steps * info->step_bytes;
    char bytes[32];

    printf("model              %s\n", model);
    printf("device             %s\n", info->device);
    printf("weights            %zu tensors, %zu parameters, %s, mostly %s\n",
           info->n_tensors, info->n_parameters,
           human_bytes(info->weight_bytes, bytes, sizeof(bytes)), info->dtype);
    printf("language model     %zu layers, hidden %zu, inner %zu\n",
           info->num_hidden_layers, info->hidden_size, info->intermediate_size);
    printf("attention          %zu heads, %zu key/value heads\n",
           info->num_attention_heads, info->num_key_value_heads);
    printf("vocabulary         %zu tokens, %s output head\n", info->vocab_size,
           info->is_tied ? "tied" : "separate");
    printf("context            %zu tokens\n", info->max_position_embeddings);
    printf("diffusion head     %zu layers, latent %zu, %zu steps by default\n",
           info->head_layers, info->latent_size, info->default_steps);
    printf("semantic size      %zu\n", info->semantic_size);
    printf("frame              %zu samples, %.2f frames/s\n", info->hop,
           info->hop ? (double)VIBE_SAMPLE_RATE / (double)info->hop : 0);
    printf("latent scale       %.10g, bias %.10g\n",
           (double)info->speech_scaling_factor,
           (double)info->speech_bias_factor);
    printf("read per frame     %s at %" PRId64 " steps\n",
           human_bytes(frame, bytes, sizeof(bytes)), o->steps);
}

static void print_row(void *user, const struct vibe_precision_row *row)
{
    int *n = user;

    if (!(*n)++)
        printf("\nSNR      from         to           tensor\n");
    printf("%5.1f dB %-12s %-12s %s\n", row->snr_db, row->from, row->to,
           row->name);
}

static void add_row(void *user, const struct vibe_precision_row *row)
{
    json_t *object = json_object();

    vibe_json_text(object, "tensor", row->name);
    vibe_json_text(object, "from", row->from);
    vibe_json_text(object, "to", row->to);
    vibe_json_number(object, "snr_db", row->snr_db);
    json_array_append_new(user, object);
}

static void print_info_json(json_t *object, const char *model,
                            const struct vibe_engine_info *info)
{
    vibe_json_text(object, "model", model);
    vibe_json_text(object, "device", info->device);
    vibe_json_text(object, "dtype", info->dtype);
    vibe_json_count(object, "tensors", info->n_tensors);
    vibe_json_count(object, "parameters", info->n_parameters);
    vibe_json_count(object, "weight_bytes", info->weight_bytes);
    vibe_json_count(object, "hidden_size", info->hidden_size);
    vibe_json_count(object, "intermediate_size", info->intermediate_size);
    vibe_json_count(object, "num_hidden_layers", info->num_hidden_layers);
    vibe_json_count(object, "num_attention_heads", info->num_attention_heads);
    vibe_json_count(object, "num_key_value_heads", info->num_key_value_heads);
    vibe_json_count(object, "vocab_size", info->vocab_size);
    vibe_json_count(object, "max_position_embeddings",
                    info->max_position_embeddings);
    vibe_json_count(object, "head_layers", info->head_layers);
    vibe_json_count(object, "latent_size", info->latent_size);
    vibe_json_count(object, "semantic_size", info->semantic_size);
    vibe_json_count(object, "hop", info->hop);
    vibe_json_count(object, "default_steps", info->default_steps);
    vibe_json_bool(object, "tied", info->is_tied);
    vibe_json_number(object, "speech_scaling_factor",
                     (double)info->speech_scaling_factor);
    vibe_json_number(object, "speech_bias_factor",
                     (double)info->speech_bias_factor);
    vibe_json_count(object, "frame_bytes", info->frame_bytes);
    vibe_json_count(object, "step_bytes", info->step_bytes);
    vibe_json_print(object);
}

enum vibe_exit vibe_cmd_info(struct vibe_cli *cli, struct vibe_failure *why)
{
    struct vibe_engine *engine = NULL;
    struct vibe_engine_info info;
    const struct vibe_options *o = cli->options;
    const struct vibe_precision precision = vibe_cli_precision(o);
    const char *model = vibe_cli_model(o);
    enum vibe_exit status = vibe_cli_open_engine(&engine, cli, VIBE_USE_INSPECT,
                                                 why);
    int rc;

    if (status != VIBE_EXIT_OK)
        return status;
    vibe_engine_describe(engine, &info);
    if (o->is_json) {
        json_t *object = json_object();
        json_t *rows = json_array();

        rc = vibe_precision_judge(model, &precision, add_row, rows, &why->err);
        json_object_set_new(object, "matrices", rows);
        print_info_json(object, model, &info);
    } else {
        int n = 0;

        print_info(model, &info, o);
        rc = vibe_precision_judge(model, &precision, print_row, &n, &why->err);
    }
    vibe_engine_free(engine);
    return rc == VIBE_OK ? VIBE_EXIT_OK
                         : vibe_cli_fail_by(why, VIBE_EXIT_INPUT, model);
}

/* Print bytes between quotes, on one line whatever they are. */
static void print_piece(const char *text, size_t n)
{
    putchar('"');
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];

        if (c == '\n')
            fputs("\\n", stdout);
        else if (c == '\t')
            fputs("\\t", stdout);
        else if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            printf("\\x%02x", c);
        else
            putchar(c);
    }
    puts("\"");
}

/* One line a token; bytes of a split character are passed on as they are. */
static void print_token(void *user, size_t i, int32_t id, const char *text,
                        size_t n)
{
    (void)user;
    (void)i;
    printf("%" PRId32 "\t", id);
    if (n)
        print_piece(text, n);
    else
        puts("<voice>");
}

static void collect_token(void *user, size_t i, int32_t id, const char *text,
                          size_t n)
{
    (void)i;
    (void)text;
    (void)n;
    json_array_append_new(user, json_integer(id));
}

static enum vibe_exit dump_job(const struct vibe_cli *cli,
                               struct vibe_engine *engine,
                               const struct vibe_job *job, int is_only,
                               struct vibe_failure *why)
{
    json_t *ids = cli->options->is_json ? json_array() : NULL;
    struct vibe_request request;

    if (job->source->problem)
        return vibe_cli_fail(why, VIBE_EXIT_INPUT, job->source->path, "%s",
                             job->source->problem);
    vibe_request_fill(&request, cli->options, job, 0);
    if (!ids && !is_only)
        printf("# %s\n", job->source->name);
    if (vibe_request_tokens(engine, &request, ids ? collect_token : print_token,
                            ids, &why->err) != VIBE_OK) {
        json_decref(ids);
        return vibe_cli_fail_by(why, VIBE_EXIT_INPUT, job->source->path);
    }
    if (ids) {
        json_t *object = json_object();

        vibe_json_text(object, "script", job->source->name);
        json_object_set_new(object, "ids", ids);
        vibe_json_print(object);
    }
    return VIBE_EXIT_OK;
}

enum vibe_exit vibe_cmd_tokens(struct vibe_cli *cli, struct vibe_failure *why)
{
    struct vibe_engine *engine = NULL;
    struct vibe_jobs jobs;
    enum vibe_exit status = vibe_jobs_open(&jobs, cli, VIBE_JOBS_READ, 0, why);

    if (status == VIBE_EXIT_OK)
        status = vibe_cli_open_engine(&engine, cli, VIBE_USE_INSPECT, why);
    if (status == VIBE_EXIT_OK)
        status = vibe_request_check_all(engine, cli->options, &jobs, NULL, why);
    for (size_t i = 0; i < jobs.n && status == VIBE_EXIT_OK; i++)
        status = dump_job(cli, engine, &jobs.items[i], jobs.n == 1, why);
    vibe_engine_free(engine);
    vibe_jobs_release(&jobs);
    return status;
}
