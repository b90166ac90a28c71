#include "cli/progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/log.h"
#include "engine/base/clock.h"

enum { LINE_MAX_LENGTH = 256 };

static const double bar_interval_s = 0.1;
static const double line_interval_s = 10.0;

const char *vibe_progress_time(double seconds, char *buf, size_t size)
{
    long whole = (long)(seconds + 0.5);

    if (seconds < 59.95)
        snprintf(buf, size, "%.1f s", seconds);
    else if (whole < 3600)
        snprintf(buf, size, "%ld:%02ld", whole / 60, whole % 60);
    else
        snprintf(buf, size, "%ld:%02ld:%02ld", whole / 3600, whole / 60 % 60,
                 whole % 60);
    return buf;
}

enum vibe_progress_mode vibe_progress_choose(enum vibe_progress_mode asked,
                                             int is_quiet)
{
    if (asked != VIBE_PROGRESS_AUTO)
        return asked;
    if (is_quiet)
        return VIBE_PROGRESS_NONE;
    return vibe_log_is_terminal(stderr) ? VIBE_PROGRESS_BAR
                                        : VIBE_PROGRESS_PLAIN;
}

void vibe_progress_start(struct vibe_progress *progress, const char *name,
                         size_t index)
{
    progress->name = name;
    progress->index = index;
    progress->samples = 0;
    progress->frames = 0;
    progress->cap_s = 0;
    progress->start_s = vibe_clock_s();
    progress->printed_s = progress->start_s;
}

/* "2/3 " when there are several scripts, else "". */
static const char *write_count(const struct vibe_progress *p, char *buf,
                               size_t size)
{
    buf[0] = '\0';
    if (p->count > 1)
        snprintf(buf, size, "%zu/%zu ", p->index, p->count);
    return buf;
}

/* "2/3 b.txt: 12.4 s spoken, 7.1 frames/s, 0.95 x real time, ...". */
static void write_line(const struct vibe_progress *p, double now, char *line,
                       size_t size)
{
    double wall = now - p->start_s;
    double seconds = (double)p->samples / p->hz;
    double speed = wall > 0 ? seconds / wall : 0;
    char count[64], made[32], left[32], cap[96] = "";

    /* The model ends when it has read all; only the cap is known before. */
    if (p->cap_s > 0 && speed > 0)
        snprintf(cap, sizeof(cap), ", at most %s more",
                 vibe_progress_time((p->cap_s - seconds) / speed, left,
                                    sizeof(left)));
    snprintf(line, size, "%s%s: %s spoken, %.1f frames/s, %.2f x real time%s",
             write_count(p, count, sizeof(count)), p->name,
             vibe_progress_time(seconds, made, sizeof(made)),
             wall > 0 ? (double)p->frames / wall : 0, speed, cap);
}

/* Put a line where the last one was, as far as it fits. */
static void draw_bar(struct vibe_progress *p, const char *line)
{
    struct winsize window;
    int width = 80;

    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 1)
        width = window.ws_col;
    fprintf(p->log->out, "\r%.*s\033[K", width - 1, line);
    fflush(p->log->out);
    p->log->has_bar = 1;
}

static void print_json(const struct vibe_progress *p, double now)
{
    fprintf(p->log->out,
            "{\"progress\":{\"index\":%zu,\"count\":%zu,\"frames\":%zu,"
            "\"seconds\":%.3f,\"wall_s\":%.3f}}\n",
            p->index, p->count, p->frames, (double)p->samples / p->hz,
            now - p->start_s);
    fflush(p->log->out);
}

void vibe_progress_prompt(struct vibe_progress *progress, size_t n_tokens,
                          double max_s)
{
    char line[LINE_MAX_LENGTH], count[64];

    progress->cap_s = max_s;
    if (progress->mode != VIBE_PROGRESS_BAR)
        return;
    snprintf(line, sizeof(line), "%s%s: reading %zu tokens of prompt",
             write_count(progress, count, sizeof(count)), progress->name,
             n_tokens);
    draw_bar(progress, line);
}

void vibe_progress_frame(struct vibe_progress *progress, size_t n)
{
    double interval = progress->mode == VIBE_PROGRESS_BAR    ? bar_interval_s
                      : progress->mode == VIBE_PROGRESS_JSON ? 1.0
                                                             : line_interval_s;
    double now = vibe_clock_s();
    char line[LINE_MAX_LENGTH];

    progress->samples += n;
    progress->frames++;
    if (progress->mode == VIBE_PROGRESS_NONE ||
        now - progress->printed_s < interval)
        return;
    progress->printed_s = now;
    if (progress->mode == VIBE_PROGRESS_BAR) {
        write_line(progress, now, line, sizeof(line));
        draw_bar(progress, line);
    } else if (progress->mode == VIBE_PROGRESS_JSON) {
        print_json(progress, now);
    } else {
        write_line(progress, now, line, sizeof(line));
        vibe_log(progress->log, VIBE_LOG_INFO, "%s", line);
    }
}

void vibe_progress_end(struct vibe_progress *progress)
{
    if (progress->mode == VIBE_PROGRESS_JSON)
        print_json(progress, vibe_clock_s());
    vibe_log_clear_bar(progress->log);
}
