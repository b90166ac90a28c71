/* --list-devices: what there is to compute on. */
#include <jansson.h>
#include <stdio.h>

#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/json.h"
#include "engine/base/device.h"
#include "engine/vibevoice.h"

/* As --device takes it. */
static const char *device_word(const struct vibe_device_info *info, char *buf,
                               size_t size)
{
    if (info->gpu < 0)
        snprintf(buf, size, "cpu");
    else
        snprintf(buf, size, "cuda:%d", info->gpu);
    return buf;
}

static void print_line(void *user, const struct vibe_device_info *info)
{
    const double gib = 1.0 / (double)(1 << 30);
    char word[16], capability[16] = "";

    (void)user;
    if (info->gpu >= 0)
        snprintf(capability, sizeof(capability), ", sm_%d", info->cc);
    printf("%-8s %s%s, %.1f GiB, %.1f GiB free%s\n",
           device_word(info, word, sizeof(word)), info->name, capability,
           (double)info->memory_total * gib, (double)info->memory_free * gib,
           info->is_usable ? "" : ", too old");
}

static void print_object(void *user, const struct vibe_device_info *info)
{
    json_t *object = json_object();
    char word[16];

    (void)user;
    vibe_json_text(object, "device", device_word(info, word, sizeof(word)));
    vibe_json_text(object, "name", info->name);
    if (info->gpu >= 0) {
        vibe_json_number(object, "compute_capability", 0.1 * info->cc);
        vibe_json_count(object, "multiprocessors", info->n_units);
    } else {
        vibe_json_count(object, "threads", info->n_units);
    }
    vibe_json_count(object, "memory_bytes", info->memory_total);
    vibe_json_count(object, "free_bytes", info->memory_free);
    vibe_json_bool(object, "usable", info->is_usable);
    vibe_json_print(object);
}

enum vibe_exit vibe_cmd_devices(struct vibe_cli *cli, struct vibe_failure *why)
{
    const int is_json = cli->options->is_json;
    struct vibe_error err = {0};

    switch (
        vibe_list_devices(is_json ? print_object : print_line, NULL, &err)) {
    case VIBE_OK:
        return VIBE_EXIT_OK;
    case VIBE_E_UNSUPPORTED:
    case VIBE_E_DEVICE: /* no GPU is an answer, too */
        vibe_log(&cli->log, VIBE_LOG_INFO, "%s", err.msg);
        return VIBE_EXIT_OK;
    default:
        why->err = err;
        return vibe_cli_fail_by(why, VIBE_EXIT_DEVICE, NULL);
    }
}
