#include "engine/base/error.h"

#include <stdarg.h>
#include <stdio.h>

int vibe_fail(struct vibe_error *err, int code, const char *fmt, ...)
{
    va_list ap;

    if (!err)
        return code;
    err->code = code;
    va_start(ap, fmt);
    vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
    va_end(ap);
    return code;
}
