/*
 * jobs.h - what a run is going to do: scripts, their voices, their files.
 *
 * Everything that can be found wrong without a model is found here, before
 * gigabytes of weights are touched.  In a batch a script or voice that is no
 * good is a problem of its jobs alone; everywhere else, and whatever is wrong
 * with the batch as such, it is a failure of the run.
 */
#ifndef VIBE_CLI_JOBS_H
#define VIBE_CLI_JOBS_H

#include <stddef.h>
#include <stdint.h>

#include "audio/writer.h"
#include "cli/cast.h"
#include "cli/exit.h"
#include "cli/manifest.h"
#include "engine/vibevoice.h"

struct vibe_cli;
struct vibe_failure;
struct vibe_options;

/* A script and who speaks it. */
struct vibe_source {
    const char *id;   /* fit for a file name; owned by stem or the manifest */
    const char *path; /* as given, "-" for stdin; NULL for a text; borrowed */
    const char *text; /* borrowed; NULL for a path */
    const char *name; /* for people: the path, "standard input", "--text" */
    const struct vibe_entry *entry; /* of the manifest, or NULL; borrowed */
    char *stem;                     /* of the path; owned */
    struct vibe_script script;      /* owned */
    struct vibe_cast *cast;         /* borrowed, or owned where the entry has
                                       voices of its own */
    struct vibe_voice *voices;      /* [n_voices] owned; the samples are the
                                       recordings' */
    size_t n_voices;
    char *problem; /* why it cannot be spoken; owned; NULL: it can */
};

/* A file to make. */
struct vibe_job {
    struct vibe_source *source; /* borrowed */
    size_t index;               /* in the whole batch, from 0 */
    int take;                   /* from 1 */
    uint64_t seed;
    double cfg_scale;
    int64_t steps;
    char *output;   /* owned; "-" is stdout; NULL when nothing is written */
    int is_skipped; /* it is done, and was not to be done again */
};

struct vibe_jobs {
    struct vibe_source *sources; /* [n_sources] owned */
    size_t n_sources;
    struct vibe_job *items; /* [n] owned, those with fewer steps first */
    size_t n;
    struct vibe_manifest manifest; /* of a batch, or empty */
    struct vibe_words named;       /* recordings of --speaker-names; owned */
    struct vibe_cast cast;         /* of the options */
    struct vibe_recordings recordings;
    struct vibe_writer_options writer;
    int is_batch;
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
 *   out    release with vibe_jobs_release, also after a failure
 *   seed   of the first take, unless a manifest says otherwise
 */
enum vibe_exit vibe_jobs_open(struct vibe_jobs *out, struct vibe_cli *cli,
                              enum vibe_jobs_aim aim, uint64_t seed,
                              struct vibe_failure *why);

void vibe_jobs_release(struct vibe_jobs *jobs);

#endif /* VIBE_CLI_JOBS_H */
