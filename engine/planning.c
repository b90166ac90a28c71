#include "engine/planning.h"

#include <string.h>

#include "engine/backend/ops.h"
#include "engine/base/device.h"
#include "engine/engine.h"
#include "engine/format/weights.h"
#include "engine/measure.h"
#include "engine/precision.h"
#include "engine/request.h"
#include "offload/offload.h"
#include "offload/transfer.h"

enum {
    PROBE_BYTES = 128 << 20,
    USUAL_STEPS = 10,
    /* nobody said what will be spoken: some minutes with voices */
    USUAL_POSITIVE = 4096,
    USUAL_NEGATIVE = 2048,
};

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* How long the dialogues can become; what is wrong with a request it is told
 * when it is spoken. */
static void plan_lengths(struct vibe_plan_request *out,
                         const struct vibe_engine *e,
                         const struct vibe_engine_options *o)
{
    const size_t most = e->config.lm.max_position_embeddings;

    for (size_t i = 0; i < o->n_requests; i++) {
        const struct vibe_request *request = &o->requests[i];
        struct vibe_ready r = {0};

        if (vibe_ready_init(&r, e, request, NULL) == VIBE_OK) {
            size_t tokens = r.max_tokens;

            /* turns take a few tokens that are no frames */
            if (request->max_frames)
                tokens = smaller(tokens, request->max_frames +
                                             2 * request->script->n_turns + 2);
            out->n_prompt = larger(out->n_prompt, r.prompt.n);
            out->positive = larger(out->positive, r.prompt.n + tokens);
            out->negative = larger(out->negative, tokens);
        }
        vibe_ready_release(&r);
    }
    if (!out->positive) {
        out->positive = USUAL_POSITIVE;
        out->negative = USUAL_NEGATIVE;
    }
    out->positive = smaller(out->positive, most);
    out->negative = smaller(out->negative, most);
}

/* Voices are known with what is spoken; who says only how long that becomes
 * will measure, and speak nothing. */
static int has_voices_first(const struct vibe_engine_options *o)
{
    return o->n_requests > 0 || o->plan.positive > 0;
}

/* Whether the whole of a prompt is read before anything is spoken. */
static int lends_prompt(const struct vibe_engine *e,
                        const struct vibe_engine_options *o)
{
    return e->backend->is_cuda && o->n_requests > 0 && !o->n_fronts &&
           o->n_dialogues <= 1;
}

/* Solver steps that scratch must do for. */
static size_t most_steps(const struct vibe_engine_options *o)
{
    int most = 1;

    if (!o->n_requests)
        most = o->steps ? o->steps : USUAL_STEPS;
    for (size_t i = 0; i < o->n_requests; i++)
        if (o->requests[i].steps > most)
            most = o->requests[i].steps;
    return (size_t)most;
}

int vibe_planning_measure(struct vibe_plan_model *out,
                          const struct vibe_engine *e,
                          const struct vibe_engine_options *o,
                          enum vibe_weight_dtype lm, enum vibe_dtype kv,
                          struct vibe_error *err)
{
    const struct vibe_measured what = {
        .w = e->weights,
        .config = &e->config,
        .control_ids = e->control_ids,
        .n_dialogues = o->n_dialogues ? o->n_dialogues : 1,
        .steps = most_steps(o),
        .kv_dtype = kv,
        .lm = lm,
    };

    return vibe_measure(out, &what, err);
}

static struct vibe_plan_device look_at(struct vibe_backend *be, size_t *others)
{
    struct vibe_device_reading reading;
    struct vibe_memory memory;

    be->ops->meter(be, &reading);
    be->ops->memory(be, &memory);
    *others = reading.memory_used > memory.context
                  ? reading.memory_used - memory.context
                  : 0;
    return (struct vibe_plan_device){
        .total = reading.memory_total,
        .free = be->transfer->free_bytes(be),
        .context = memory.context,
        .later = memory.later,
    };
}

/* Plan for a precision, which e's weights are kept in from now on, and a
 * machine as fast as out->rates say. */
static int plan_as(struct vibe_engine_plan *out, const struct vibe_engine *e,
                   const struct vibe_engine_options *o,
                   const struct vibe_precision *precision,
                   struct vibe_error *err)
{
    struct vibe_plan_request request = o->plan;
    struct vibe_engine_plan made = {
        .has_gpu = e->backend->is_cuda,
        .precision = *precision,
        .kv_dtype = vibe_dtype_name(e->backend->kv_dtype),
        .rates = out->rates,
    };
    int rc;

    vibe_precision_keep(e->weights, precision);
    rc = vibe_planning_measure(&made.model, e, o, VIBE_WEIGHTS_AUTO,
                               e->backend->kv_dtype, err);
    if (rc != VIBE_OK)
        return rc;
    made.memory = look_at(e->backend, &made.others);
    memcpy(made.device, e->backend->name, sizeof(made.device));
    if (!made.has_gpu) {
        /* pages are taken when they are touched, and caps are a GPU's */
        made.memory.free = SIZE_MAX / 4;
        request.max_vram = 0;
    }
    request.n_dialogues = o->n_dialogues;
    request.has_voices_first = has_voices_first(o);
    request.lends_prompt = lends_prompt(e, o);
    plan_lengths(&request, e, o);
    made.has_voices_first = request.has_voices_first;
    made.positive = request.positive;
    made.negative = request.negative;
    request.rates = made.rates;
    rc = vibe_plan_make(&made.plan, &made.model, &made.memory, &request, err);
    if (rc == VIBE_OK)
        *out = made;
    return rc;
}

/* Whether the dtype of the language model is left to us, and smaller ones may
 * save it from being streamed. */
static int may_shrink(const struct vibe_engine *e,
                      const struct vibe_engine_options *o)
{
    const enum vibe_plan_kind kind = o->plan.kind;

    return e->backend->is_cuda && !o->streaming.is_on && !o->n_fronts &&
           o->precision.lm == VIBE_WEIGHTS_AUTO &&
           (kind == VIBE_PLAN_AUTO || kind == VIBE_PLAN_WHOLE) &&
           vibe_precision_lm(e->weights, &e->config.lm, VIBE_WEIGHTS_AUTO) ==
               VIBE_BF16;
}

/* The best precision that has all layers stay; non-zero when there is none.
 * int4 is heard: it has to be asked for. */
static int shrink(struct vibe_engine_plan *out, const struct vibe_engine *e,
                  const struct vibe_engine_options *o)
{
    static const struct vibe_precision smaller[] = {
        {.lm = VIBE_WEIGHTS_BF16_PACKED},
        {.lm = VIBE_WEIGHTS_I8},
        {.lm = VIBE_WEIGHTS_I8, .head = VIBE_WEIGHTS_I8},
    };

    for (size_t i = 0; i < sizeof(smaller) / sizeof(*smaller); i++) {
        struct vibe_precision p = o->precision;
        struct vibe_engine_plan made = {0};

        p.lm = smaller[i].lm;
        if (p.head == VIBE_WEIGHTS_AUTO)
            p.head = smaller[i].head;
        if (plan_as(&made, e, o, &p, NULL) != VIBE_OK || made.plan.streamed)
            continue;
        *out = made;
        return 0;
    }
    vibe_precision_keep(e->weights, &o->precision);
    return 1;
}

/* The way that chunks will take, as far as that is known now. */
static void expect_path(struct vibe_engine_plan *out,
                        const struct vibe_engine_options *o)
{
    const struct vibe_offload_options how = {
        .host_limit = o->streaming.host_bytes,
        .is_unpinned = o->streaming.is_unpinned || out->rates.is_pageable,
    };

    out->path = vibe_path_name(vibe_path_expect(out->plan.streamed, &how));
}

int vibe_planning_make(struct vibe_engine_plan *out,
                       const struct vibe_engine *e,
                       const struct vibe_engine_options *o,
                       struct vibe_error *err)
{
    struct vibe_engine_plan made = {0};
    int rc = plan_as(&made, e, o, &o->precision, err);

    if ((rc == VIBE_OK && made.plan.streamed) || rc == VIBE_E_NOMEM)
        if (may_shrink(e, o) && shrink(&made, e, o) == 0)
            rc = VIBE_OK;
    if (rc == VIBE_OK && made.plan.streamed && e->backend->is_cuda) {
        vibe_planning_probe(&made.rates, e->backend, o->streaming.is_unpinned);
        rc = plan_as(&made, e, o, &o->precision, err);
    }
    if (rc != VIBE_OK)
        return rc;
    expect_path(&made, o);
    *out = made;
    return VIBE_OK;
}

int vibe_planning_layers(struct vibe_planning_room *out,
                         const struct vibe_engine *e, struct vibe_backend *be,
                         const struct vibe_engine_options *o,
                         struct vibe_error *err)
{
    const size_t all = e->config.lm.num_hidden_layers;
    const struct vibe_plan_device boundless = {.free = SIZE_MAX / 4};
    struct vibe_plan_request request = o->plan;
    struct vibe_plan_device device;
    struct vibe_plan_model model;
    struct vibe_plan whole;
    size_t others, budget;
    int rc = vibe_planning_measure(&model, e, o, VIBE_WEIGHTS_AUTO,
                                   be->kv_dtype, err);

    request.kind = VIBE_PLAN_WHOLE;
    request.max_vram = 0;
    request.has_voices_first = has_voices_first(o);
    request.n_dialogues = o->n_dialogues;
    plan_lengths(&request, e, o);
    if (rc == VIBE_OK)
        rc = vibe_plan_make(&whole, &model, &boundless, &request, err);
    if (rc != VIBE_OK)
        return rc;
    device = look_at(be, &others);
    budget = be->is_cuda ? vibe_plan_budget(&device, &o->plan) : boundless.free;
    *out = (struct vibe_planning_room){
        .layer_rows = whole.rows / all,
        .layer_bytes = (whole.rows + whole.kv) / all,
        .fixed = be == e->backend
                     ? whole.fixed
                     : model.lm + model.prompt + model.scratch + model.mail,
        .scratch = model.scratch,
    };
    if (budget > out->fixed)
        out->layers = (double)(budget - out->fixed) / (double)out->layer_bytes;
    if (out->layers > (double)all)
        out->layers = (double)all;
    return VIBE_OK;
}

void vibe_planning_probe(struct vibe_plan_rates *out, struct vibe_backend *be,
                         int is_unpinned)
{
    const struct vibe_transfer *move = be->transfer;

    *out = (struct vibe_plan_rates){.read = be->ops->probe_bandwidth(be)};
    if (be->is_cuda && !is_unpinned)
        out->link = vibe_offload_probe(be, move, PROBE_BYTES, 0);
    if (be->is_cuda && out->link <= 0) {
        out->link = vibe_offload_probe(be, move, PROBE_BYTES, 1);
        out->is_pageable = 1;
    }
    be->ops->trim(be); /* what that took is not part of a plan */
}

int vibe_planning_reserve(struct vibe_engine *e,
                          const struct vibe_engine_plan *made,
                          struct vibe_error *err)
{
    const struct vibe_plan *plan = &made->plan;
    struct vibe_backend *be = e->backend;

    if (plan->has_kv_on_host)
        be->on_host |= 1u << VIBE_FOR_KV;
    if (plan->has_head_on_host)
        be->on_host |= 1u << VIBE_FOR_HEAD;
    if (plan->has_codec_on_host)
        be->on_host |= 1u << VIBE_FOR_CODEC;
    return be->ops->reserve(be, plan->reserve,
                            plan->lends_prompt ? made->model.frame_scratch
                                               : made->model.scratch,
                            err);
}
