/*
 * read_file.h - a whole text file, or standard input, in memory.
 */
#ifndef VIBE_TEXT_READ_FILE_H
#define VIBE_TEXT_READ_FILE_H

#include <stddef.h>

struct vibe_error;

/*
 * Read all of a file that may have at most max bytes.  Blocks.
 *
 *   out      set to the bytes and a terminating 0, owned by the caller, to be
 *            freed with free(); NULL on error
 *   n        set to the number of bytes without the 0
 *   path     "-" for standard input
 *
 * Errors: VIBE_E_IO      cannot be opened or read; msg has errno's text
 *         VIBE_E_FORMAT  more than max bytes
 *         VIBE_E_NOMEM
 */
int vibe_read_file(char **out, size_t *n, const char *path, size_t max,
                   struct vibe_error *err);

#endif /* VIBE_TEXT_READ_FILE_H */
