#include "cli/lines.h"

#include <stdlib.h>

ssize_t vibe_lines_next(struct vibe_lines *lines)
{
    size_t n = 0;
    int c = 0;

    while (c != '\n' && n <= lines->max &&
           (c = getc_unlocked(lines->file)) != EOF) {
        if (n + 1 >= lines->capacity) {
            const size_t more = lines->capacity ? 2 * lines->capacity : 1024;
            char *grown = realloc(lines->text, more);

            if (!grown)
                return -1;
            lines->text = grown;
            lines->capacity = more;
        }
        lines->text[n++] = (char)c;
    }
    if (n > 0)
        lines->text[n] = '\0';
    return (ssize_t)n;
}
