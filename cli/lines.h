/*
 * lines.h - the lines of a file, none longer than they may be.
 */
#ifndef VIBE_CLI_LINES_H
#define VIBE_CLI_LINES_H

#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>

struct vibe_lines {
    FILE *file; /* borrowed */
    size_t max; /* bytes of a line, its end with it */
    char *text; /* the line, a NUL behind it; to be freed at the end */
    size_t capacity;
};

/*
 * Read a line, its end with it, or max + 1 bytes of one that is longer: what
 * has no lines (a device, a recording) ends, too.
 *
 * Returns how many bytes; 0 at the end, or where the file cannot be read on
 * (ferror); -1 where there is no memory.
 */
ssize_t vibe_lines_next(struct vibe_lines *lines);

#endif /* VIBE_CLI_LINES_H */
