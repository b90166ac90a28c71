#include "engine/text/read_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/error.h"

enum { FIRST_CAP = 1 << 16 };

/* Double the buffer, but never past max bytes and a terminator. */
static int grow(char **bytes, size_t *cap, size_t max)
{
    size_t want = *cap ? 2 * *cap : FIRST_CAP;
    char *grown;

    if (want > max + 1)
        want = max + 1;
    grown = realloc(*bytes, want);
    if (!grown)
        return 1;
    *bytes = grown;
    *cap = want;
    return 0;
}

/* Read to the end of the file; it is then at EOF, in error, or too long. */
static int read_all(char **out, size_t *n_out, FILE *file, size_t max)
{
    char *bytes = NULL;
    size_t n = 0, cap = 0, got;

    do {
        if (n + 1 >= cap && grow(&bytes, &cap, max)) {
            free(bytes);
            return VIBE_E_NOMEM;
        }
        got = fread(bytes + n, 1, cap - 1 - n, file);
        n += got;
    } while (got > 0 && n < max);

    bytes[n] = '\0';
    *out = bytes;
    *n_out = n;
    return VIBE_OK;
}

int vibe_read_file(char **out, size_t *n, const char *path, size_t max,
                   struct vibe_error *err)
{
    const char *name = strcmp(path, "-") == 0 ? "standard input" : path;
    FILE *file = NULL;
    char *bytes = NULL;
    int rc = 0;

    *out = NULL;
    *n = 0;
    file = name == path ? fopen(path, "rb") : stdin;
    if (!file)
        return vibe_fail(err, VIBE_E_IO, "%s: %s", name, strerror(errno));

    errno = 0;
    rc = read_all(&bytes, n, file, max);
    if (rc) {
        rc = vibe_fail(err, rc, "%s: no memory to read it", name);
        goto out;
    }
    if (ferror(file)) {
        rc = vibe_fail(err, VIBE_E_IO, "%s: %s", name, strerror(errno));
        goto out;
    }
    if (*n == max && fgetc(file) != EOF) {
        rc = vibe_fail(err, VIBE_E_FORMAT,
                       "%s: more than %zu bytes, the most such a file may have",
                       name, max);
        goto out;
    }

    *out = bytes;
    bytes = NULL; /* now owned by *out */

out:
    free(bytes);
    if (rc)
        *n = 0;
    if (file != stdin)
        fclose(file);
    return rc;
}
