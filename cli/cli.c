#include "cli/cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/devices.h"
#include "cli/residency.h"
#include "engine/vibevoice.h"

const char *vibe_cli_model(const struct vibe_options *options)
{
    if (options->model)
        return options->model;
    return access("models", F_OK) == 0 ? "models" : NULL;
}

static void on_notice(void *user, const char *sentence)
{
    struct vibe_cli *cli = user;

    vibe_log(&cli->log, VIBE_LOG_WARN, "%s", sentence);
}

struct vibe_precision vibe_cli_precision(const struct vibe_options *o)
{
    return (struct vibe_precision){
        .lm = (enum vibe_weight_dtype)o->dtype,
        .head = (enum vibe_weight_dtype)o->head_dtype,
        .codec = (enum vibe_weight_dtype)o->codec_dtype,
        .kv = (enum vibe_weight_dtype)o->kv_dtype,
    };
}

enum vibe_exit vibe_cli_engine_options(struct vibe_engine_options *out,
                                       struct vibe_cli *cli,
                                       struct vibe_failure *why)
{
    const struct vibe_options *o = cli->options;
    const char *model = vibe_cli_model(o);

    *out = (struct vibe_engine_options){
        .model = model,
        .tokenizer = o->tokenizer,
        .device = (enum vibe_device)o->device,
        .device_index = o->device_index,
        .precision = vibe_cli_precision(o),
        .threads = (int)o->threads,
        .n_dialogues = cli->n_dialogues,
        .plan = {.positive = cli->n_positions, .negative = cli->n_positions},
        .fronts = cli->devices->fronts,
        .n_fronts = cli->devices->n_fronts,
        .is_metered = o->is_stats || o->is_profile,
        .like = cli->like,
        .requests = cli->requests,
        .n_requests = cli->n_requests,
        .steps = (int)o->steps,
        .on_notice = on_notice,
        .user = cli,
        .trace = cli->trace,
    };
    if (!model)
        return vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                             "no model: use --model PATH or VIBEVOICE_MODEL");
    if (vibe_residency_fill(out, o, why) != VIBE_EXIT_OK)
        return why->status;
    if (access(model, F_OK) != 0)
        return vibe_cli_fail(why, VIBE_EXIT_INPUT, model, "%s: %s", model,
                             strerror(errno));
    if (o->attn_implementation)
        vibe_log(&cli->log, VIBE_LOG_DEBUG,
                 "--attn-implementation %s is ignored: there is one",
                 o->attn_implementation);
    return VIBE_EXIT_OK;
}

enum vibe_exit vibe_cli_fail_engine(const struct vibe_engine_options *wanted,
                                    const struct vibe_error *err,
                                    struct vibe_failure *why)
{
    if (err->code == VIBE_E_DEVICE && wanted->device == VIBE_DEVICE_CUDA)
        return vibe_cli_fail_device(why, wanted->device_index, err->msg);
    why->err = *err;
    return vibe_cli_fail_by(why, VIBE_EXIT_INPUT, wanted->model);
}

/* What was measured and chosen. */
static void tell_of_share(struct vibe_cli *cli,
                          const struct vibe_engine *engine)
{
    char rates[128] = "";
    char refused[96] = "";
    struct vibe_cpu_share share;
    double all;

    vibe_engine_cpu_share(engine, &share);
    all = (double)(share.bytes + share.streamed_bytes);
    if (all <= 0)
        return; /* and no option is needed */
    if (share.refused > 0)
        snprintf(refused, sizeof(refused),
                 ", not the %.0f %% asked for, which are slower than none",
                 100 * share.refused);
    if (share.cpu_rate > 0)
        snprintf(rates, sizeof(rates),
                 " (measured: %.1f GB/s beside a link of %.1f GB/s, which has "
                 "%.1f GB/s alone)",
                 1e-9 * share.cpu_rate, 1e-9 * share.link_rate,
                 1e-9 * share.alone_rate);
    vibe_log(&cli->log, VIBE_LOG_INFO,
             "the CPU multiplies %.0f %% of the %.1f MiB that do not stay%s%s",
             100 * (double)share.bytes / all, all / (1 << 20), refused, rates);
}

enum vibe_exit vibe_cli_open_engine(struct vibe_engine **out,
                                    struct vibe_cli *cli, enum vibe_cli_use use,
                                    struct vibe_failure *why)
{
    struct vibe_engine_options wanted;
    struct vibe_error err = {0};

    *out = NULL;
    if (vibe_cli_engine_options(&wanted, cli, why) != VIBE_EXIT_OK)
        return why->status;
    if (use == VIBE_USE_INSPECT && wanted.device == VIBE_DEVICE_AUTO)
        wanted.device = VIBE_DEVICE_CPU;
    if (use == VIBE_USE_INSPECT) /* nothing is computed: make nothing */
        wanted.precision = (struct vibe_precision){.lm = VIBE_WEIGHTS_AUTO};
    if (use == VIBE_USE_VERIFY && wanted.precision.lm == VIBE_WEIGHTS_AUTO)
        wanted.precision.lm = VIBE_WEIGHTS_F32;
    if (vibe_engine_open(out, &wanted, &err) != VIBE_OK)
        return vibe_cli_fail_engine(&wanted, &err, why);
    if (wanted.streaming.cpu_layers != 0)
        tell_of_share(cli, *out);
    return VIBE_EXIT_OK;
}
