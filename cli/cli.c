#include "cli/cli.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/json.h"
#include "engine/vibevoice.h"

/* Presets of how much of a model a GPU holds: not what a config.json is. */
static const char *const presets[] = {
    "high-end", "mid-range", "consumer", "budget",     "minimal",
    "light",    "moderate",  "balanced", "aggressive", "extreme",
};

static void set_file(struct vibe_failure *why, const char *file)
{
    snprintf(why->file, sizeof(why->file), "%s", file ? file : "");
}

enum vibe_exit vibe_cli_fail(struct vibe_failure *why, enum vibe_exit status,
                             const char *file, const char *fmt, ...)
{
    va_list ap;

    why->status = status;
    set_file(why, file);
    va_start(ap, fmt);
    vsnprintf(why->err.msg, sizeof(why->err.msg), fmt, ap);
    va_end(ap);
    return status;
}

enum vibe_exit vibe_cli_fail_by(struct vibe_failure *why, enum vibe_exit io,
                                const char *file)
{
    why->status = vibe_exit_of(why->err.code, io);
    set_file(why, file);
    return why->status;
}

void vibe_cli_report(struct vibe_cli *cli, const struct vibe_failure *why)
{
    if (!why->err.msg[0])
        return;
    vibe_log(&cli->log, VIBE_LOG_ERROR, "%s", why->err.msg);
    if (why->status == VIBE_EXIT_USAGE)
        fputs("Try 'vibevoice --help' for more information.\n", cli->log.out);
    if (cli->options->is_json) {
        json_t *body = json_object(), *object = json_object();

        vibe_json_count(body, "code", (size_t)why->status);
        vibe_json_text(body, "message", why->err.msg);
        if (why->file[0])
            vibe_json_text(body, "file", why->file);
        json_object_set_new(object, "error", body);
        vibe_json_print(object);
    }
}

const char *vibe_cli_model(const struct vibe_options *options)
{
    if (options->model)
        return options->model;
    return access("models", F_OK) == 0 ? "models" : NULL;
}

static int is_preset(const char *word)
{
    for (size_t i = 0; i < sizeof(presets) / sizeof(presets[0]); i++) {
        const char *a = presets[i], *b = word;

        while (*a &&
               (*a == tolower((unsigned char)*b) || (*a == '-' && *b == '_'))) {
            a++;
            b++;
        }
        if (!*a && !*b)
            return 1;
    }
    return 0;
}

/* --config names a file; scripts of the Python program name presets. */
static enum vibe_exit check_config(const char *config, struct vibe_failure *why)
{
    if (access(config, F_OK) == 0)
        return VIBE_EXIT_OK;
    if (is_preset(config))
        return vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                             "--config: presets are for a GPU, and '%s' is not "
                             "a file; leave it out",
                             config);
    return vibe_cli_fail(why, VIBE_EXIT_INPUT, config,
                         "%s: No such file or directory", config);
}

static void on_notice(void *user, const char *sentence)
{
    struct vibe_cli *cli = user;

    vibe_log(&cli->log, VIBE_LOG_WARN, "%s", sentence);
}

enum vibe_exit vibe_cli_fail_device(struct vibe_failure *why, int index,
                                    const char *reason)
{
    char number[16] = "";

    if (index > 0)
        snprintf(number, sizeof(number), ":%d", index);
    return vibe_cli_fail(why, VIBE_EXIT_DEVICE, NULL, "--device cuda%s: %s",
                         number, reason);
}

enum vibe_exit vibe_cli_open_engine(struct vibe_engine **out,
                                    struct vibe_cli *cli, enum vibe_cli_use use,
                                    struct vibe_failure *why)
{
    const struct vibe_options *o = cli->options;
    const char *model = vibe_cli_model(o);
    struct vibe_engine_options wanted = {
        .model = model,
        .config = o->config,
        .tokenizer = o->tokenizer,
        .device = (enum vibe_device)o->device,
        .device_index = o->device_index,
        .dtype = (enum vibe_weight_dtype)o->dtype,
        .threads = (int)o->threads,
        .n_dialogues = cli->n_dialogues,
        .on_notice = on_notice,
        .user = cli,
        .trace = cli->trace,
    };
    struct vibe_error err = {0};
    int rc;

    *out = NULL;
    if (!model)
        return vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                             "no model: use --model PATH or VIBEVOICE_MODEL");
    if (o->config && check_config(o->config, why) != VIBE_EXIT_OK)
        return why->status;
    if (access(model, F_OK) != 0)
        return vibe_cli_fail(why, VIBE_EXIT_INPUT, model, "%s: %s", model,
                             strerror(errno));
    if (o->attn_implementation)
        vibe_log(&cli->log, VIBE_LOG_DEBUG,
                 "--attn-implementation %s is ignored: there is one",
                 o->attn_implementation);
    if (use == VIBE_USE_INSPECT && wanted.device == VIBE_DEVICE_AUTO)
        wanted.device = VIBE_DEVICE_CPU;
    if (use == VIBE_USE_VERIFY && wanted.dtype == VIBE_WEIGHTS_AUTO)
        wanted.dtype = VIBE_WEIGHTS_F32;
    rc = vibe_engine_open(out, &wanted, &err);
    if (rc == VIBE_E_DEVICE && wanted.device == VIBE_DEVICE_CUDA)
        return vibe_cli_fail_device(why, o->device_index, err.msg);
    why->err = err;
    return rc == VIBE_OK ? VIBE_EXIT_OK
                         : vibe_cli_fail_by(why, VIBE_EXIT_INPUT, model);
}
