/*
 * take.h - one file of a run, while it is spoken.
 *
 * A long script may be spoken in parts (chunks.h).  Each is then a file of its
 * own, with a name that a digest of the job is part of, until the last one is
 * there and all become the file that was asked for.
 */
#ifndef VIBE_CLI_TAKE_H
#define VIBE_CLI_TAKE_H

#include <stddef.h>

#include "audio/level.h"
#include "cli/chunks.h"
#include "cli/cli.h"
#include "cli/jobs.h"
#include "engine/vibevoice.h"

struct json_t;
struct vibe_run;
struct vibe_writer;

/* How a part ended. */
enum vibe_take_outcome {
    VIBE_TAKE_GOES_ON, /* there is another part */
    VIBE_TAKE_DONE,
    VIBE_TAKE_FAILED, /* why says it */
    VIBE_TAKE_INTERRUPTED,
};

struct vibe_take {
    struct vibe_run *run;       /* borrowed */
    const struct vibe_job *job; /* borrowed */
    struct vibe_chunks chunks;
    size_t chunk;               /* that is being spoken */
    struct vibe_script part;    /* what it says */
    struct vibe_writer *writer; /* opened by the first frame */
    struct vibe_meter meter;
    struct vibe_result result;      /* of all parts so far */
    enum vibe_take_outcome outcome; /* of the part that ended last */
    struct vibe_failure why;        /* why it failed */
    struct vibe_error unfinished;   /* why a part before has no file */
    struct json_t *warnings;
    double start_s;
    double first_s; /* of the run's first sample, since the program's start; 0:
                       another file has it */
    size_t max_frames; /* what the options allow, 0: no cap */
    char digest[17];   /* of the job */
};

/*
 * Begin a take; with --resume after the parts that an earlier run has
 * finished.
 *
 *   out   set to it, or to NULL on failure; vibe_take_free
 */
enum vibe_exit vibe_take_open(struct vibe_take **out, struct vibe_run *run,
                              const struct vibe_job *job,
                              struct vibe_failure *why);
void vibe_take_free(struct vibe_take *take);

/* What is to be asked of an engine next; what it points to is the take's. */
void vibe_take_request(struct vibe_take *take, struct vibe_request *out);

/*
 * Add up what came of a part.  Files stay open: disks are slow, and others
 * speak.  vibe_take_next_part is to follow where the take goes on, else
 * vibe_take_close.
 */
enum vibe_take_outcome vibe_take_end(struct vibe_take *take,
                                     const struct vibe_result *result,
                                     const struct vibe_error *err);

/* Go on with the next part.  Returns what has written the last one, for
 * vibe_take_close_part; NULL where one file has all of them. */
struct vibe_writer *vibe_take_next_part(struct vibe_take *take);

/*
 * Have the file of a part on disk, in another thread than the one that speaks
 * the next part, if you like; of a take's parts in their order, and before
 * vibe_take_close, which tells of errors.
 *
 *   writer   taken; NULL: nothing to do
 */
void vibe_take_close_part(struct vibe_take *take, struct vibe_writer *writer);

/* Have the file of a take that has ended on disk as it ended, and warn of what
 * is odd about it.  Returns how it ended after all: a disk may be full. */
enum vibe_take_outcome vibe_take_close(struct vibe_take *take);

double vibe_take_seconds(const struct vibe_take *take);

/* What messages call its file: "-" is "standard output". */
const char *vibe_take_file(const struct vibe_take *take);

/* The JSON object of a take that has ended; to be released. */
struct json_t *vibe_take_object(const struct vibe_take *take, const char *file,
                                const char *status);

#endif /* VIBE_CLI_TAKE_H */
