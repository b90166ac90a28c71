#include "cli/failure.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>

#include "cli/cli.h"
#include "cli/json.h"

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

enum vibe_exit vibe_cli_fail_memory(struct vibe_failure *why, const char *what)
{
    return vibe_cli_fail(why, VIBE_EXIT_MEMORY, NULL, "no memory for %s", what);
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
