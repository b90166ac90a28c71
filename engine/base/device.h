/*
 * device.h - what is known of a device, and what it says of itself.
 */
#ifndef VIBE_BASE_DEVICE_H
#define VIBE_BASE_DEVICE_H

#include <stddef.h>

/* A line of --list-devices. */
struct vibe_device_info {
    int gpu;        /* index of the GPU, or -1: the CPU */
    char name[96];  /* for people */
    int cc;         /* compute capability of a GPU, 86 for 8.6 */
    int is_usable;  /* not when its compute capability is too old */
    size_t n_units; /* multiprocessors, or threads */
    size_t memory_total, memory_free; /* bytes; 0: unknown */
};

/* What a device is doing, with all that others do on it. */
struct vibe_device_reading {
    size_t memory_total, memory_used; /* bytes; 0: unknown */
    size_t memory_own;                /* of them, this process's; 0: unknown */
    double power_w;                   /* negative: unknown */
    double energy_j; /* since its driver was loaded; negative: unknown */
};

#endif /* VIBE_BASE_DEVICE_H */
