/*
 * residency.h - from options to where an engine keeps its weights.
 */
#ifndef VIBE_CLI_RESIDENCY_H
#define VIBE_CLI_RESIDENCY_H

#include "cli/exit.h"

struct vibe_engine_options;
struct vibe_failure;
struct vibe_options;

/*
 * Set out->plan, how streamed weights are copied, and out->config when --config
 * names a file: it may also name a preset, as it does in the scripts that the
 * presets come from.
 */
enum vibe_exit vibe_residency_fill(struct vibe_engine_options *out,
                                   const struct vibe_options *options,
                                   struct vibe_failure *why);

/* How what is streamed comes, by the name of its path: "from pinned memory". */
const char *vibe_residency_way(const char *path);

#endif /* VIBE_CLI_RESIDENCY_H */
