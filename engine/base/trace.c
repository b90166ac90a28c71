#include "engine/base/trace.h"

#include <assert.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/clock.h"
#include "engine/base/error.h"
#include "engine/base/whole_file.h"

struct event {
    const char *name;
    int64_t at_ns;  /* since the start */
    uint64_t value; /* of a span its length in ns, of a counter its value */
    enum vibe_track track;
    int is_counter;
};

struct vibe_trace {
    pthread_mutex_t lock;
    double start_s;
    size_t capacity;
    size_t n; /* ever added; event i is events[i % capacity] */
    struct vibe_whole_file out;
    struct event events[];
};

static const char *const track_names[VIBE_N_TRACKS] = {
    [VIBE_TRACK_HOST] = "host",
    [VIBE_TRACK_COMPUTE] = "compute",
    [VIBE_TRACK_COPY] = "copy",
};

int vibe_trace_open(struct vibe_trace **out, const char *path, size_t capacity,
                    struct vibe_error *err)
{
    struct vibe_trace *trace = NULL;
    int rc;

    *out = NULL;
    if (capacity < SIZE_MAX / sizeof(trace->events[0]) - 1)
        trace = calloc(1, sizeof(*trace) + capacity * sizeof(trace->events[0]));
    if (!trace)
        return vibe_fail(err, VIBE_E_NOMEM,
                         "no memory for a timeline of %zu events", capacity);
    pthread_mutex_init(&trace->lock, NULL);
    trace->start_s = vibe_clock_s();
    trace->capacity = capacity;
    rc = vibe_whole_file_init(&trace->out, path, err);
    if (rc == VIBE_OK)
        *out = trace;
    else
        vibe_trace_free(trace);
    return rc;
}

void vibe_trace_free(struct vibe_trace *trace)
{
    if (!trace)
        return;
    vibe_whole_file_release(&trace->out);
    pthread_mutex_destroy(&trace->lock);
    free(trace);
}

static void add(struct vibe_trace *trace, const struct event *event)
{
    pthread_mutex_lock(&trace->lock);
    trace->events[trace->n++ % trace->capacity] = *event;
    pthread_mutex_unlock(&trace->lock);
}

void vibe_trace_span(struct vibe_trace *trace, enum vibe_track track,
                     const char *name, double begin_s, double end_s)
{
    if (!trace)
        return;
    add(trace,
        &(struct event){
            .name = name,
            .at_ns = (int64_t)(1e9 * (begin_s - trace->start_s)),
            .value = end_s > begin_s ? (uint64_t)(1e9 * (end_s - begin_s)) : 0,
            .track = track,
        });
}

void vibe_trace_counter(struct vibe_trace *trace, const char *name, double at_s,
                        size_t value)
{
    if (!trace)
        return;
    add(trace, &(struct event){
                   .name = name,
                   .at_ns = (int64_t)(1e9 * (at_s - trace->start_s)),
                   .value = value,
                   .is_counter = 1,
               });
}

/* Names of the tracks, in our order. */
static void write_names(FILE *file)
{
    fputs("{\"ph\":\"M\",\"pid\":1,\"name\":\"process_name\","
          "\"args\":{\"name\":\"vibevoice\"}}",
          file);
    for (int i = 0; i < VIBE_N_TRACKS; i++) {
        fprintf(file,
                ",\n{\"ph\":\"M\",\"pid\":1,\"tid\":%d,"
                "\"name\":\"thread_name\",\"args\":{\"name\":\"%s\"}}",
                i + 1, track_names[i]);
        fprintf(file,
                ",\n{\"ph\":\"M\",\"pid\":1,\"tid\":%d,"
                "\"name\":\"thread_sort_index\",\"args\":{\"sort_index\":%d}}",
                i + 1, i);
    }
}

/* "12.345" microseconds: no locale's comma gets between. */
static void write_us(FILE *file, const char *key, int64_t ns)
{
    fprintf(file, ",\"%s\":%s%lld.%03lld", key, ns < 0 ? "-" : "",
            llabs((long long)ns) / 1000, llabs((long long)ns) % 1000);
}

static void write_event(FILE *file, const struct event *event)
{
    fprintf(file, ",\n{\"ph\":\"%c\",\"pid\":1,\"name\":\"%s\"",
            event->is_counter ? 'C' : 'X', event->name);
    write_us(file, "ts", event->at_ns);
    if (event->is_counter) {
        fprintf(file, ",\"args\":{\"value\":%llu}}",
                (unsigned long long)event->value);
        return;
    }
    write_us(file, "dur", (int64_t)event->value);
    fprintf(file, ",\"tid\":%d}", (int)event->track + 1);
}

static void write_all(FILE *file, const struct vibe_trace *trace)
{
    const size_t first = trace->n > trace->capacity ? trace->n - trace->capacity
                                                    : 0;

    fputs("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n", file);
    write_names(file);
    for (size_t i = first; i < trace->n; i++)
        write_event(file, &trace->events[i % trace->capacity]);
    fprintf(file, "\n],\"otherData\":{\"forgotten_events\":%zu}}\n", first);
}

int vibe_trace_write(struct vibe_trace *trace, struct vibe_error *err)
{
    assert(trace->out.file);
    pthread_mutex_lock(&trace->lock);
    write_all(trace->out.file, trace);
    pthread_mutex_unlock(&trace->lock);
    return vibe_whole_file_commit(&trace->out, err);
}
