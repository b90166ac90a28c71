/* What a run did with the device's memory and link. */
#include "engine/backend/ops.h"
#include "engine/base/device.h"
#include "engine/engine.h"
#include "engine/model/qwen2.h"
#include "offload/offload.h"

/* Bytes of the device that are this process's, as its driver counts: what
 * others have taken since this began is not. */
static size_t driver_bytes(const struct vibe_engine *engine)
{
    struct vibe_backend *be = engine->backend;
    struct vibe_device_reading reading;
    size_t n;

    be->ops->meter(be, &reading);
    n = reading.memory_used > engine->plan.others
            ? reading.memory_used - engine->plan.others
            : 0;
    return reading.memory_own && reading.memory_own < n ? reading.memory_own
                                                        : n;
}

static void count_memory(struct vibe_engine_stats *out,
                         const struct vibe_engine *engine)
{
    struct vibe_memory memory;

    engine->backend->ops->memory(engine->backend, &memory);
    out->vram_planned = engine->plan.plan.total;
    out->vram_reserved = engine->plan.plan.reserve;
    out->vram_peak = driver_bytes(engine);
    if (out->vram_peak < memory.context + memory.taken_peak)
        out->vram_peak = memory.context + memory.taken_peak;
    out->vram_used = memory.used_peak;
}

/* What the device waited for copies of all layers. */
static double waited_s(const struct vibe_streaming *streaming)
{
    double sum = 0;

    for (size_t i = 0;
         streaming->waited_s && i < streaming->n / VIBE_LM_MATRICES; i++)
        sum += streaming->waited_s[i];
    return sum;
}

/* What a frame takes at least: chunks that are not pinned are filled in beside
 * the copies of others. */
static double least_frame_s(const struct vibe_engine *engine,
                            const struct vibe_offload_stats *count)
{
    const struct vibe_engine_plan *made = &engine->plan;
    struct vibe_plan_rates rates = made->rates;
    struct vibe_plan plan = made->plan;
    const double filled = (double)(count->place_bytes[VIBE_PLACE_FILE] +
                                   count->place_bytes[VIBE_PLACE_PAGEABLE]);
    double link_s;

    plan.streamed = count->streamed_bytes;
    plan.ring_slots = count->slots;
    plan.chunk_bytes = count->slot_bytes;
    if (rates.link > 0 && count->fill_rate > 0 && filled > 0 &&
        count->path != VIBE_PATH_PAGEABLE) {
        link_s = (double)plan.streamed / rates.link;
        if (filled / count->fill_rate > link_s)
            rates.link = (double)plan.streamed * count->fill_rate / filled;
    }
    return vibe_plan_frame_s(&plan, &made->model, &rates, made->model.steps);
}

void vibe_engine_stats(const struct vibe_engine *engine,
                       struct vibe_engine_stats *out)
{
    const struct vibe_plan *plan = &engine->plan.plan;
    struct vibe_offload *offload = engine->models.streaming.offload;
    struct vibe_offload_stats count = {.path = VIBE_PATH_NONE};

    if (offload)
        vibe_offload_count(offload, &count);
    *out = (struct vibe_engine_stats){
        .n_layers = plan->n_layers,
        .gpu_layers = (double)plan->n_layers,
        .path = vibe_path_name(count.path),
        .is_path_final = count.is_settled,
        .resident_bytes = offload ? count.resident_bytes : plan->rows,
        .streamed_bytes = count.streamed_bytes,
        .n_chunks = count.n_chunks,
        .transfers = count.transfers,
        .bytes = count.bytes,
        .waited_s = count.waited_s,
        .device_waited_s = waited_s(&engine->models.streaming),
        .n_demoted = count.n_demoted,
        .layer_transfers = engine->models.streaming.stats.layer_transfers,
        .clears = engine->models.streaming.stats.clears,
        .clear_s = engine->models.streaming.stats.clear_s,
    };
    if (offload && plan->rows)
        out->gpu_layers = (double)plan->n_layers * (double)out->resident_bytes /
                          (double)plan->rows;
    if (count.streamed_bytes) {
        out->link = engine->plan.rates.link;
        out->frame_s = least_frame_s(engine, &count);
    }
    if (engine->backend->is_cuda)
        count_memory(out, engine);
}

void vibe_engine_cpu_share(const struct vibe_engine *engine,
                           struct vibe_cpu_share *out)
{
    const struct vibe_streaming *streaming = &engine->models.streaming;
    const struct vibe_share_rates *rates = &streaming->stats.rates;
    struct vibe_offload_stats count = {0};

    if (streaming->offload)
        vibe_offload_count(streaming->offload, &count);
    *out = (struct vibe_cpu_share){
        .bytes = count.lent_bytes,
        .streamed_bytes = count.streamed_bytes,
        .refused = streaming->stats.refused,
        .cpu_rate = rates->host,
        .link_rate = rates->link,
        .alone_rate = rates->alone,
    };
}

void vibe_engine_layer_stats(const struct vibe_engine *engine, size_t layer,
                             struct vibe_layer_stats *out)
{
    const struct vibe_offload *offload = engine->models.streaming.offload;
    const struct vibe_residency *table;
    const size_t first = layer * VIBE_LM_MATRICES;

    *out = (struct vibe_layer_stats){0};
    if (!offload)
        return;
    if (engine->models.streaming.waited_s)
        out->device_waited_s = engine->models.streaming.waited_s[layer];
    table = vibe_offload_table(offload);
    for (size_t i = 0; i < table->n_pieces; i++) {
        const struct vibe_piece *piece = &table->pieces[i];

        if (piece->matrix < first || piece->matrix >= first + VIBE_LM_MATRICES)
            continue;
        if (piece->is_resident)
            out->resident_bytes += piece->bytes;
        else
            out->streamed_bytes += piece->bytes;
    }
    for (size_t m = first; m < first + VIBE_LM_MATRICES; m++)
        out->transfers += vibe_offload_copies(offload, m);
}
