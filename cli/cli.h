/*
 * cli.h - what the commands share: options, messages, the engine.
 */
#ifndef VIBE_CLI_CLI_H
#define VIBE_CLI_CLI_H

#include <stddef.h>

#include "cli/exit.h"
#include "cli/failure.h"
#include "cli/log.h"
#include "cli/options.h"

struct vibe_devices;
struct vibe_engine;
struct vibe_engine_options;
struct vibe_error;
struct vibe_request;
struct vibe_trace;

struct vibe_cli {
    const struct vibe_options *options; /* borrowed */
    struct vibe_log log;
    struct vibe_trace *trace; /* of --trace, or NULL */
    size_t n_dialogues;       /* that an engine makes room for; 0: one */
    const struct vibe_request *requests; /* [n_requests] that it is opened for,
                                            borrowed; may be NULL */
    size_t n_requests;
    const struct vibe_devices *devices; /* borrowed */
    struct vibe_engine *like; /* whose host copy an engine shares, or NULL */
    double start_s;           /* of the program, by vibe_clock_s */
    size_t n_positions;       /* of a dialogue, without requests; 0: unknown */
};

/* What an engine is opened for. */
enum vibe_cli_use {
    VIBE_USE_SPEAK,   /* on the device asked for */
    VIBE_USE_VERIFY,  /* likewise, in float32 unless --dtype says otherwise */
    VIBE_USE_INSPECT, /* on the CPU, whose opening reads no weights, unless
                         --device names another */
};

/* Describe the engine that the options ask for; strings are borrowed. */
enum vibe_exit vibe_cli_engine_options(struct vibe_engine_options *out,
                                       struct vibe_cli *cli,
                                       struct vibe_failure *why);

/* It could not be opened, for this reason. */
enum vibe_exit vibe_cli_fail_engine(const struct vibe_engine_options *wanted,
                                    const struct vibe_error *err,
                                    struct vibe_failure *why);

/*
 * Open the engine that the options describe.
 *
 *   out   set to the engine, or to NULL on failure; vibe_engine_free
 */
enum vibe_exit vibe_cli_open_engine(struct vibe_engine **out,
                                    struct vibe_cli *cli, enum vibe_cli_use use,
                                    struct vibe_failure *why);

/* The dtypes that the options ask for. */
struct vibe_precision vibe_cli_precision(const struct vibe_options *o);

/* The model that the options name, or ./models, or NULL. */
const char *vibe_cli_model(const struct vibe_options *options);

/* Positions of a dialogue that is timed, by --context, --frames, --prompt. */
size_t vibe_cli_positions(const struct vibe_options *options);

#endif /* VIBE_CLI_CLI_H */
