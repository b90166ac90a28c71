#include "engine/front.h"

#include <stdlib.h>
#include <string.h>

#include "engine/backend/ops.h"
#include "engine/engine.h"
#include "engine/model/kvcache.h"
#include "engine/model/qwen2.h"
#include "engine/planning.h"
#include "engine/precision.h"
#include "offload/transfer.h"

/* One device with some layers. */
struct front {
    struct vibe_lm_front base; /* first: the model calls it by this */
    struct vibe_backend *be;
    struct vibe_stream s;
    struct vibe_lm_config config; /* of its layers */
    struct vibe_front_plan plan;
    size_t scratch; /* bytes of plan.bytes */
    struct vibe_qwen2 *lm;
    struct vibe_kvcache *cache;
    struct vibe_tensor x;        /* [1][rows][H] */
    struct vibe_tensor seq, pos; /* int32 [rows] */
};

struct vibe_fronts {
    struct front *items; /* [n] */
    size_t n;
};

static struct front *front_of(struct vibe_lm_front *base)
{
    return (struct front *)base;
}

/* Rows of the model pass through the layers of a front. */
static void run(struct vibe_lm_front *base, struct vibe_stream *s,
                const struct vibe_tensor *x, const struct vibe_rows *rows,
                int is_prompt)
{
    struct front *f = front_of(base);
    const struct vibe_rows here = {.seq = f->seq.data, .pos = f->pos.data};
    const size_t bytes = x->B * x->T * x->C * sizeof(float);
    struct vibe_tensor mine = f->x;

    mine.B = x->B;
    mine.T = x->T;
    mine.stride_b = x->T * mine.stride_t;
    vibe_hand_over(&f->s, f->x.data, s, x->data, bytes);
    vibe_hand_over(&f->s, f->seq.data, s, rows->seq, x->B * sizeof(int32_t));
    vibe_hand_over(&f->s, f->pos.data, s, rows->pos, x->B * sizeof(int32_t));
    vibe_backend_enter(f->be);
    vibe_qwen2_run(f->lm, &f->s, &mine, vibe_kvcache_kv(f->cache), &here,
                   is_prompt);
    vibe_hand_over(s, x->data, &f->s, f->x.data, bytes);
    vibe_backend_enter(s->be);
}

static int open_device(struct front *f, const struct vibe_engine *e,
                       const struct vibe_engine_options *o,
                       const struct vibe_device_choice *device,
                       struct vibe_error *err)
{
    const int want_cuda = device->device != VIBE_DEVICE_CPU;
    const struct vibe_backend_options options = {
        .want_cuda = want_cuda,
        .device = device->index,
        .threads = o->threads,
        .is_exact = e->backend->is_exact,
        .kv = vibe_precision_kv(e->weights, &e->config.lm, &o->precision,
                                want_cuda),
    };
    int rc = vibe_backend_open(&f->be, &options, err);

    if (rc == VIBE_OK)
        rc = vibe_stream_init(&f->s, f->be, err);
    return rc;
}

/* What a front will take of its device. */
static void make_plan(struct front *f, const struct vibe_planning_room *room)
{
    const size_t n = f->config.num_hidden_layers;

    f->plan.n_layers = n;
    f->plan.rows = n * room->layer_rows;
    f->scratch = room->scratch;
    if (n)
        f->plan.bytes = room->fixed + n * room->layer_bytes;
    memcpy(f->plan.device, f->be->name, sizeof(f->plan.device));
}

/* Take layers from the front of e's model, by the room that devices have. */
static int share_layers(struct vibe_fronts *fronts, struct vibe_engine *e,
                        const struct vibe_engine_options *o,
                        struct vibe_error *err)
{
    struct vibe_lm_config *lm = &e->config.lm;
    const size_t total = lm->num_hidden_layers;
    struct vibe_planning_room *room = calloc(fronts->n + 1, sizeof(*room));
    double sum = 0;
    int rc = room ? VIBE_OK
                  : vibe_fail(err, VIBE_E_NOMEM, "no memory for devices");

    for (size_t i = 0; i <= fronts->n && rc == VIBE_OK; i++) {
        rc = vibe_planning_layers(
            &room[i], e, i < fronts->n ? fronts->items[i].be : e->backend, o,
            err);
        sum += room[i].layers;
    }
    for (size_t i = 0; i < fronts->n && rc == VIBE_OK; i++) {
        struct front *f = &fronts->items[i];
        /* an even share of what all have room for; where that is not enough,
         * the rest is streamed by the last device */
        double share = room[i].layers;

        if (sum > (double)total)
            share *= (double)total / sum;
        f->config = *lm;
        f->config.num_hidden_layers = (size_t)share;
        if (f->config.num_hidden_layers >= lm->num_hidden_layers)
            f->config.num_hidden_layers = lm->num_hidden_layers - 1;
        lm->first_layer += f->config.num_hidden_layers;
        lm->num_hidden_layers -= f->config.num_hidden_layers;
        make_plan(f, &room[i]);
    }
    free(room);
    return rc;
}

int vibe_fronts_open(struct vibe_fronts **out, struct vibe_engine *e,
                     const struct vibe_engine_options *o,
                     struct vibe_error *err)
{
    struct vibe_fronts *fronts = NULL;
    int rc = VIBE_OK;

    *out = NULL;
    if (!o->n_fronts)
        return VIBE_OK;
    fronts = calloc(1, sizeof(*fronts));
    if (fronts)
        fronts->items = calloc(o->n_fronts, sizeof(*fronts->items));
    if (!fronts || !fronts->items)
        rc = vibe_fail(err, VIBE_E_NOMEM, "no memory for devices");
    while (rc == VIBE_OK && fronts->n < o->n_fronts) {
        struct front *f = &fronts->items[fronts->n];

        rc = open_device(f, e, o, &o->fronts[fronts->n++], err);
        f->base.run = run;
    }
    if (rc == VIBE_OK)
        rc = share_layers(fronts, e, o, err);
    vibe_backend_enter(e->backend);
    if (rc != VIBE_OK) {
        vibe_fronts_free(fronts);
        return rc;
    }
    *out = fronts;
    return VIBE_OK;
}

static int load(struct front *f, struct vibe_engine *e, struct vibe_error *err)
{
    const size_t n_rows = 2 * e->models.n_dialogues;
    const size_t rows = n_rows > VIBE_PROMPT_ROWS ? n_rows : VIBE_PROMPT_ROWS;
    struct vibe_backend *be = f->be;
    int rc;

    vibe_backend_enter(be);
    rc = be->ops->reserve(be, f->plan.bytes, f->scratch, err);
    be->purpose = VIBE_FOR_LM;
    if (rc == VIBE_OK)
        rc = vibe_qwen2_open(&f->lm, be, e->weights, &f->config, e->control_ids,
                             n_rows, NULL, err);
    be->purpose = VIBE_FOR_STATES;
    if (rc == VIBE_OK)
        rc = vibe_kvcache_open(&f->cache, be, &f->config, n_rows,
                               f->config.max_position_embeddings, be->kv_dtype,
                               err);
    if (rc == VIBE_OK)
        rc = vibe_tensor_init(&f->x, be, VIBE_F32, 1, rows,
                              f->config.hidden_size, err);
    /* int32 is as wide as f32 */
    if (rc == VIBE_OK)
        rc = vibe_tensor_init(&f->seq, be, VIBE_F32, 1, 1, rows, err);
    if (rc == VIBE_OK)
        rc = vibe_tensor_init(&f->pos, be, VIBE_F32, 1, 1, rows, err);
    be->purpose = VIBE_FOR_OTHER;
    return rc;
}

int vibe_fronts_load(struct vibe_fronts *fronts, struct vibe_engine *e,
                     struct vibe_error *err)
{
    struct vibe_kvcache *before = e->generator->cache;
    int rc = VIBE_OK;

    for (size_t i = 0; i < fronts->n && rc == VIBE_OK; i++) {
        struct front *f = &fronts->items[i];

        if (!f->config.num_hidden_layers)
            continue;
        rc = load(f, e, err);
        if (rc != VIBE_OK)
            break;
        vibe_kvcache_follow(f->cache, &f->s, before);
        before = f->cache;
        vibe_qwen2_put_before(e->models.lm, &f->base);
    }
    vibe_backend_enter(e->backend);
    return rc;
}

size_t vibe_fronts_plan(const struct vibe_fronts *fronts,
                        struct vibe_front_plan *out, size_t max)
{
    size_t n = 0;

    for (size_t i = 0; fronts && i < fronts->n && n < max; i++)
        if (fronts->items[i].plan.n_layers)
            out[n++] = fronts->items[i].plan;
    return n;
}

size_t vibe_fronts_step_bytes(const struct vibe_fronts *fronts)
{
    size_t bytes = 0;

    for (size_t i = 0; fronts && i < fronts->n; i++)
        if (fronts->items[i].lm)
            bytes += vibe_qwen2_step_bytes(fronts->items[i].lm);
    return bytes;
}

static void release(struct front *f)
{
    if (!f->be)
        return;
    vibe_backend_enter(f->be);
    vibe_tensor_release(&f->pos, f->be);
    vibe_tensor_release(&f->seq, f->be);
    vibe_tensor_release(&f->x, f->be);
    vibe_kvcache_free(f->cache);
    vibe_qwen2_free(f->lm);
    vibe_stream_release(&f->s);
    vibe_backend_free(f->be);
}

void vibe_fronts_free(struct vibe_fronts *fronts)
{
    if (!fronts)
        return;
    for (size_t i = 0; i < fronts->n; i++)
        release(&fronts->items[i]);
    free(fronts->items);
    free(fronts);
}
