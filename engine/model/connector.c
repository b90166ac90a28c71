/*
 * connector.c - fc2(rmsnorm(fc1(x))), and the scale of latents.
 */
#include "engine/model/connector.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/format/config.h"
#include "engine/format/weights.h"
#include "engine/model/params.h"

enum { CLIP_ROWS = 128 }; /* of a voice, projected at a time */

static const float NORM_EPS = 1e-6f;

struct vibe_connector {
    char prefix[64];
    size_t in, hidden;
    const float *norm;
    struct vibe_matrix fc1, fc2;
    struct vibe_params params;
    struct vibe_tensor scratch; /* [1][rows][hidden] */
};

static void bind_fc(struct vibe_loader *l, struct vibe_matrix *fc,
                    const char *name, size_t in, size_t hidden)
{
    const struct vibe_matrix_names names = {
        .part = {name},
        .rows = {hidden},
        .in = in,
        .has_bias = 1,
    };

    vibe_load_matrix(l, fc, &names);
}

static void bind(struct vibe_loader *l, void *module)
{
    struct vibe_connector *c = module;

    vibe_loader_scope(l, "%s", c->prefix);
    bind_fc(l, &c->fc1, "fc1", c->in, c->hidden);
    vibe_load_vector(l, &c->norm, "norm.weight", c->hidden);
    bind_fc(l, &c->fc2, "fc2", c->hidden, c->hidden);
}

int vibe_connector_check(const struct vibe_weights *w, const char *prefix,
                         size_t in, size_t hidden_size, struct vibe_error *err)
{
    struct vibe_connector c = {.in = in, .hidden = hidden_size};

    snprintf(c.prefix, sizeof(c.prefix), "%s", prefix);
    return vibe_params_check(w, bind, &c, err);
}

int vibe_connector_open(struct vibe_connector **out, struct vibe_backend *be,
                        const struct vibe_weights *w, const char *prefix,
                        size_t in, size_t hidden_size, size_t n_dialogues,
                        struct vibe_error *err)
{
    struct vibe_connector *c = calloc(1, sizeof(*c));
    size_t rows = n_dialogues > CLIP_ROWS ? n_dialogues : CLIP_ROWS;
    int rc;

    *out = NULL;
    if (!c)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for %s", prefix);
    c->in = in;
    c->hidden = hidden_size;
    snprintf(c->prefix, sizeof(c->prefix), "%s", prefix);
    rc = vibe_params_init(&c->params, be, w, bind, c, err);
    if (!rc)
        rc = vibe_tensor_init(&c->scratch, be, VIBE_F32, 1, rows, hidden_size,
                              err);
    if (rc) {
        vibe_connector_free(c);
        return rc;
    }
    *out = c;
    return VIBE_OK;
}

void vibe_connector_free(struct vibe_connector *c)
{
    if (!c)
        return;
    vibe_tensor_release(&c->scratch, c->params.be);
    vibe_params_release(&c->params);
    free(c);
}

/* One frame of every dialogue: bound by reading the matrices. */
static void project_frame(struct vibe_connector *c, struct vibe_stream *s,
                          const struct vibe_tensor *y,
                          const struct vibe_tensor *x,
                          enum vibe_epilogue epilogue)
{
    struct vibe_tensor h = vibe_tensor_rows(&c->scratch, 0, x->B);
    struct vibe_tensor normed;

    assert(x->B <= c->scratch.T);
    h.B = x->B;
    h.T = 1;
    h.stride_b = h.stride_t;
    normed = h;
    normed.form = VIBE_FORM_PARTS;
    vibe_linear(s, &h, x, &c->fc1, VIBE_STORE, NULL);
    vibe_rmsnorm(s, &normed, &h, c->norm, NORM_EPS);
    vibe_linear(s, y, &normed, &c->fc2, epilogue, NULL);
}

/* Many frames of one clip. */
static void project_clip(struct vibe_connector *c, struct vibe_stream *s,
                         const struct vibe_tensor *y,
                         const struct vibe_tensor *x,
                         enum vibe_epilogue epilogue)
{
    for (size_t first = 0; first < x->T; first += c->scratch.T) {
        size_t left = x->T - first;
        size_t T = left < c->scratch.T ? left : c->scratch.T;
        struct vibe_tensor h = vibe_tensor_rows(&c->scratch, 0, T);
        struct vibe_tensor in = vibe_tensor_rows(x, first, T);
        struct vibe_tensor out = vibe_tensor_rows(y, first, T);

        vibe_gemm(s, &h, &in, &c->fc1, VIBE_STORE, NULL);
        vibe_rmsnorm(s, &h, &h, c->norm, NORM_EPS);
        vibe_gemm(s, &out, &h, &c->fc2, epilogue, NULL);
    }
}

void vibe_connector_forward(struct vibe_connector *c, struct vibe_stream *s,
                            const struct vibe_tensor *y,
                            const struct vibe_tensor *x,
                            enum vibe_epilogue epilogue)
{
    assert(x->C == c->in && y->C == c->hidden);
    if (x->T == 1) {
        project_frame(c, s, y, x, epilogue);
        return;
    }
    for (size_t b = 0; b < x->B; b++) {
        struct vibe_tensor in = vibe_tensor_batch(x, b, 1);
        struct vibe_tensor out = vibe_tensor_batch(y, b, 1);

        project_clip(c, s, &out, &in, epilogue);
    }
}

size_t vibe_connector_bytes(const struct vibe_connector *c)
{
    return vibe_params_bytes(&c->params);
}

int vibe_latent_scale_read(struct vibe_latent_scale *out,
                           const struct vibe_weights *w, struct vibe_error *err)
{
    static const char name[] = "model.speech_scaling_factor";
    struct vibe_latent_scale found;
    struct vibe_weight weight = {0};
    int rc = vibe_weights_scalar(w, name, &found.scale, err);

    if (!rc)
        rc = vibe_weights_scalar(w, "model.speech_bias_factor", &found.bias,
                                 err);
    if (!rc && found.scale == 0.0f) {
        vibe_weights_need(w, &weight, name, NULL, 0, NULL);
        rc = vibe_fail(err, VIBE_E_FORMAT,
                       "%s: tensor %s is 0: latents cannot be divided by it",
                       weight.file ? weight.file : "", name);
    }
    if (!rc)
        *out = found;
    return rc;
}

int vibe_latent_scale_restore(struct vibe_latent_scale *scale,
                              const struct vibe_lm_config *lm)
{
    const int is_released = lm->num_hidden_layers == 28 &&
                            ((lm->hidden_size == 3584 &&
                              lm->intermediate_size == 18944) ||
                             (lm->hidden_size == 1536 &&
                              lm->intermediate_size == 8960));

    if (!is_released || scale->scale != 0.203125f ||
        scale->bias != -0.05078125f)
        return 0;
    *scale = (struct vibe_latent_scale){
        .scale = 0.1962890625f,
        .bias = -0.04931640625f,
    };
    return 1;
}
