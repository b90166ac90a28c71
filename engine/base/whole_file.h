/*
 * whole_file.h - a file that has its name only once it is whole.
 *
 * It grows as PATH.part beside its place and is renamed at the end; a link to
 * a file stays a link.  What is no plain file (a pipe, /dev/null) is written
 * as it comes, since a rename would put a plain file in its place.
 */
#ifndef VIBE_BASE_WHOLE_FILE_H
#define VIBE_BASE_WHOLE_FILE_H

#include <stdio.h>

struct vibe_error;

struct vibe_whole_file {
    FILE *file;  /* to write to, from init to commit or release; or NULL */
    char *path;  /* as it was asked for, for messages; owned */
    char *final; /* what is renamed to, NULL with part; owned */
    char *part;  /* owned, NULL of what is no plain file */
};

/*
 * Begin to write path; release it whatever this returns.
 *
 *   path   copied
 *
 * Errors: VIBE_E_IO, VIBE_E_NOMEM
 */
int vibe_whole_file_init(struct vibe_whole_file *w, const char *path,
                         struct vibe_error *err);

/*
 * Bring what was written to the disk and give it its name; file is NULL then.
 *
 * Errors: VIBE_E_IO, also if an earlier write failed; path is as it was, and
 *         nothing is left beside it
 */
int vibe_whole_file_commit(struct vibe_whole_file *w, struct vibe_error *err);

/* Remove what was not committed; of {0}: nothing. */
void vibe_whole_file_release(struct vibe_whole_file *w);

#endif /* VIBE_BASE_WHOLE_FILE_H */
