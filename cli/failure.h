/*
 * failure.h - why a command failed, in a sentence and a status.
 */
#ifndef VIBE_CLI_FAILURE_H
#define VIBE_CLI_FAILURE_H

#include <limits.h>

#include "cli/exit.h"
#include "engine/base/error.h"

struct vibe_cli;

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

/* "no memory for voices" of the host. */
enum vibe_exit vibe_cli_fail_memory(struct vibe_failure *why, const char *what);

/* The GPU cannot be had: "--device cuda:1: only 1 GPU". */
enum vibe_exit vibe_cli_fail_device(struct vibe_failure *why, int index,
                                    const char *reason);

/* Print a failure for people, and for --json. */
void vibe_cli_report(struct vibe_cli *cli, const struct vibe_failure *why);

#endif /* VIBE_CLI_FAILURE_H */
