#include "cli/log.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int vibe_log_is_terminal(FILE *out)
{
    const char *term = getenv("TERM");

    return isatty(fileno(out)) && term && strcmp(term, "dumb") != 0;
}

void vibe_log_clear_bar(struct vibe_log *log)
{
    if (!log->has_bar)
        return;
    fputs("\r\033[K", log->out);
    log->has_bar = 0;
}

/* What stands before the sentence, with and without colour. */
static const char *prefix_of(enum vibe_log_level level, int has_color)
{
    switch (level) {
    case VIBE_LOG_ERROR:
        return has_color ? "vibevoice: \033[31m" : "vibevoice: ";
    case VIBE_LOG_WARN:
        return has_color ? "vibevoice: \033[33mwarning:\033[0m "
                         : "vibevoice: warning: ";
    case VIBE_LOG_INFO:
    case VIBE_LOG_DEBUG:
    case VIBE_LOG_TRACE:
        return "vibevoice: ";
    }
    return "";
}

void vibe_log(struct vibe_log *log, enum vibe_log_level level, const char *fmt,
              ...)
{
    va_list ap;

    if (level > log->level)
        return;
    vibe_log_clear_bar(log);
    fputs(prefix_of(level, log->has_color), log->out);
    va_start(ap, fmt);
    vfprintf(log->out, fmt, ap);
    va_end(ap);
    fputs(level == VIBE_LOG_ERROR && log->has_color ? "\033[0m\n" : "\n",
          log->out);
    fflush(log->out);
}
