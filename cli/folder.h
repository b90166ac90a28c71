/*
 * folder.h - folders of files that are to be made.
 */
#ifndef VIBE_CLI_FOLDER_H
#define VIBE_CLI_FOLDER_H

struct vibe_error;

/* Make a folder and those above it.  Errors: VIBE_E_IO, VIBE_E_NOMEM */
int vibe_folder_make(const char *path, struct vibe_error *err);

/* The part of a path before its last slash, or "."; owned, NULL without
 * memory. */
char *vibe_folder_of(const char *path);

/* Where a file is to be: the same for two paths that spell one place, also
 * through links and folders that are yet to be made.  Owned, NULL without
 * memory. */
char *vibe_folder_place(const char *path);

/* A pattern of glob()'s that matches that path alone, whose own '*' are no
 * wildcards; owned, NULL without memory. */
char *vibe_folder_pattern(const char *path);

#endif /* VIBE_CLI_FOLDER_H */
