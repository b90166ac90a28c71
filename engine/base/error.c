#include "engine/base/error.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Fill msg.  Of a sentence that is too long, by the path in it, the middle is
 * left out: what is wrong stands at the end. */
static void shorten(char *msg, size_t size, const char *whole, size_t n)
{
    static const char gap[] = "...";
    const size_t head = size / 3;
    const size_t tail = size - head - sizeof(gap);

    if (n < size) {
        memcpy(msg, whole, n + 1);
        return;
    }
    memcpy(msg, whole, head);
    memcpy(msg + head, gap, sizeof(gap) - 1);
    memcpy(msg + head + sizeof(gap) - 1, whole + n - tail, tail + 1);
}

int vibe_fail(struct vibe_error *err, int code, const char *fmt, ...)
{
    char whole[PATH_MAX + sizeof(err->msg)];
    va_list ap;
    int n;

    if (!err)
        return code;
    err->code = code;
    va_start(ap, fmt);
    n = vsnprintf(whole, sizeof(whole), fmt, ap);
    va_end(ap);
    if (n >= (int)sizeof(whole))
        n = sizeof(whole) - 1;
    shorten(err->msg, sizeof(err->msg), whole, n < 0 ? 0 : (size_t)n);
    return code;
}
