/*
 * diffusion.c - the diffusion head and its sampling loop.
 *
 *   u = noisy_images_proj x;  c = silu(cond_proj h + tau(t))
 *   per layer, (shift, scale, gate) = adaLN c:
 *       u += gate * ffn(norm(u) * (1 + scale) + shift)
 *   v = linear(norm(u) * (1 + scale) + shift)
 */
#include "engine/model/diffusion.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/backend/ops.h"
#include "engine/format/config.h"
#include "engine/format/weights.h"
#include "engine/model/dpm_solver.h"
#include "engine/model/params.h"

enum {
    TIME_CHANNELS = 256, /* of the timestep embedding; cosines, then sines */
    /* Modulations are held for this many steps: that bounds scratch, and up
     * to here adaLN is read once per frame. */
    GROUP_STEPS = 64,
};

struct head_layer {
    const float *norm;
    struct vibe_matrix gate_up, down;
};

struct vibe_diffusion {
    struct vibe_head_config config;
    size_t max_D, D; /* dialogues: room for, of the current call */
    struct vibe_matrix noisy_proj, cond_proj, time_in, time_out;
    struct head_layer *layers; /* [head_layers], owned */
    struct vibe_matrix v_proj;
    /* [n_stacks], owned: shift, scale and gate of the layers, then shift and
     * scale of v_proj, as many of them as go into one matrix */
    struct vibe_matrix *adaln;
    size_t n_stacks;
    struct vibe_params params;

    /* scratch, owned; [2][D] are the rows of a step */
    struct vibe_tensor cond;    /* [2D][1][H] */
    struct vibe_tensor u, m, v; /* [2][D][H], [2][D][H], [2][D][C] */
    struct vibe_tensor act;     /* [2][D][F] */
    struct vibe_tensor m1;      /* [D][1][C] */

    /* as prepared */
    struct vibe_dpm_solver solver; /* n_steps 0: not prepared */
    struct vibe_tensor tau;        /* [1][n_steps][H] */
    struct vibe_tensor c;          /* [2D][group][H] */
    struct vibe_tensor at_steps;   /* [2D][group][modulation_channels] */
};

/* Of all layers and v_proj. */
static size_t modulation_channels(const struct vibe_head_config *config)
{
    return (3 * config->head_layers + 2) * config->hidden_size;
}

static void bind_layer(struct vibe_loader *l, struct head_layer *layer,
                       const struct vibe_head_config *config)
{
    size_t H = config->hidden_size;
    const struct vibe_matrix_names gate_up = {
        .part = {"ffn.gate_proj", "ffn.up_proj"},
        .rows = {config->ffn_size, config->ffn_size},
        .in = H,
        .is_pair = 1,
    };

    vibe_load_vector(l, &layer->norm, "norm.weight", H);
    vibe_load_matrix(l, &layer->gate_up, &gate_up);
    vibe_load_linear(l, &layer->down, "ffn.down_proj", H, config->ffn_size);
}

/* The modulations of layers first, ...; what comes last is v_proj's. */
static void bind_stack(struct vibe_loader *l, struct vibe_matrix *stack,
                       const struct vibe_head_config *config, size_t first)
{
    const size_t H = config->hidden_size;
    struct vibe_matrix_names names = {.in = H};
    char name[VIBE_MATRIX_PARTS][64];

    for (size_t i = 0; i < VIBE_MATRIX_PARTS; i++) {
        const size_t layer = first + i;

        if (layer > config->head_layers)
            break;
        if (layer < config->head_layers)
            snprintf(name[i], sizeof(name[i]), "layers.%zu.adaLN_modulation.1",
                     layer);
        else
            snprintf(name[i], sizeof(name[i]),
                     "final_layer.adaLN_modulation.1");
        names.part[i] = name[i];
        names.rows[i] = (layer < config->head_layers ? 3 : 2) * H;
    }
    vibe_load_matrix(l, stack, &names);
}

static void bind(struct vibe_loader *l, void *module)
{
    static const char prefix[] = "model.prediction_head.";
    struct vibe_diffusion *head = module;
    size_t H = head->config.hidden_size;

    vibe_loader_scope(l, "%s", prefix);
    vibe_load_linear(l, &head->noisy_proj, "noisy_images_proj", H,
                     head->config.latent_size);
    vibe_load_linear(l, &head->cond_proj, "cond_proj", H, H);
    vibe_load_linear(l, &head->time_in, "t_embedder.mlp.0", H, TIME_CHANNELS);
    vibe_load_linear(l, &head->time_out, "t_embedder.mlp.2", H, H);
    vibe_load_linear(l, &head->v_proj, "final_layer.linear",
                     head->config.latent_size, H);
    for (size_t i = 0; i < head->n_stacks; i++)
        bind_stack(l, &head->adaln[i], &head->config, i * VIBE_MATRIX_PARTS);
    for (size_t i = 0; i < head->config.head_layers; i++) {
        vibe_loader_scope(l, "%slayers.%zu.", prefix, i);
        bind_layer(l, &head->layers[i], &head->config);
    }
}

/* A head without weights, or NULL. */
static struct vibe_diffusion *make_head(const struct vibe_head_config *config,
                                        size_t n_dialogues,
                                        struct vibe_error *err)
{
    struct vibe_diffusion *head = calloc(1, sizeof(*head));

    if (head) {
        head->n_stacks = config->head_layers / VIBE_MATRIX_PARTS + 1;
        head->layers = calloc(config->head_layers, sizeof(*head->layers));
        head->adaln = calloc(head->n_stacks, sizeof(*head->adaln));
    }
    if (!head || !head->layers || !head->adaln) {
        vibe_fail(err, VIBE_E_NOMEM, "no memory for the diffusion head");
        vibe_diffusion_free(head);
        return NULL;
    }
    head->config = *config;
    head->max_D = n_dialogues;
    return head;
}

int vibe_diffusion_check(const struct vibe_weights *w,
                         const struct vibe_head_config *config,
                         struct vibe_error *err)
{
    struct vibe_diffusion *head = make_head(config, 1, err);
    int rc;

    if (!head)
        return VIBE_E_NOMEM;
    rc = vibe_params_check(w, bind, head, err);
    vibe_diffusion_free(head);
    return rc;
}

static int allocate_scratch(struct vibe_diffusion *head,
                            struct vibe_backend *be, struct vibe_error *err)
{
    size_t D = head->max_D;
    size_t H = head->config.hidden_size;
    size_t C = head->config.latent_size;
    const struct {
        struct vibe_tensor *t;
        size_t B, T, C;
    } plan[] = {
        {&head->cond, 2 * D, 1, H}, {&head->u, 2, D, H},
        {&head->m, 2, D, H},        {&head->v, 2, D, C},
        {&head->m1, D, 1, C},       {&head->act, 2, D, head->config.ffn_size},
    };
    int rc = VIBE_OK;

    for (size_t i = 0; !rc && i < sizeof(plan) / sizeof(plan[0]); i++)
        rc = vibe_tensor_init(plan[i].t, be, VIBE_F32, plan[i].B, plan[i].T,
                              plan[i].C, err);
    head->m.form = VIBE_FORM_PARTS;
    head->act.form = VIBE_FORM_PARTS;
    return rc;
}

int vibe_diffusion_open(struct vibe_diffusion **out, struct vibe_backend *be,
                        const struct vibe_weights *w,
                        const struct vibe_head_config *config,
                        size_t n_dialogues, struct vibe_error *err)
{
    struct vibe_diffusion *head = make_head(config, n_dialogues, err);
    int rc;

    *out = NULL;
    if (!head)
        return VIBE_E_NOMEM;
    rc = vibe_params_init(&head->params, be, w, bind, head, err);
    if (!rc)
        rc = allocate_scratch(head, be, err);
    if (rc) {
        vibe_diffusion_free(head);
        return rc;
    }
    /* a frame reads the layers once a step */
    for (size_t i = 0; i < config->head_layers; i++)
        head->layers[i].gate_up.n_again = config->head_layers;
    *out = head;
    return VIBE_OK;
}

/* Forget what vibe_diffusion_prepare made. */
static void unprepare(struct vibe_diffusion *head)
{
    struct vibe_backend *be = head->params.be;

    vibe_dpm_solver_release(&head->solver);
    vibe_tensor_release(&head->tau, be);
    vibe_tensor_release(&head->c, be);
    vibe_tensor_release(&head->at_steps, be);
}

void vibe_diffusion_free(struct vibe_diffusion *head)
{
    struct vibe_backend *be;

    if (!head)
        return;
    be = head->params.be;
    unprepare(head);
    vibe_tensor_release(&head->cond, be);
    vibe_tensor_release(&head->u, be);
    vibe_tensor_release(&head->m, be);
    vibe_tensor_release(&head->v, be);
    vibe_tensor_release(&head->m1, be);
    vibe_tensor_release(&head->act, be);
    vibe_params_release(&head->params);
    free(head->layers);
    free(head->adaln);
    free(head);
}

/* out[TIME_CHANNELS]: cosines, then sines, of t over falling frequencies. */
static void embed_timestep(float *out, float t)
{
    const int half = TIME_CHANNELS / 2;

    for (int i = 0; i < half; i++) {
        double angle = (double)t * exp(-log(10000.0) * i / half);

        out[i] = (float)cos(angle);
        out[half + i] = (float)sin(angle);
    }
}

/* tau = time_out silu(time_in e(t)), for every step. */
static int embed_steps(struct vibe_diffusion *head, struct vibe_stream *s,
                       struct vibe_error *err)
{
    struct vibe_backend *be = head->params.be;
    size_t n = head->solver.n_steps;
    size_t H = head->config.hidden_size;
    struct vibe_tensor e = {0};
    struct vibe_tensor mid = {0};
    float *host = calloc(n * TIME_CHANNELS, sizeof(*host));
    int rc;

    if (!host)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for %zu timesteps", n);
    rc = vibe_tensor_init(&e, be, VIBE_F32, 1, n, TIME_CHANNELS, err);
    if (!rc)
        rc = vibe_tensor_init(&mid, be, VIBE_F32, 1, n, H, err);
    if (rc)
        goto out;

    for (size_t i = 0; i < n; i++)
        embed_timestep(host + i * TIME_CHANNELS,
                       vibe_dpm_timestep(head->solver.timesteps[i]));
    vibe_write(s, e.data, host, n * TIME_CHANNELS * sizeof(*host));
    vibe_gemm(s, &mid, &e, &head->time_in, VIBE_STORE, NULL);
    vibe_add_silu(s, &mid, &mid, NULL);
    vibe_gemm(s, &head->tau, &mid, &head->time_out, VIBE_STORE, NULL);
    rc = vibe_stream_check(s, err);
out:
    vibe_tensor_release(&mid, be);
    vibe_tensor_release(&e, be);
    free(host);
    return rc;
}

/* Tables and scratch for n_steps; what fails is released by the caller. */
static int prepare(struct vibe_diffusion *head, struct vibe_stream *s,
                   size_t n_steps, struct vibe_error *err)
{
    struct vibe_backend *be = head->params.be;
    size_t H = head->config.hidden_size;
    size_t rows = 2 * head->max_D;
    size_t group = n_steps < GROUP_STEPS ? n_steps : GROUP_STEPS;
    int rc = vibe_dpm_solver_init(&head->solver, n_steps, err);

    if (!rc)
        rc = vibe_tensor_init(&head->tau, be, VIBE_F32, 1, n_steps, H, err);
    if (!rc)
        rc = vibe_tensor_init(&head->c, be, VIBE_F32, rows, group, H, err);
    head->c.form = VIBE_FORM_PARTS;
    if (!rc)
        rc = vibe_tensor_init(&head->at_steps, be, VIBE_F32, rows, group,
                              modulation_channels(&head->config), err);
    if (!rc)
        rc = embed_steps(head, s, err);
    return rc;
}

int vibe_diffusion_prepare(struct vibe_diffusion *head, struct vibe_stream *s,
                           size_t n_steps, struct vibe_error *err)
{
    int rc;

    if (n_steps > 0 && head->solver.n_steps == n_steps)
        return VIBE_OK;
    unprepare(head);
    rc = prepare(head, s, n_steps, err);
    if (rc)
        unprepare(head);
    return rc;
}

size_t vibe_diffusion_prepared_bytes(const struct vibe_diffusion *head,
                                     size_t n_steps)
{
    const size_t H = head->config.hidden_size;
    const size_t group = n_steps < GROUP_STEPS ? n_steps : GROUP_STEPS;
    const size_t per_row = H + modulation_channels(&head->config);
    /* of tau, and while the steps are embedded */
    const size_t per_step = 2 * H + TIME_CHANNELS;

    return sizeof(float) *
           (2 * head->max_D * group * per_row + n_steps * per_step);
}

/* Modulations of all layers for steps first .. first + n - 1. */
static void modulate_group(struct vibe_diffusion *head, struct vibe_stream *s,
                           size_t first, size_t n)
{
    struct vibe_tensor tau = vibe_tensor_rows(&head->tau, first, n);
    struct vibe_tensor cond = head->cond;
    struct vibe_tensor c = vibe_tensor_rows(&head->c, 0, n);
    struct vibe_tensor all = vibe_tensor_rows(&head->at_steps, 0, n);
    size_t at = 0;

    /* every row of a dialogue meets every step */
    cond.T = n;
    cond.stride_t = 0;
    tau = vibe_tensor_broadcast(&tau, cond.B);
    c.form = VIBE_FORM_WOVEN;
    for (size_t i = 0; i < head->n_stacks; i++)
        if (vibe_form_for(s->be, &c, &head->adaln[i], 1 << VIBE_FORM_WOVEN) !=
            VIBE_FORM_WOVEN)
            c.form = VIBE_FORM_PARTS;
    vibe_add_silu(s, &c, &cond, &tau);
    for (size_t i = 0; i < head->n_stacks; i++) {
        const struct vibe_tensor some = vibe_tensor_channels(&all, at,
                                                             head->adaln[i].N);

        vibe_gemm(s, &some, &c, &head->adaln[i], VIBE_STORE, NULL);
        at += head->adaln[i].N;
    }
}

/* Part k (shift, scale, gate) of a layer's modulation at one step, [2][D]. */
static struct vibe_tensor modulation(const struct vibe_diffusion *head,
                                     size_t layer, size_t step, size_t k)
{
    const size_t H = head->config.hidden_size;
    struct vibe_tensor t = vibe_tensor_channels(&head->at_steps,
                                                (3 * layer + k) * H, H);

    t = vibe_tensor_rows(&t, step, 1);
    t.B = 2;
    t.T = head->D;
    t.stride_t = t.stride_b;
    t.stride_b = head->D * t.stride_t;
    return t;
}

/* norm(u) * (1 + scale) + shift of a layer at a step. */
struct modulated {
    struct vibe_tensor shift, scale;
    struct vibe_norm norm;
};

/* Past the last layer the norm has no weights. */
static void modulate(struct modulated *m, const struct vibe_diffusion *head,
                     size_t layer, size_t step)
{
    *m = (struct modulated){
        .shift = modulation(head, layer, step, 0),
        .scale = modulation(head, layer, step, 1),
        .norm.eps = head->config.rms_norm_eps,
        .norm.shift = &m->shift,
        .norm.scale = &m->scale,
        .norm.room = &head->m,
    };
    if (layer < head->config.head_layers)
        m->norm.w = head->layers[layer].norm;
}

/* u of the last layer at a step of the current group, both branches. */
static void run_layers(struct vibe_diffusion *head, struct vibe_stream *s,
                       const struct vibe_tensor *x, size_t step)
{
    struct vibe_tensor both = *x;

    /* [D][1][C] seen as [2][D][C]: the branches share the latent */
    both.B = 2;
    both.T = head->D;
    both.stride_t = x->stride_b;
    both.stride_b = 0;
    vibe_linear(s, &head->u, &both, &head->noisy_proj, VIBE_STORE, NULL);
    for (size_t i = 0; i < head->config.head_layers; i++) {
        const struct head_layer *layer = &head->layers[i];
        struct vibe_tensor gate = modulation(head, i, step, 2);
        struct vibe_tensor room;
        struct modulated m;

        modulate(&m, head, i, step);
        room = vibe_norm_room(s->be, &m.norm, &layer->gate_up);
        head->act.form = vibe_form_for(
            s->be, &head->act, &layer->down,
            vibe_linear_forms(s->be, &room, &layer->gate_up));
        vibe_linear_norm(s, &head->act, &head->u, &m.norm, &layer->gate_up,
                         VIBE_SWIGLU, NULL);
        vibe_linear(s, &head->u, &head->act, &layer->down, VIBE_GATE_ADD,
                    &gate);
    }
}

/* Lay the scratch out for D dialogues. */
static void fit(struct vibe_diffusion *head, size_t D)
{
    struct vibe_tensor *const steps[] = {&head->u, &head->m, &head->v,
                                         &head->act};

    assert(D <= head->max_D);
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        steps[i]->T = D;
        steps[i]->stride_b = D * steps[i]->stride_t;
    }
    head->at_steps.B = 2 * D;
    head->cond.B = 2 * D;
    head->c.B = 2 * D;
    head->m1.B = D;
    head->D = D;
}

void vibe_diffusion_sample(struct vibe_diffusion *head, struct vibe_stream *s,
                           const struct vibe_tensor *latent,
                           const struct vibe_tensor *cond,
                           const float *cfg_scale)
{
    size_t n_steps = head->solver.n_steps;
    size_t group = head->c.T;
    const struct vibe_solver solver = {
        .x = latent, .m1 = &head->m1, .v = &head->v, .cfg_scale = cfg_scale};

    assert(n_steps > 0);
    assert(latent->C == head->config.latent_size);
    assert(cond->B == 2 * latent->B && cond->C == head->config.hidden_size);
    fit(head, latent->B);
    vibe_linear(s, &head->cond, cond, &head->cond_proj, VIBE_STORE, NULL);
    for (size_t i = 0; i < n_steps && !s->err.code; i++) {
        const size_t left = n_steps - i;
        struct modulated m;

        if (i % group == 0)
            modulate_group(head, s, i, left < group ? left : group);
        run_layers(head, s, latent, i % group);
        modulate(&m, head, head->config.head_layers, i % group);
        vibe_solve(s, &solver, &head->solver.coef[i], &head->u, &m.norm,
                   &head->v_proj);
    }
}

size_t vibe_diffusion_frame_bytes(const struct vibe_diffusion *head)
{
    size_t bytes = head->cond_proj.bytes;

    for (size_t i = 0; i < head->n_stacks; i++)
        bytes += head->adaln[i].bytes;
    return bytes;
}

size_t vibe_diffusion_step_bytes(const struct vibe_diffusion *head)
{
    size_t bytes = head->noisy_proj.bytes + head->v_proj.bytes;

    for (size_t i = 0; i < head->config.head_layers; i++)
        bytes += head->layers[i].gate_up.bytes + head->layers[i].down.bytes;
    return bytes;
}
