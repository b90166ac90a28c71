/*
 * replicas.h - one engine on each of several devices, over one queue.
 *
 * The engines read the weights from one mapping of the file, which the system
 * keeps once however many there are.
 */
#ifndef VIBE_CLI_REPLICAS_H
#define VIBE_CLI_REPLICAS_H

#include <stddef.h>

#include "cli/cli.h"

struct vibe_engine;
struct vibe_queue;

enum { VIBE_REPLICAS_MAX = 64 };

/* Where one of several engines computes. */
struct vibe_replica {
    int device; /* enum vibe_device */
    int index;  /* of the GPU */
};

/*
 * Read --devices: "0,1", "cuda:0,cpu".
 *
 *   out   [VIBE_REPLICAS_MAX]
 *   n     set to how many; 0 if the option is not given
 */
enum vibe_exit vibe_replicas_parse(struct vibe_replica *out, size_t *n,
                                   const char *devices,
                                   struct vibe_failure *why);

/*
 * Empty the queue: with the first engine in this thread, and in a thread of
 * their own with engines that are opened on the other devices.
 *
 *   first      opened on replicas[0]; borrowed
 *   replicas   [n], n > 0
 */
enum vibe_exit vibe_replicas_speak(struct vibe_queue *q,
                                   struct vibe_engine *first,
                                   const struct vibe_replica *replicas,
                                   size_t n, struct vibe_failure *why);

#endif /* VIBE_CLI_REPLICAS_H */
