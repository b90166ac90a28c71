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

#endif /* VIBE_OFFLOAD_HOST_H */
