/*
 * replicas.h - one engine on each of several devices, over one queue.
 *
 * The engines share one host copy of the weights: the mapping of the file, what
 * was recoded, and what they stream.
 */
#ifndef VIBE_CLI_REPLICAS_H
#define VIBE_CLI_REPLICAS_H

#include <stddef.h>

#include "cli/cli.h"

struct vibe_engine;
struct vibe_replica;
struct vibe_queue;
struct vibe_replicas;

/*
 * Open engines beside the first, each in a thread of its own, and wait for
 * them.
 *
 *   out        set to them, or to NULL on failure; free with
 *              vibe_replicas_free, before the first
 *   cli        borrowed for this call; its options and log until then
 *   first      opened on replicas[0], whose host copy of the weights they share
 *   replicas   [n], n > 0
 */
enum vibe_exit vibe_replicas_open(struct vibe_replicas **out,
                                  const struct vibe_cli *cli,
                                  struct vibe_engine *first,
                                  const struct vibe_replica *replicas, size_t n,
                                  struct vibe_failure *why);

/* Empty a queue: with the first engine in this thread, with the others in
 * theirs. */
enum vibe_exit vibe_replicas_speak(struct vibe_replicas *all,
                                   struct vibe_queue *q,
                                   struct vibe_engine *first,
                                   struct vibe_failure *why);

/* Close them; NULL is allowed. */
void vibe_replicas_free(struct vibe_replicas *all);

#endif /* VIBE_CLI_REPLICAS_H */
