/*
 * devices.h - what --device, --devices and --replicas ask for.
 */
#ifndef VIBE_CLI_DEVICES_H
#define VIBE_CLI_DEVICES_H

#include <stddef.h>

#include "cli/cli.h"
#include "engine/vibevoice.h"

struct vibe_options;

enum { VIBE_REPLICAS_MAX = 64 };

/* Where one of several engines computes. */
struct vibe_replica {
    int device; /* enum vibe_device */
    int index;  /* of the GPU */
};

struct vibe_devices {
    struct vibe_replica replicas[VIBE_REPLICAS_MAX]; /* where the engines are */
    size_t n_replicas;                               /* > 0 */
    struct vibe_device_choice fronts[VIBE_REPLICAS_MAX]; /* of a split model */
    size_t n_fronts;
};

/*
 * Find the devices, and have the options name that of the first engine: where
 * a model is split among several, the last of them, which has the last layers
 * and all else.
 */
enum vibe_exit vibe_devices_find(struct vibe_devices *out,
                                 struct vibe_options *options,
                                 struct vibe_failure *why);

#endif /* VIBE_CLI_DEVICES_H */
