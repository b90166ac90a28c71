/*
 * report.h - what became of a run, for --report and to sum up.
 */
#ifndef VIBE_CLI_REPORT_H
#define VIBE_CLI_REPORT_H

#include <stddef.h>

#include "cli/exit.h"

struct json_t;
struct vibe_failure;
struct vibe_job;
struct vibe_report;
struct vibe_run;

/* Start one; NULL without memory.  Free with vibe_report_free. */
struct vibe_report *vibe_report_open(void);
void vibe_report_free(struct vibe_report *report);

/* The engines are open: from now on something is spoken. */
void vibe_report_start(struct vibe_report *report);

/* Add the object of a take that has ended; borrowed. */
void vibe_report_add(struct vibe_report *report, struct json_t *object);

/* The object of a job that was not spoken: "failed" with the error, or
 * "skipped" with what is known of it from before (or NULL). */
struct json_t *vibe_report_unspoken(const struct vibe_job *job,
                                    const char *status, const char *error,
                                    const struct json_t *before);

/* What was spoken so far, and how long that took. */
struct vibe_report_sum {
    double seconds; /* of speech */
    double wall_s;
    size_t frames;
};

struct vibe_report_sum vibe_report_sum(const struct vibe_report *report);

/* Write the report of a run to a file, whole or not at all. */
enum vibe_exit vibe_report_write(const struct vibe_report *report,
                                 const struct vibe_run *run, const char *path,
                                 struct vibe_failure *why);

#endif /* VIBE_CLI_REPORT_H */
