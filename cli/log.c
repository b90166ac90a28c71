#include "cli/log.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
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

static const char *name_of(enum vibe_log_level level)
{
    switch (level) {
    case VIBE_LOG_ERROR:
        return "error";
    case VIBE_LOG_WARN:
        return "warning";
    case VIBE_LOG_INFO:
        return "info";
    case VIBE_LOG_DEBUG:
    case VIBE_LOG_TRACE:
        return "debug";
    }
    return "";
}

/* "2026-11-21 16:53:07 info: ...". */
static void write_file(FILE *file, enum vibe_log_level level, const char *fmt,
                       va_list ap)
{
    const time_t now = time(NULL);
    char stamp[32] = "";
    struct tm tm;

    if (localtime_r(&now, &tm))
        strftime(stamp, sizeof(stamp), "%Y-%m-%d %H:%M:%S", &tm);
    fprintf(file, "%s %s: ", stamp, name_of(level));
    vfprintf(file, fmt, ap);
    fputc('\n', file);
    fflush(file); /* what was said before a crash is what matters */
}

static void write_screen(struct vibe_log *log, enum vibe_log_level level,
                         const char *fmt, va_list ap)
{
    vibe_log_clear_bar(log);
    fputs(prefix_of(level, log->has_color), log->out);
    vfprintf(log->out, fmt, ap);
    fputs(level == VIBE_LOG_ERROR && log->has_color ? "\033[0m\n" : "\n",
          log->out);
    fflush(log->out);
}

void vibe_log(struct vibe_log *log, enum vibe_log_level level, const char *fmt,
              ...)
{
    va_list ap;

    if (log->file && level <= VIBE_LOG_DEBUG) {
        va_start(ap, fmt);
        write_file(log->file, level, fmt, ap);
        va_end(ap);
    }
    if (level > log->level)
        return;
    va_start(ap, fmt);
    write_screen(log, level, fmt, ap);
    va_end(ap);
}
