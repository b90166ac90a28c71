/*
 * cli.h - what the commands share: options, messages, failures, the engine.
 */
#ifndef VIBE_CLI_CLI_H
#define VIBE_CLI_CLI_H

#include <limits.h>
#include <stdio.h>

#include "cli/exit.h"
#include "cli/log.h"
#include "cli/options.h"
#include "engine/base/error.h"

struct vibe_devices;
struct vibe_engine;
struct vibe_engine_options;
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
    size_t n_positions;       /* of a dialogue, without requests; 0: unknown */
};

/*
 * Why a command failed.  A command returns the status and leaves the sentence
 * here; main() prints it, so that it is said once and in one form.  A status
 * with an empty sentence has been explained already.
 */
struct vibe_failure {
    enum vibe_exit status;
    struct vibe_error err;
    char file[PATH_MAX]; /* what it is about, for --json; or empty */
};

/*
 * Fill why and return status: "return vibe_cli_fail(why, ...)".
 *
 *   file   copied; may be NULL
 */
enum vibe_exit vibe_cli_fail(struct vibe_failure *why, enum vibe_exit status,
                             const char *file, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/*
 * Fill the status of a failure whose sentence an engine call has left in
 * why->err.
 *
 *   io  as for vibe_exit_of
 */
enum vibe_exit vibe_cli_fail_by(struct vibe_failure *why, enum vibe_exit io,
                                const char *file);

/* The GPU cannot be had: "--device cuda:1: only 1 GPU". */
enum vibe_exit vibe_cli_fail_device(struct vibe_failure *why, int index,
                                    const char *reason);

/* Print a failure for people, and for --json. */
void vibe_cli_report(struct vibe_cli *cli, const struct vibe_failure *why);

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
