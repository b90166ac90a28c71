/*
 * request.h - from options and a job to what the engine is asked for.
 */
#ifndef VIBE_CLI_REQUEST_H
#define VIBE_CLI_REQUEST_H

#include <stddef.h>
#include <stdint.h>

#include "cli/exit.h"

struct vibe_cli;
struct vibe_engine;
struct vibe_failure;
struct vibe_job;
struct vibe_jobs;
struct vibe_options;
struct vibe_request;

/* Options that need others, or exclude them by their value. */
enum vibe_exit vibe_request_options(const struct vibe_options *options,
                                    struct vibe_failure *why);

/* The seed of this run: the one given, or for -1 one drawn now. */
uint64_t vibe_request_seed(const struct vibe_options *options);

/*
 * Describe what a job asks of the engine; callbacks are left out.
 *
 *   hop   samples of a frame, for --max-seconds
 */
void vibe_request_fill(struct vibe_request *out,
                       const struct vibe_options *options,
                       const struct vibe_job *job, size_t hop);

/*
 * What the jobs ask that are going to be spoken, for an engine to be planned
 * by: [*n], owned by the caller, borrows from the jobs; NULL without memory.
 */
struct vibe_request *vibe_requests_of(const struct vibe_options *options,
                                      const struct vibe_jobs *jobs, size_t *n);

/*
 * Have the engine check every job before the first is spoken; in a batch what
 * is wrong with one is its problem.
 *
 *   n_tokens   [jobs->n] set to the length of each prompt, of all parts; may
 *              be NULL
 */
enum vibe_exit vibe_request_check_all(struct vibe_engine *engine,
                                      const struct vibe_options *options,
                                      struct vibe_jobs *jobs, size_t *n_tokens,
                                      struct vibe_failure *why);

#endif /* VIBE_CLI_REQUEST_H */
