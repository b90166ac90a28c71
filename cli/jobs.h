/*
 * jobs.h - what a run is going to do: scripts, their voices, their files.
 *
 * Everything that can be found wrong without a model is found here, before
 * gigabytes of weights are touched.
 */
#ifndef VIBE_CLI_JOBS_H
#define VIBE_CLI_JOBS_H

#include <stddef.h>

#include "audio/writer.h"
#include "cli/cast.h"
#include "cli/exit.h"
#include "engine/vibevoice.h"

struct vibe_cli;
struct vibe_failure;

/* One script. */
struct vibe_job {
    const char *path; /* as given, "-" for stdin; NULL for --text; borrowed */
    const char *name; /* for people: the path, "standard input", "--text" */
    struct vibe_script script; /* owned */
    struct vibe_voice
        *voices; /* [n_voices] owned; the samples are the cast's */
    size_t n_voices;
    char *output;   /* owned; "-" is stdout; NULL when nothing is written */
    int is_skipped; /* the file exists, and that is what was asked for */
};

struct vibe_jobs {
    struct vibe_job *items; /* [n] owned */
    size_t n;
    struct vibe_cast cast;
    struct vibe_writer_options writer;
};

/* How far the jobs are prepared. */
enum vibe_jobs_aim {
    VIBE_JOBS_READ,  /* scripts and voices: nothing is going to be written */
    VIBE_JOBS_PLAN,  /* and names of files, but no folder is made */
    VIBE_JOBS_WRITE, /* and folders */
};

/*
 * Read and check what the options ask for, cheapest first.
 *
 *   out   release with vibe_jobs_release, also after a failure
 */
enum vibe_exit vibe_jobs_open(struct vibe_jobs *out, struct vibe_cli *cli,
                              enum vibe_jobs_aim aim, struct vibe_failure *why);

void vibe_jobs_release(struct vibe_jobs *jobs);

/* Make a folder and those above it.  Errors: VIBE_E_IO */
int vibe_make_folder(const char *path, struct vibe_error *err);

#endif /* VIBE_CLI_JOBS_H */
