#include "cli/log.h"

#include <ctype.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE_BYTES = 2 * PATH_MAX };

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

/* Names in a message are those of strangers' files: none may move the cursor
 * or begin a line of its own.  U+0080 to U+009F are controls, too. */
static void hide_controls(char *line)
{
    for (unsigned char *c = (unsigned char *)line; *c; c++) {
        if (c[0] == 0xC2 && c[1] >= 0x80 && c[1] < 0xA0)
            c[0] = c[1] = '?';
        else if (iscntrl(*c))
            *c = '?';
    }
}

/* "2026-11-21 16:53:07 info: ...". */
static void write_file(FILE *file, enum vibe_log_level level, const char *line)
{
    const time_t now = time(NULL);
    char stamp[32] = "";
    struct tm tm;

    if (localtime_r(&now, &tm))
        strftime(stamp, sizeof(stamp), "%Y-%m-%d %H:%M:%S", &tm);
    fprintf(file, "%s %s: %s\n", stamp, name_of(level), line);
    fflush(file); /* what was said before a crash is what matters */
}

static void write_screen(struct vibe_log *log, enum vibe_log_level level,
                         const char *line)
{
    const int ends_color = level == VIBE_LOG_ERROR && log->has_color;

    vibe_log_clear_bar(log);
    fprintf(log->out, "%s%s%s\n", prefix_of(level, log->has_color), line,
            ends_color ? "\033[0m" : "");
    fflush(log->out);
}

void vibe_log(struct vibe_log *log, enum vibe_log_level level, const char *fmt,
              ...)
{
    char line[LINE_BYTES]; /* also there when there is no memory */
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    hide_controls(line);
    if (log->file && level <= VIBE_LOG_DEBUG)
        write_file(log->file, level, line);
    if (level <= log->level)
        write_screen(log, level, line);
}
