#include "cli/stats.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/json.h"
#include "cli/residency.h"
#include "engine/vibevoice.h"

static double megabytes(size_t bytes)
{
    return (double)bytes / (1 << 20);
}

/* Share of the time in which the link was copying, at the rate it has. */
static double link_busy(const struct vibe_engine_stats *s, double seconds)
{
    return s->link > 0 && seconds > 0 ? (double)s->bytes / s->link / seconds
                                      : 0;
}

/* Share of the time in which something was computed that the link was copying
 * beside it. */
static double overlap(const struct vibe_engine_stats *s, double seconds)
{
    const double computed_s = seconds - s->device_waited_s;
    const double copied_s = link_busy(s, seconds) * seconds;
    double share;

    if (s->link <= 0 || computed_s <= 0 || copied_s < s->device_waited_s)
        return 0;
    share = (copied_s - s->device_waited_s) / computed_s;
    return share < 1 ? share : 1;
}

static void print_layers(FILE *out, const struct vibe_engine *engine, size_t n)
{
    fprintf(out, "  layer   resident   streamed  transfers    waiting\n");
    for (size_t i = 0; i < n; i++) {
        struct vibe_layer_stats layer;

        vibe_engine_layer_stats(engine, i, &layer);
        fprintf(out, "  %5zu %6.1f MiB %6.1f MiB %10" PRIu64 " %8.3f s\n", i,
                megabytes(layer.resident_bytes),
                megabytes(layer.streamed_bytes), layer.transfers,
                layer.device_waited_s);
    }
}

static void print_share(FILE *out, const struct vibe_engine *engine)
{
    struct vibe_cpu_share share;

    vibe_engine_cpu_share(engine, &share);
    if (share.bytes)
        fprintf(out, "cpu      %.1f MiB multiplied by the CPU in each frame\n",
                megabytes(share.bytes));
}

static void print_text(FILE *out, const struct vibe_engine_stats *s,
                       const struct vibe_engine *engine, double seconds)
{
    fprintf(out, "layers   %.1f of %zu resident, %.0f MiB; %.0f MiB streamed",
            s->gpu_layers, s->n_layers, megabytes(s->resident_bytes),
            megabytes(s->streamed_bytes));
    fprintf(out, s->streamed_bytes ? " in %zu chunks (%s)\n" : "\n",
            s->n_chunks, s->path);
    if (s->streamed_bytes) {
        fprintf(out, "link     %" PRIu64 " transfers, %.2f GB at %.1f GB/s",
                s->transfers, 1e-9 * (double)s->bytes,
                seconds > 0 ? 1e-9 * (double)s->bytes / seconds : 0);
        if (s->link > 0)
            fprintf(out,
                    "; the link has %.1f GB/s and was copying %.0f %% of the "
                    "time",
                    1e-9 * s->link, 100 * link_busy(s, seconds));
        putc('\n', out);
        print_share(out, engine);
        if (s->frame_s > 0)
            fprintf(out, "way      %s: a frame takes %.1f ms at least\n",
                    vibe_residency_way(s->path), 1e3 * s->frame_s);
        fprintf(
            out,
            "waiting  %.3f s of the device for copies, which went on beside "
            "%.0f %% of its work; %.3f s of the host for chunks; %zu "
            "resident pieces given up\n",
            s->device_waited_s, 100 * overlap(s, seconds), s->waited_s,
            s->n_demoted);
        fprintf(out,
                "clears   %" PRIu64 " of the memory pool in %" PRIu64
                " layer transfers, %.1f ms, %.3f %% of the time\n",
                s->clears, s->layer_transfers, 1e3 * s->clear_s,
                seconds > 0 ? 100 * s->clear_s / seconds : 0);
    }
    if (s->vram_planned)
        fprintf(out,
                "memory   %.0f MiB planned, %.0f MiB at the peak (%+.1f %%); "
                "%.0f of %.0f MiB reserved were used\n",
                megabytes(s->vram_planned), megabytes(s->vram_peak),
                100 * ((double)s->vram_peak / (double)s->vram_planned - 1),
                megabytes(s->vram_used), megabytes(s->vram_reserved));
}

static json_t *layers_json(const struct vibe_engine *engine, size_t n)
{
    json_t *array = json_array();

    for (size_t i = 0; i < n; i++) {
        struct vibe_layer_stats layer;
        json_t *object = json_object();

        vibe_engine_layer_stats(engine, i, &layer);
        vibe_json_count(object, "resident_bytes", layer.resident_bytes);
        vibe_json_count(object, "streamed_bytes", layer.streamed_bytes);
        vibe_json_count(object, "transfers", (size_t)layer.transfers);
        vibe_json_number(object, "device_waited_s", layer.device_waited_s);
        json_array_append_new(array, object);
    }
    return array;
}

static void print_json(const struct vibe_engine_stats *s,
                       const struct vibe_engine *engine, double seconds,
                       int has_layers)
{
    json_t *body = json_object();
    json_t *object = json_object();
    struct vibe_cpu_share share;

    vibe_engine_cpu_share(engine, &share);
    vibe_json_count(body, "layers", s->n_layers);
    vibe_json_number(body, "gpu_layers", s->gpu_layers);
    vibe_json_text(body, "path", s->path);
    vibe_json_count(body, "resident_bytes", s->resident_bytes);
    vibe_json_count(body, "streamed_bytes", s->streamed_bytes);
    vibe_json_count(body, "cpu_bytes", share.bytes);
    vibe_json_count(body, "chunks", s->n_chunks);
    vibe_json_count(body, "transfers", (size_t)s->transfers);
    vibe_json_count(body, "h2d_bytes", (size_t)s->bytes);
    vibe_json_number(body, "seconds", seconds);
    vibe_json_number(body, "link_bandwidth", s->link);
    vibe_json_number(body, "link_busy", link_busy(s, seconds));
    vibe_json_number(body, "frame_bound_ms", 1e3 * s->frame_s);
    vibe_json_number(body, "overlap", overlap(s, seconds));
    vibe_json_number(body, "device_waited_s", s->device_waited_s);
    vibe_json_number(body, "waited_s", s->waited_s);
    vibe_json_count(body, "demoted", s->n_demoted);
    vibe_json_count(body, "layer_transfers", (size_t)s->layer_transfers);
    vibe_json_count(body, "cache_clears", (size_t)s->clears);
    vibe_json_number(body, "cache_clear_s", s->clear_s);
    vibe_json_count(body, "vram_planned_bytes", s->vram_planned);
    vibe_json_count(body, "vram_peak_bytes", s->vram_peak);
    vibe_json_count(body, "vram_reserved_bytes", s->vram_reserved);
    vibe_json_count(body, "vram_used_bytes", s->vram_used);
    if (has_layers)
        json_object_set_new(body, "by_layer", layers_json(engine, s->n_layers));
    json_object_set_new(object, "stats", body);
    vibe_json_print(object);
}

void vibe_stats_foretell(struct vibe_cli *cli, const struct vibe_engine *engine)
{
    const struct vibe_engine_plan *made = vibe_engine_planned(engine);
    const struct vibe_plan *plan = &made->plan;
    const double s = vibe_plan_frame_s(plan, &made->model, &made->rates,
                                       made->model.steps);

    if (!made->has_gpu && !plan->streamed)
        return; /* all is in the memory of the host, as ever */
    vibe_log(&cli->log, plan->streamed ? VIBE_LOG_INFO : VIBE_LOG_DEBUG, "%s",
             plan->why);
    if (plan->streamed && s > 0)
        vibe_log(&cli->log, VIBE_LOG_INFO,
                 "what does not stay comes %s: a frame takes %.1f ms at least, "
                 "by a link of %.1f GB/s",
                 vibe_residency_way(made->path), 1e3 * s,
                 1e-9 * made->rates.link);
}

/* What could not be known before. */
static void warn_of_way(struct vibe_cli *cli, const struct vibe_engine *engine,
                        const struct vibe_engine_stats *stats)
{
    const char *expected = vibe_engine_planned(engine)->path;

    if (stats->frame_s > 0 && stats->is_path_final &&
        strcmp(stats->path, expected) != 0)
        vibe_log(&cli->log, VIBE_LOG_WARN,
                 "what does not stay came %s, not %s: a frame takes %.1f ms at "
                 "least",
                 vibe_residency_way(stats->path), vibe_residency_way(expected),
                 1e3 * stats->frame_s);
}

void vibe_stats_print(struct vibe_cli *cli, const struct vibe_engine *engine,
                      double seconds)
{
    const struct vibe_options *o = cli->options;
    struct vibe_engine_stats stats;

    vibe_engine_stats(engine, &stats);
    warn_of_way(cli, engine, &stats);
    if (!o->is_stats && !o->is_profile)
        return;
    if (o->is_json) {
        print_json(&stats, engine, seconds, o->is_profile);
        return;
    }
    print_text(cli->log.out, &stats, engine, seconds);
    if (o->is_profile &&
        (stats.streamed_bytes || vibe_engine_planned(engine)->has_gpu))
        print_layers(cli->log.out, engine, stats.n_layers);
}
