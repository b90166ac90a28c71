#include "cli/report.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "audio/sink.h"
#include "cli/cli.h"
#include "cli/devices.h"
#include "cli/json.h"
#include "cli/run.h"
#include "engine/base/clock.h"

struct vibe_report {
    json_t *dialogues;
    double open_s, start_s;
    double seconds; /* of speech that this run has made */
    size_t frames;
};

struct vibe_report *vibe_report_open(void)
{
    struct vibe_report *report = calloc(1, sizeof(*report));

    if (!report)
        return NULL;
    report->dialogues = json_array();
    report->open_s = report->start_s = vibe_clock_s();
    return report;
}

void vibe_report_start(struct vibe_report *report)
{
    report->start_s = vibe_clock_s();
}

void vibe_report_free(struct vibe_report *report)
{
    if (!report)
        return;
    json_decref(report->dialogues);
    free(report);
}

void vibe_report_add(struct vibe_report *report, struct json_t *object)
{
    const char *status = json_string_value(json_object_get(object, "status"));

    json_array_append(report->dialogues, object);
    if (!status || strcmp(status, "skipped") == 0)
        return;
    report->seconds += json_number_value(json_object_get(object, "seconds"));
    report->frames += (size_t)json_integer_value(
        json_object_get(object, "frames"));
}

struct json_t *vibe_report_unspoken(const struct vibe_job *job,
                                    const char *status, const char *error,
                                    const struct json_t *before)
{
    json_t *object = before ? json_deep_copy(before) : json_object();

    vibe_json_text(object, "id", job->source->id);
    vibe_json_set_file(object, job->output);
    vibe_json_text(object, "script", job->source->path);
    vibe_json_text(object, "status", status);
    if (error)
        vibe_json_text(object, "error", error);
    return object;
}

struct vibe_report_sum vibe_report_sum(const struct vibe_report *report)
{
    return (struct vibe_report_sum){
        .seconds = report->seconds,
        .wall_s = vibe_clock_s() - report->start_s,
        .frames = report->frames,
    };
}

static json_t *make_totals(const struct vibe_report *report,
                           const struct vibe_run *run)
{
    const struct vibe_report_sum sum = vibe_report_sum(report);
    json_t *totals = json_object();

    vibe_json_count(totals, "done", run->n_done);
    vibe_json_count(totals, "failed", run->n_failed);
    vibe_json_count(totals, "skipped", run->n_skipped);
    vibe_json_number(totals, "seconds", sum.seconds);
    vibe_json_count(totals, "frames", sum.frames);
    vibe_json_number(totals, "open_s", report->start_s - report->open_s);
    vibe_json_number(totals, "wall_s", sum.wall_s);
    vibe_json_number(totals, "rtf", sum.wall_s / sum.seconds);
    vibe_json_number(totals, "frames_per_s", (double)sum.frames / sum.wall_s);
    vibe_json_count(totals, "batch_size", run->n_at_once);
    vibe_json_count(totals, "engines", run->cli->devices->n_replicas);
    vibe_json_count(totals, "peak_vram_bytes", run->vram_peak);
    vibe_json_number(totals, "energy_j",
                     run->energy_j >= 0 ? run->energy_j : NAN);
    return totals;
}

enum vibe_exit vibe_report_write(const struct vibe_report *report,
                                 const struct vibe_run *run, const char *path,
                                 struct vibe_failure *why)
{
    json_t *root = json_object();
    struct vibe_sink *sink = NULL;
    char *text = NULL;
    int rc;

    vibe_json_text(root, "model", vibe_cli_model(run->cli->options));
    vibe_json_text(root, "device", /* none was wanted where all is done */
                   run->info.device[0] ? run->info.device : NULL);
    vibe_json_text(root, "dtype", run->info.dtype);
    json_object_set(root, "dialogues", report->dialogues);
    json_object_set_new(root, "totals", make_totals(report, run));
    text = json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    json_decref(root);
    rc = text ? vibe_sink_open(&sink, path, &why->err)
              : vibe_fail(&why->err, VIBE_E_NOMEM, "%s: out of memory", path);
    if (rc == VIBE_OK) {
        vibe_sink_write(sink, text, strlen(text));
        vibe_sink_write(sink, "\n", 1);
        rc = vibe_sink_commit(sink, &why->err);
    }
    vibe_sink_free(sink);
    free(text);
    return rc == VIBE_OK ? VIBE_EXIT_OK
                         : vibe_cli_fail_by(why, VIBE_EXIT_OUTPUT, path);
}
