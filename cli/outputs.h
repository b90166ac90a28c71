/*
 * outputs.h - the names of the files of a run, and whether they can be made.
 */
#ifndef VIBE_CLI_OUTPUTS_H
#define VIBE_CLI_OUTPUTS_H

#include "cli/exit.h"
#include "cli/jobs.h"

struct vibe_options;

enum { VIBE_OUTPUTS_FIELD = 128 }; /* bytes; see vibe_outputs_field */

/*
 * Name every job's file.  In a name, {id}, {stem}, {seed}, {take} and {index}
 * stand for what they say, an id and a stem being the script's file name
 * without its extension where nothing else is said.  Several takes get ".sSEED"
 * before the extension where a name tells them not apart.
 *
 * Fails if two names are the same file's.
 */
enum vibe_exit vibe_outputs_name(struct vibe_jobs *jobs,
                                 const struct vibe_options *options,
                                 struct vibe_failure *why);

/* What names a job's file, for messages: "jobs.jsonl:7: "output"", or the
 * option. */
void vibe_outputs_field(char out[VIBE_OUTPUTS_FIELD],
                        const struct vibe_job *job);

/*
 * Can every file be written?  Marks the jobs whose file is there already and
 * shall stay.  Nothing is created but, with VIBE_JOBS_WRITE, folders.
 */
enum vibe_exit vibe_outputs_check(struct vibe_jobs *jobs, struct vibe_cli *cli,
                                  enum vibe_jobs_aim aim,
                                  struct vibe_failure *why);

/* The folder where a batch keeps its state: of --output as far as it is the
 * same for all, or --output-dir.  Owned; NULL without memory. */
char *vibe_outputs_folder(const struct vibe_options *options);

#endif /* VIBE_CLI_OUTPUTS_H */
