#include "offload/plan.h"

#include <stdio.h>

#include "engine/base/error.h"
#include "engine/base/size.h"

enum {
    ALIGNMENT = 256,           /* of every allocation */
    GRANULE = 2 << 20,         /* what a driver hands out */
    MIN_CHUNK_BYTES = 4 << 20, /* below, copies no longer reach the link */
    USUAL_RESERVE = 512 << 20, /* for a desktop on the same card */
    SPARE = 2 << 20, /* of what is lent: gaps between pieces of other sizes */
};

static const double USUAL_UTILIZATION = 0.80;

/* Head and codec reach so much of the rate of memory, and their many small
 * kernels take so long besides; chunks fill so much of a ring. */
static const double TAIL_EFFICIENCY = 0.85;
static const double TAIL_S = 0.7e-3;
static const double RING_FILLED = 0.95;

const char *vibe_plan_bytes(char *buf, size_t size, size_t bytes)
{
    if (bytes < (size_t)1 << 30)
        snprintf(buf, size, "%.0f MiB", (double)bytes / (1 << 20));
    else
        snprintf(buf, size, "%.1f GiB", (double)bytes / (1 << 30));
    return buf;
}

static size_t less(size_t a, size_t b)
{
    return a > b ? a - b : 0;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

size_t vibe_plan_budget(const struct vibe_plan_device *device,
                        const struct vibe_plan_request *r)
{
    const double share = r->utilization > 0 ? r->utilization
                                            : USUAL_UTILIZATION;
    const int is_capped = r->max_vram != 0;
    int64_t reserve = r->reserve > 0 ? r->reserve : 0;
    size_t budget = device->free;

    if (r->max_vram > 0)
        budget = smaller(budget, less((size_t)r->max_vram, device->context));
    else if (r->max_vram < 0)
        budget = less(device->free, (size_t)-r->max_vram);
    else if (r->kind == VIBE_PLAN_AUTO)
        budget = (size_t)(share * (double)device->free);
    if (r->reserve == 0 && !is_capped && r->kind != VIBE_PLAN_AUTO)
        reserve = USUAL_RESERVE;
    budget = smaller(budget, less(device->free, (size_t)reserve));
    return less(budget, device->later) / GRANULE * GRANULE;
}

static double larger_s(double a, double b)
{
    return a > b ? a : b;
}

/* Keys and values of one sequence. */
static size_t blocks_bytes(const struct vibe_plan_model *m, size_t n_positions)
{
    const size_t unit = m->block_tokens ? m->block_tokens : 1;

    return (n_positions + unit - 1) / unit *
           vibe_size_round(m->kv_block, ALIGNMENT);
}

/* Keys and values of all dialogues. */
static size_t kv_bytes(const struct vibe_plan_model *m,
                       const struct vibe_plan_request *r)
{
    const size_t D = r->n_dialogues ? r->n_dialogues : 1;

    return D * (blocks_bytes(m, r->positive) + blocks_bytes(m, r->negative));
}

/* Keys and values, and what prompts are computed in: first the one and then the
 * other, where one lends to the other. */
static size_t growing_bytes(const struct vibe_plan *plan,
                            const struct vibe_plan_model *m,
                            const struct vibe_plan_request *r)
{
    const size_t kv = plan->has_kv_on_host ? 0 : plan->kv;
    const size_t prompt = m->prompt + m->scratch;
    const size_t before = plan->has_kv_on_host ? 0
                                               : blocks_bytes(m, r->n_prompt);

    if (!plan->lends_prompt)
        return kv + prompt;
    return SPARE + m->frame_scratch + larger(kv, before + prompt);
}

/* Everything but the rows and the ring. */
static void place_parts(struct vibe_plan *plan, const struct vibe_plan_model *m,
                        const struct vibe_plan_request *r)
{
    size_t growing;

    plan->kv = kv_bytes(m, r);
    plan->lends_prompt = r->lends_prompt;
    plan->has_kv_on_host = r->has_kv_on_host;
    plan->has_head_on_host = r->has_head_on_host;
    plan->has_codec_on_host = r->mode == VIBE_MEMORY_LIGHTWEIGHT;
    plan->fixed = m->lm + m->head_prepared + m->connectors + m->states +
                  m->mail;
    plan->fixed += m->head;
    if (plan->has_head_on_host)
        plan->fixed -= smaller(m->head,
                               m->head_frame_reads + m->head_step_reads);
    plan->fixed += m->codec;
    if (plan->has_codec_on_host)
        plan->fixed -= smaller(m->codec, m->codec_reads);
    growing = growing_bytes(plan, m, r);
    /* voices are read before there is anything else, or keys and values */
    if (r->mode == VIBE_MEMORY_BEEFY)
        plan->encoder = m->encoder;
    else if (!r->has_voices_first)
        growing = larger(growing, m->encoder + m->prompt + m->scratch);
    plan->fixed += growing + plan->encoder;
}

/* A ring for room bytes, slots as large as usual or as there is room for.
 * Leaves it empty when there is none. */
static void place_ring(struct vibe_plan *plan,
                       const struct vibe_plan_request *r, size_t room)
{
    const size_t slots = r->ring_slots ? r->ring_slots : VIBE_PLAN_RING_SLOTS;
    size_t chunk = r->chunk_bytes ? r->chunk_bytes : VIBE_PLAN_CHUNK_BYTES;

    while (!r->chunk_bytes && slots * chunk > room && chunk > MIN_CHUNK_BYTES)
        chunk /= 2;
    if (slots * chunk > room)
        return;
    plan->ring_slots = slots;
    plan->chunk_bytes = chunk;
}

/* Make a ring that nobody has asked for as long as suits the link: of memory
 * that the layers asked for leave, or of theirs where they do not all fit. */
static void extend_ring(struct vibe_plan *plan, const struct vibe_plan_model *m,
                        const struct vibe_plan_request *r, size_t asked,
                        size_t room)
{
    const size_t chunk = plan->chunk_bytes;
    const size_t left = less(room, asked);
    size_t slots = vibe_plan_ring(m, &r->rates, chunk);

    if (r->ring_slots)
        return;
    if (left < plan->ring_slots * chunk)
        slots = smaller(slots, room / 2 / chunk);
    else
        slots = smaller(slots,
                        smaller(left, plan->rows - asked + chunk) / chunk);
    plan->ring_slots = larger(slots, plan->ring_slots);
}

/* The layers that a request allows, whatever there is room for. */
static double layers_asked(const struct vibe_plan *plan,
                           const struct vibe_plan_request *r)
{
    double asked = (double)plan->n_layers;

    if (r->kind == VIBE_PLAN_LAYERS)
        asked = r->n_layers;
    if (r->kind == VIBE_PLAN_SHARE)
        asked *= r->share;
    return asked < (double)plan->n_layers ? asked : (double)plan->n_layers;
}

static size_t rows_asked(const struct vibe_plan *plan,
                         const struct vibe_plan_request *r)
{
    const double asked = layers_asked(plan, r);

    if (asked >= (double)plan->n_layers)
        return plan->rows;
    return (size_t)((double)plan->rows * asked / (double)plan->n_layers);
}

static int refuse_whole(const struct vibe_plan *plan, struct vibe_error *err)
{
    char need[32], have[32];

    return vibe_fail(err, VIBE_E_NOMEM,
                     "the whole model needs %s, %s free; use --auto",
                     vibe_plan_bytes(need, sizeof(need), plan->needed),
                     vibe_plan_bytes(have, sizeof(have), plan->budget));
}

static int refuse(const struct vibe_plan *plan, size_t ring,
                  struct vibe_error *err)
{
    char need[32], have[32], kv[32];

    return vibe_fail(
        err, VIBE_E_NOMEM,
        "without any layer the model needs %s (%s of it for keys and values), "
        "%s may be used; try %s%s--memory-mode lightweight or --device cpu",
        vibe_plan_bytes(need, sizeof(need), plan->fixed + ring),
        vibe_plan_bytes(kv, sizeof(kv), plan->has_kv_on_host ? 0 : plan->kv),
        vibe_plan_bytes(have, sizeof(have), plan->budget),
        plan->has_kv_on_host ? "" : "--offload-kv-cache, ",
        plan->has_head_on_host ? "" : "--offload-prediction-head, ");
}

static void explain(struct vibe_plan *plan, const struct vibe_plan_request *r)
{
    const double all = (double)plan->n_layers;
    const double asked = layers_asked(plan, r);
    char have[32];

    vibe_plan_bytes(have, sizeof(have), plan->budget);
    if (!plan->streamed)
        snprintf(plan->why, sizeof(plan->why),
                 "all %zu layers fit in the %s that may be used",
                 plan->n_layers, have);
    else if (asked < all && plan->layers > asked - 0.05)
        snprintf(plan->why, sizeof(plan->why),
                 "%.4g of %zu layers stay, as asked; the rest is streamed",
                 plan->layers, plan->n_layers);
    else
        snprintf(plan->why, sizeof(plan->why),
                 "%.1f of %s%.4g layers %sfit in the %s that may be used",
                 plan->layers, asked < all ? "the " : "", asked,
                 r->kind == VIBE_PLAN_AUTO ? "" : "asked for ", have);
}

/* The rows that stay, and a ring for the others; non-zero when there is not
 * even room for that ring. */
static int place_rows(struct vibe_plan *plan, const struct vibe_plan_model *m,
                      const struct vibe_plan_request *r)
{
    const size_t room = less(plan->budget, plan->fixed);
    const size_t asked = rows_asked(plan, r);

    if (asked == plan->rows && plan->rows <= room) {
        plan->resident = plan->rows;
        return 0;
    }
    place_ring(plan, r, room);
    if (!plan->ring_slots)
        return 1;
    extend_ring(plan, m, r, asked, room);
    plan->resident = smaller(asked,
                             room - plan->ring_slots * plan->chunk_bytes) /
                     ALIGNMENT * ALIGNMENT;
    return 0;
}

int vibe_plan_make(struct vibe_plan *out, const struct vibe_plan_model *model,
                   const struct vibe_plan_device *device,
                   const struct vibe_plan_request *request,
                   struct vibe_error *err)
{
    struct vibe_plan plan = {
        .n_layers = model->n_layers,
        .rows = model->rows,
        .budget = vibe_plan_budget(device, request),
    };
    const int must_fit = request->kind == VIBE_PLAN_WHOLE ||
                         request->mode == VIBE_MEMORY_BEEFY;

    place_parts(&plan, model, request);
    plan.needed = plan.fixed + plan.rows;
    if (must_fit && plan.needed > plan.budget)
        return refuse_whole(&plan, err);
    if (plan.fixed > plan.budget || place_rows(&plan, model, request))
        return refuse(&plan, (size_t)VIBE_PLAN_RING_SLOTS * MIN_CHUNK_BYTES,
                      err);
    plan.streamed = plan.rows - plan.resident;
    if (plan.rows)
        plan.layers = (double)plan.resident * (double)plan.n_layers /
                      (double)plan.rows;
    plan.reserve = vibe_size_round(plan.fixed + plan.resident +
                                       plan.ring_slots * plan.chunk_bytes,
                                   GRANULE);
    plan.total = plan.reserve + device->context + device->later;
    explain(&plan, request);
    *out = plan;
    return VIBE_OK;
}

size_t vibe_plan_ring(const struct vibe_plan_model *model,
                      const struct vibe_plan_rates *rates, size_t chunk_bytes)
{
    const double bytes = (double)model->head_frame_reads +
                         (double)model->steps * (double)model->head_step_reads +
                         (double)model->codec_reads;
    double slots;

    if (rates->read <= 0 || rates->link <= 0)
        return VIBE_PLAN_RING_SLOTS;
    slots = (bytes / (TAIL_EFFICIENCY * rates->read) + TAIL_S) * rates->link /
                (RING_FILLED * (double)chunk_bytes) +
            0.5;
    if (slots > VIBE_PLAN_RING_MOST)
        return VIBE_PLAN_RING_MOST;
    return slots > VIBE_PLAN_RING_SLOTS ? (size_t)slots : VIBE_PLAN_RING_SLOTS;
}

double vibe_plan_frame_s(const struct vibe_plan *plan,
                         const struct vibe_plan_model *model,
                         const struct vibe_plan_rates *rates, size_t n_steps)
{
    const double head = (double)model->head_frame_reads +
                        (double)n_steps * (double)model->head_step_reads;
    const double codec = (double)model->codec_reads;
    const size_t ring = plan->ring_slots * plan->chunk_bytes;
    const int has_host_reads = plan->has_head_on_host ||
                               plan->has_codec_on_host;
    double on_host = 0;
    double link = 0;
    double lm, rest, frame;

    if (rates->read <= 0 ||
        ((plan->streamed || has_host_reads) && rates->link <= 0))
        return 0;
    if (plan->streamed || has_host_reads)
        link = 1 / rates->link;
    if (plan->has_head_on_host)
        on_host += head;
    if (plan->has_codec_on_host)
        on_host += codec;
    /* what is streamed is written to the ring before it is read */
    lm = ((double)plan->rows + (double)plan->streamed) / rates->read;
    rest = on_host * link +
           (head + codec + (double)model->connector_reads - on_host) /
               rates->read;
    /* the ring is filled during the rest */
    frame = rest + larger_s(lm, (double)less(plan->streamed, ring) * link);
    return larger_s(frame, ((double)plan->streamed + on_host) * link);
}
