/*
 * scratch.h - a folder of its own for each test, and looking at files in it.
 */
#ifndef VIBE_TEST_SCRATCH_H
#define VIBE_TEST_SCRATCH_H

#include <stdbool.h>
#include <stddef.h>

struct vibe_scratch {
    char folder[64];
    char start[512]; /* working directory before the test */
};

/* Make an empty folder and go there; for setup().  Returns 0 or -1. */
int vibe_scratch_enter(struct vibe_scratch *scratch);

/* Go back and delete the folder with all in it; for teardown(). */
int vibe_scratch_leave(struct vibe_scratch *scratch);

/* Whether there is anything called path, be it a link that leads nowhere. */
bool vibe_file_exists(const char *path);

/* Files in the working directory that are not hidden. */
int vibe_file_count(void);

/* Read a file of fewer than capacity bytes; returns how many it holds. */
size_t vibe_file_read(const char *path, void *out, size_t capacity);

void vibe_file_write(const char *path, const void *data, size_t n);

/* Make fd the standard output; returns what vibe_stdout_restore needs. */
int vibe_stdout_redirect(int fd);
void vibe_stdout_restore(int saved);

#endif /* VIBE_TEST_SCRATCH_H */
