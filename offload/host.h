/*
 * host.h - how much memory of the host there is to fill.
 */
#ifndef VIBE_OFFLOAD_HOST_H
#define VIBE_OFFLOAD_HOST_H

#include <stddef.h>

/*
 * Bytes of host memory that this process could still fill without swapping:
 * what the system has, and what its control group, those above it and ulimit
 * allow.
 */
size_t vibe_host_free(void);

/* The same by the files below root, a copy of "/proc" and "/sys". */
size_t vibe_host_free_below(const char *root);

/* Addresses that nothing lies at. */
struct vibe_held {
    void *at; /* NULL: none */
    size_t bytes;
};

/*
 * Hold a quarter of the addresses that ulimit -v leaves, at most 32 GiB, until
 * they are let go; none where there is no limit.  A GPU's driver takes hundreds
 * of gigabytes of them when it is opened, as many as it gets, and would leave
 * none for what comes later.
 */
struct vibe_held vibe_host_hold(void);
void vibe_host_let_go(struct vibe_held held);

#endif /* VIBE_OFFLOAD_HOST_H */
