/*
 * stats.h - --stats: what a run did with the memory and the link of a GPU.
 */
#ifndef VIBE_CLI_STATS_H
#define VIBE_CLI_STATS_H

struct vibe_cli;
struct vibe_engine;

/* Tell what will stay on a GPU, and what a frame takes at least where something
 * does not. */
void vibe_stats_foretell(struct vibe_cli *cli,
                         const struct vibe_engine *engine);

/*
 * Print, to standard error for people and as one more object with --json.
 * Without --stats only a warning, where weights came by a slower way than was
 * told before.
 *
 *   seconds   that were spent speaking, for the rate of the link
 */
void vibe_stats_print(struct vibe_cli *cli, const struct vibe_engine *engine,
                      double seconds);

#endif /* VIBE_CLI_STATS_H */
