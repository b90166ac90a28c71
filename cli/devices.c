#include "cli/devices.h"

#include <string.h>
#include <unistd.h>

#include "cli/options.h"

/* "3", "cuda:3" or "cpu" of n bytes; 0 if it is none of them. */
static int read_device(struct vibe_replica *out, const char *word, size_t n)
{
    *out = (struct vibe_replica){.device = VIBE_DEVICE_CPU};
    if (n == 3 && memcmp(word, "cpu", 3) == 0)
        return 1;
    out->device = VIBE_DEVICE_CUDA;
    if (n > 5 && memcmp(word, "cuda:", 5) == 0) {
        word += 5;
        n -= 5;
    }
    if (n < 1 || n > 3)
        return 0;
    for (size_t i = 0; i < n; i++) {
        if (word[i] < '0' || word[i] > '9')
            return 0;
        out->index = 10 * out->index + (word[i] - '0');
    }
    return 1;
}

/* "0,1", "cuda:0,cpu"; none where the option is not given. */
static enum vibe_exit parse(struct vibe_devices *out, const char *devices,
                            struct vibe_failure *why)
{
    while (devices && *devices) {
        const size_t length = strcspn(devices, ",");

        if (out->n_replicas == VIBE_REPLICAS_MAX ||
            !read_device(&out->replicas[out->n_replicas++], devices, length))
            return vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                                 "--devices: '%.*s' is not a GPU's number, "
                                 "cuda:N or cpu",
                                 (int)length, devices);
        devices += length + (devices[length] == ',');
    }
    return VIBE_EXIT_OK;
}

/* One engine on all devices: the last has the last layers and all else. */
static enum vibe_exit split_model(struct vibe_devices *out,
                                  struct vibe_failure *why)
{
    const size_t last = out->n_replicas - 1;

    for (size_t i = 0; i < last; i++) {
        if (out->replicas[i].device != out->replicas[last].device)
            return vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                                 "--devices: a model is split among devices "
                                 "of one kind; --replicas takes others");
        out->fronts[i] = (struct vibe_device_choice){
            .device = (enum vibe_device)out->replicas[i].device,
            .index = out->replicas[i].index,
        };
    }
    out->n_fronts = last;
    out->replicas[0] = out->replicas[last];
    out->n_replicas = 1;
    return VIBE_EXIT_OK;
}

enum vibe_exit vibe_devices_find(struct vibe_devices *out,
                                 struct vibe_options *options,
                                 struct vibe_failure *why)
{
    size_t n_cpu = 0;
    size_t *n = &out->n_replicas;

    if (options->is_replicated && !options->devices)
        return vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                             "--replicas needs --devices");
    *out = (struct vibe_devices){.n_replicas = 0};
    if (parse(out, options->devices, why) != VIBE_EXIT_OK)
        return why->status;
    if (*n > 1 && !options->is_replicated &&
        split_model(out, why) != VIBE_EXIT_OK)
        return why->status;
    if (*n == 0)
        out->replicas[(*n)++] = (struct vibe_replica){
            .device = options->device,
            .index = options->device_index,
        };
    options->device = out->replicas[0].device;
    options->device_index = out->replicas[0].index;
    for (size_t i = 0; i < *n; i++)
        n_cpu += out->replicas[i].device == VIBE_DEVICE_CPU;
    if (n_cpu > 1 && options->threads == 0) {
        const long cores = sysconf(_SC_NPROCESSORS_ONLN);

        options->threads = cores > (long)n_cpu ? cores / (long)n_cpu : 1;
    }
    return VIBE_EXIT_OK;
}
