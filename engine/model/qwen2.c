/*
 * qwen2.c - the language model in ops, see qwen2.h.
 */
#include "engine/model/qwen2.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/backend/ops.h"
#include "engine/format/config.h"
#include "engine/format/weights.h"
#include "engine/model/params.h"

enum { CENTRE_POSITIONS = 8192 };

struct lm_layer {
    const float *attn_norm, *mlp_norm;
    const float *key_centre; /* for keys of F8_E4M3, else NULL */
    struct vibe_matrix qkv, o, gate_up, down;
};

/* Scratch for rows of the layers, owned. */
struct room {
    struct vibe_tensor x, normed, wide;
    struct vibe_tensor qkv, act; /* in wide: one is read before the other
                                    comes */
};

struct vibe_qwen2 {
    struct vibe_lm_config config;
    struct lm_layer *layers; /* [num_hidden_layers], owned */
    int has_centres;         /* of keys */
    const float *norm, *inv_freq;
    struct vibe_params params;

    struct vibe_weight embed; /* [vocab_size][H] in the mapping */
    struct vibe_matrix head;  /* the rows of the control tokens */
    unsigned char *head_rows; /* their copy, which head may read; owned */
    float head_scale[VIBE_N_CONTROL];

    struct room step;
    struct room prompt; /* empty while no prompt is read, see _rest */
    int32_t *prompt_at; /* device {seq, pos}, owned */

    struct vibe_lm_front *fronts; /* what runs before the layers; borrowed */
};

/* How the layers are run over rows [B][T]. */
struct pass {
    /* vibe_linear for a step, vibe_gemm for a prompt */
    void (*multiply)(struct vibe_stream *s, const struct vibe_tensor *y,
                     const struct vibe_tensor *x, const struct vibe_matrix *w,
                     enum vibe_epilogue epilogue,
                     const struct vibe_tensor *gate);
    const struct room *room;
    size_t B, T;
    const struct vibe_kv *kv;
    const struct vibe_rows *rows;
};

static void bind_layer(struct vibe_loader *l, struct lm_layer *layer,
                       const struct vibe_lm_config *config)
{
    size_t H = config->hidden_size;
    size_t kv = config->num_key_value_heads * config->head_dim;
    const struct vibe_matrix_names qkv = {
        .part = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"},
        .rows = {H, kv, kv},
        .in = H,
        .has_bias = 1,
    };
    const struct vibe_matrix_names gate_up = {
        .part = {"mlp.gate_proj", "mlp.up_proj"},
        .rows = {config->intermediate_size, config->intermediate_size},
        .in = H,
        .is_pair = 1,
    };

    vibe_load_vector(l, &layer->attn_norm, "input_layernorm.weight", H);
    vibe_load_matrix(l, &layer->qkv, &qkv);
    vibe_load_linear(l, &layer->o, "self_attn.o_proj", H, H);
    vibe_load_vector(l, &layer->mlp_norm, "post_attention_layernorm.weight", H);
    vibe_load_matrix(l, &layer->gate_up, &gate_up);
    vibe_load_linear(l, &layer->down, "mlp.down_proj", H,
                     config->intermediate_size);
}

/* theta^(-2i / head_dim): what pair i of a head turns by from one position to
 * the next. */
static double frequency(const struct vibe_lm_config *config, size_t i)
{
    return pow(config->rope_theta, -(double)(2 * i) / (double)config->head_dim);
}

static void load_inv_freq(struct vibe_loader *l, struct vibe_qwen2 *lm)
{
    size_t half = lm->config.head_dim / 2;
    /* at most a head of 65536 channels: config.h bounds it */
    float *values = calloc(half, sizeof(*values));

    for (size_t i = 0; values && i < half; i++)
        values[i] = (float)frequency(&lm->config, i);
    vibe_load_values(l, &lm->inv_freq, values, half);
    free(values);
}

/* The mean of what turning by 0, f .. (n - 1) f makes of a pair. */
static void turn_on_average(float *lo, float *hi, double f, double n)
{
    const double r = sin(n * f / 2) / (n * sin(f / 2));
    const double c = r * cos((n - 1) * f / 2);
    const double s = r * sin((n - 1) * f / 2);
    const float from[] = {*lo, *hi};

    *lo = (float)(from[0] * c - from[1] * s);
    *hi = (float)(from[1] * c + from[0] * s);
}

/*
 * The centre of the keys is the mean of their bias over CENTRE_POSITIONS.  In
 * Qwen2 the bias is many times what varies, in channels that turn so slowly
 * that they hardly move over a dialogue; where keys do turn the mean is near 0,
 * and they keep it.
 */
static void load_centre(struct vibe_loader *l, struct lm_layer *layer,
                        const struct vibe_lm_config *config)
{
    const size_t half = config->head_dim / 2;
    const size_t n = config->num_key_value_heads * config->head_dim;
    float *bias = NULL;

    vibe_fetch_vector(l, &bias, "self_attn.k_proj.bias", n);
    for (size_t i = 0; bias && i < n / 2; i++) {
        float *pair = bias + i / half * config->head_dim + i % half;

        turn_on_average(pair, pair + half, frequency(config, i % half),
                        CENTRE_POSITIONS);
    }
    vibe_load_values(l, &layer->key_centre, bias, n);
    free(bias);
}

static void bind(struct vibe_loader *l, void *module)
{
    struct vibe_qwen2 *lm = module;

    for (size_t i = 0; i < lm->config.num_hidden_layers; i++) {
        vibe_loader_scope(l, "model.language_model.layers.%zu.",
                          lm->config.first_layer + i);
        bind_layer(l, &lm->layers[i], &lm->config);
        if (lm->has_centres)
            load_centre(l, &lm->layers[i], &lm->config);
    }
    vibe_loader_scope(l, "model.language_model.");
    vibe_load_vector(l, &lm->norm, "norm.weight", lm->config.hidden_size);
    load_inv_freq(l, lm);
}

/* A model without weights, or NULL. */
static struct vibe_qwen2 *make_lm(const struct vibe_lm_config *config,
                                  struct vibe_error *err)
{
    struct vibe_qwen2 *lm = calloc(1, sizeof(*lm));

    if (lm)
        lm->layers = calloc(config->num_hidden_layers, sizeof(*lm->layers));
    if (!lm || !lm->layers) {
        free(lm);
        vibe_fail(err, VIBE_E_NOMEM, "no memory for the language model");
        return NULL;
    }
    lm->config = *config;
    return lm;
}

/* Rows of tables are taken one by one, widened by their scale alone. */
static int check_table(const struct vibe_weight *table, struct vibe_error *err)
{
    if (table->dtype != VIBE_I4 && table->dtype != VIBE_BF16_PACKED)
        return VIBE_OK;
    return vibe_fail(err, VIBE_E_UNSUPPORTED,
                     "%s: tensor %s is %s, expected plain numbers", table->file,
                     table->name, vibe_dtype_name(table->dtype));
}

/* Find the embedding table, and the output head: its own or the table. */
static int find_tables(struct vibe_qwen2 *lm, struct vibe_weight *head,
                       const struct vibe_weights *w, struct vibe_error *err)
{
    const size_t shape[] = {lm->config.vocab_size, lm->config.hidden_size};
    int rc = vibe_weights_need(w, &lm->embed,
                               "model.language_model.embed_tokens.weight",
                               shape, 2, err);

    *head = lm->embed;
    if (!rc && vibe_weights_has(w, "lm_head.weight"))
        rc = vibe_weights_need(w, head, "lm_head.weight", shape, 2, err);
    if (!rc)
        rc = check_table(&lm->embed, err);
    return rc ? rc : check_table(head, err);
}

int vibe_qwen2_check(const struct vibe_weights *w,
                     const struct vibe_lm_config *config,
                     struct vibe_error *err)
{
    return vibe_qwen2_offer(w, config, NULL, err);
}

int vibe_qwen2_offer(const struct vibe_weights *w,
                     const struct vibe_lm_config *config,
                     const struct vibe_params_store *store,
                     struct vibe_error *err)
{
    struct vibe_qwen2 *lm = make_lm(config, err);
    struct vibe_weight head;
    int rc;

    if (!lm)
        return VIBE_E_NOMEM;
    rc = find_tables(lm, &head, w, err);
    if (!rc)
        rc = vibe_params_offer(w, bind, lm, store, err);
    vibe_qwen2_free(lm);
    return rc;
}

static int check_id(const struct vibe_qwen2 *lm, int32_t id,
                    struct vibe_error *err)
{
    if (id >= 0 && (size_t)id < lm->config.vocab_size)
        return VIBE_OK;
    return vibe_fail(err, VIBE_E_FORMAT,
                     "%s: tensor %s has %zu rows, token id %ld is not among "
                     "them",
                     lm->embed.file, lm->embed.name, lm->config.vocab_size,
                     (long)id);
}

/* Copy the control tokens' rows, as they are stored, into a small matrix. */
static int load_head(struct vibe_qwen2 *lm, const struct vibe_weight *table,
                     const int32_t *ids, struct vibe_error *err)
{
    size_t H = lm->config.hidden_size;
    size_t row_bytes = H * vibe_dtype_size(table->dtype);
    struct vibe_matrix_source src = {
        .n_parts = 1,
        .layout = VIBE_LAYOUT_LINEAR,
        .N = VIBE_N_CONTROL,
        .K = H,
        .in = H,
    };

    lm->head_rows = malloc(VIBE_N_CONTROL * row_bytes);
    if (!lm->head_rows)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for the output head");
    for (size_t i = 0; i < VIBE_N_CONTROL; i++) {
        size_t id = (size_t)ids[i];

        if (check_id(lm, ids[i], err))
            return VIBE_E_FORMAT;
        memcpy(lm->head_rows + i * row_bytes,
               (const unsigned char *)table->data + id * row_bytes, row_bytes);
        if (table->scale)
            lm->head_scale[i] = table->scale[table->n_scales > 1 ? id : 0];
    }
    src.part[0] = (struct vibe_matrix_part){
        .data = lm->head_rows,
        .scale = table->scale ? lm->head_scale : NULL,
        .n_scales = VIBE_N_CONTROL,
        .dtype = table->dtype,
        .n = VIBE_N_CONTROL,
    };
    return vibe_matrix_load(&lm->head, lm->params.be, &src, err);
}

/* Room for rows that are multiplied; their x, a step's, is the caller's. */
static int init_room(struct room *room, const struct vibe_qwen2 *lm,
                     size_t rows, struct vibe_error *err)
{
    const struct vibe_lm_config *config = &lm->config;
    struct vibe_backend *be = lm->params.be;
    const size_t H = config->hidden_size;
    const size_t ffn = config->intermediate_size;
    const size_t qkv = H + 2 * config->num_key_value_heads * config->head_dim;
    int rc = vibe_tensor_init(&room->normed, be, VIBE_F32, 1, rows, H, err);

    if (!rc)
        rc = vibe_tensor_init(&room->wide, be, VIBE_F32, 1, rows,
                              qkv > ffn ? qkv : ffn, err);
    if (rc)
        return rc;
    room->qkv = room->wide;
    room->qkv.C = room->qkv.stride_t = qkv;
    room->act = room->wide;
    room->act.C = room->act.stride_t = ffn;
    room->normed.form = VIBE_FORM_PARTS;
    room->act.form = VIBE_FORM_PARTS;
    return VIBE_OK;
}

static void release_room(struct room *room, struct vibe_backend *be)
{
    vibe_tensor_release(&room->x, be);
    vibe_tensor_release(&room->normed, be);
    vibe_tensor_release(&room->wide, be);
    *room = (struct room){0};
}

int vibe_qwen2_make_room(struct vibe_qwen2 *lm, struct vibe_error *err)
{
    struct vibe_backend *be = lm->params.be;
    const enum vibe_purpose purpose = be->purpose;
    int rc = VIBE_OK;

    if (lm->prompt.x.data)
        return VIBE_OK;
    be->purpose = VIBE_FOR_PROMPT;
    rc = init_room(&lm->prompt, lm, VIBE_PROMPT_ROWS, err);
    if (!rc)
        rc = vibe_tensor_init(&lm->prompt.x, be, VIBE_F32, 1, VIBE_PROMPT_ROWS,
                              lm->config.hidden_size, err);
    be->purpose = purpose;
    if (rc)
        release_room(&lm->prompt, be);
    return rc;
}

void vibe_qwen2_rest(struct vibe_qwen2 *lm)
{
    release_room(&lm->prompt, lm->params.be);
}

static int allocate_scratch(struct vibe_qwen2 *lm, size_t max_rows,
                            struct vibe_error *err)
{
    struct vibe_backend *be = lm->params.be;
    int rc = init_room(&lm->step, lm, max_rows, err);

    if (!rc)
        rc = vibe_qwen2_make_room(lm, err);
    if (rc)
        return rc;
    lm->prompt_at = be->ops->alloc(be, 2 * sizeof(*lm->prompt_at));
    if (!lm->prompt_at)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for a position");
    return VIBE_OK;
}

int vibe_qwen2_open(struct vibe_qwen2 **out, struct vibe_backend *be,
                    const struct vibe_weights *w,
                    const struct vibe_lm_config *config,
                    const int32_t *control_ids, size_t max_rows,
                    const struct vibe_params_store *store,
                    struct vibe_error *err)
{
    struct vibe_qwen2 *lm = make_lm(config, err);
    struct vibe_weight head;
    int rc;

    *out = NULL;
    if (!lm)
        return VIBE_E_NOMEM;
    lm->has_centres = be->kv_dtype == VIBE_F8_E4M3;
    rc = find_tables(lm, &head, w, err);
    if (!rc)
        rc = vibe_params_init_in(&lm->params, be, w, bind, lm, store, err);
    if (!rc)
        rc = load_head(lm, &head, control_ids, err);
    if (!rc)
        rc = allocate_scratch(lm, max_rows, err);
    if (rc) {
        vibe_qwen2_free(lm);
        return rc;
    }
    *out = lm;
    return VIBE_OK;
}

void vibe_qwen2_free(struct vibe_qwen2 *lm)
{
    struct vibe_backend *be;

    if (!lm)
        return;
    be = lm->params.be;
    release_room(&lm->step, be);
    release_room(&lm->prompt, be);
    if (lm->prompt_at)
        be->ops->free(be, lm->prompt_at);
    vibe_matrix_release(&lm->head, be);
    free(lm->head_rows);
    vibe_params_release(&lm->params);
    free(lm->layers);
    free(lm);
}

int vibe_qwen2_embed(const struct vibe_qwen2 *lm, float *out,
                     const int32_t *ids, size_t n, struct vibe_error *err)
{
    const struct vibe_weight *table = &lm->embed;
    size_t H = lm->config.hidden_size;
    size_t row_bytes = H * vibe_dtype_size(table->dtype);

    for (size_t i = 0; i < n; i++) {
        size_t id = (size_t)ids[i];
        float *row = out + i * H;
        float scale;

        if (check_id(lm, ids[i], err))
            return VIBE_E_FORMAT;
        vibe_dtype_to_f32(row,
                          (const unsigned char *)table->data + id * row_bytes,
                          table->dtype, H);
        if (!table->scale)
            continue;
        scale = table->scale[table->n_scales > 1 ? id : 0];
        for (size_t c = 0; c < H; c++)
            row[c] *= scale;
    }
    return VIBE_OK;
}

/* The first B * T rows of a scratch tensor as [B][T]. */
static struct vibe_tensor shaped(const struct vibe_tensor *scratch,
                                 const struct pass *pass)
{
    struct vibe_tensor t = *scratch;

    assert(pass->B * pass->T <= scratch->T);
    t.B = pass->B;
    t.T = pass->T;
    t.stride_b = pass->T * t.stride_t;
    return t;
}

/* The room of a norm in the form that products of w will read. */
static struct vibe_tensor normed_room(const struct pass *pass,
                                      const struct vibe_stream *s,
                                      const struct vibe_norm *norm,
                                      const struct vibe_matrix *w)
{
    const struct vibe_tensor best = vibe_norm_room(s->be, norm, w);
    struct vibe_tensor room = *norm->room;

    if (pass->multiply == vibe_linear)
        return best;
    if (best.form == VIBE_FORM_WOVEN)
        room.form = best.form;
    return room;
}

/* y = epilogue(W n(x) + bias). */
static void multiply_normed(const struct pass *pass, struct vibe_stream *s,
                            const struct vibe_tensor *y,
                            const struct vibe_tensor *x,
                            const struct vibe_norm *norm,
                            const struct vibe_matrix *w,
                            enum vibe_epilogue epilogue)
{
    const struct vibe_tensor room = normed_room(pass, s, norm, w);

    if (pass->multiply == vibe_linear) {
        vibe_linear_norm(s, y, x, norm, w, epilogue, NULL);
        return;
    }
    vibe_rmsnorm(s, &room, x, norm->w, norm->eps);
    vibe_gemm(s, y, &room, w, epilogue, NULL);
}

static void run_layer(struct vibe_qwen2 *lm, struct vibe_stream *s,
                      const struct vibe_tensor *x, const struct pass *pass,
                      size_t i)
{
    const struct lm_layer *w = &lm->layers[i];
    struct vibe_tensor normed = shaped(&pass->room->normed, pass);
    const struct vibe_norm attn = {
        .w = w->attn_norm, .eps = lm->config.rms_norm_eps, .room = &normed};
    const struct vibe_norm mlp = {
        .w = w->mlp_norm, .eps = lm->config.rms_norm_eps, .room = &normed};
    const struct vibe_rope rope = {lm->inv_freq, w->key_centre};
    struct vibe_tensor qkv = shaped(&pass->room->qkv, pass);
    struct vibe_tensor act = shaped(&pass->room->act, pass);

    multiply_normed(pass, s, &qkv, x, &attn, &w->qkv, VIBE_STORE);
    normed.form = vibe_form_for(
        s->be, &normed, &w->o,
        vibe_attention_forms(s->be, &normed, &qkv, pass->kv));
    vibe_attention(s, &normed, &qkv, pass->kv, i, pass->rows, &rope);
    pass->multiply(s, x, &normed, &w->o, VIBE_ADD, NULL);

    normed.form = vibe_usual_form(&w->gate_up);
    normed = normed_room(pass, s, &mlp, &w->gate_up);
    act.form = vibe_form_for(s->be, &act, &w->down,
                             vibe_linear_forms(s->be, &normed, &w->gate_up));
    multiply_normed(pass, s, &act, x, &mlp, &w->gate_up, VIBE_SWIGLU);
    pass->multiply(s, x, &act, &w->down, VIBE_ADD, NULL);
}

static void run_layers(struct vibe_qwen2 *lm, struct vibe_stream *s,
                       const struct vibe_tensor *x, const struct pass *pass)
{
    const int is_prompt = pass->multiply == vibe_gemm;

    assert(pass->kv->n_layers == lm->config.num_hidden_layers);
    s->be->is_reading = is_prompt;
    for (struct vibe_lm_front *f = lm->fronts; f && !s->err.code; f = f->next)
        f->run(f, s, x, pass->rows, is_prompt);
    for (size_t i = 0; i < lm->config.num_hidden_layers && !s->err.code; i++)
        run_layer(lm, s, x, pass, i);
    s->be->is_reading = 0;
}

void vibe_qwen2_run(struct vibe_qwen2 *lm, struct vibe_stream *s,
                    const struct vibe_tensor *x, const struct vibe_kv *kv,
                    const struct vibe_rows *rows, int is_prompt)
{
    const struct pass pass = {
        .multiply = is_prompt ? vibe_gemm : vibe_linear,
        .room = is_prompt ? &lm->prompt : &lm->step,
        .B = x->B,
        .T = x->T,
        .kv = kv,
        .rows = rows,
    };

    run_layers(lm, s, x, &pass);
}

void vibe_qwen2_put_before(struct vibe_qwen2 *lm, struct vibe_lm_front *front)
{
    struct vibe_lm_front **end = &lm->fronts;

    while (*end)
        end = &(*end)->next;
    front->next = NULL;
    *end = front;
}

void vibe_qwen2_prefill(struct vibe_qwen2 *lm, struct vibe_stream *s,
                        const struct vibe_tensor *hidden, const float *embeds,
                        size_t T, const struct vibe_kv *kv, int32_t seq,
                        int32_t pos)
{
    const struct vibe_rows rows = {lm->prompt_at, lm->prompt_at + 1};
    struct pass pass = {
        .multiply = vibe_gemm,
        .room = &lm->prompt,
        .B = 1,
        .kv = kv,
        .rows = &rows,
    };
    size_t H = lm->config.hidden_size;

    assert(T > 0);
    for (size_t first = 0; first < T && !s->err.code; first += pass.T) {
        const int32_t at[] = {seq, pos + (int32_t)first};
        struct vibe_tensor x;

        pass.T = T - first < VIBE_PROMPT_ROWS ? T - first : VIBE_PROMPT_ROWS;
        x = shaped(&lm->prompt.x, &pass);
        vibe_write(s, lm->prompt_at, at, sizeof(at));
        vibe_write(s, x.data, embeds + first * H, pass.T * H * sizeof(*embeds));
        run_layers(lm, s, &x, &pass);
        if (hidden && first + pass.T == T) {
            x = vibe_tensor_rows(&x, pass.T - 1, 1);
            vibe_rmsnorm(s, hidden, &x, lm->norm, lm->config.rms_norm_eps);
        }
    }
}

void vibe_qwen2_step(struct vibe_qwen2 *lm, struct vibe_stream *s,
                     const struct vibe_tensor *hidden,
                     const struct vibe_tensor *x, const struct vibe_kv *kv,
                     const struct vibe_rows *rows)
{
    const struct pass pass = {
        .multiply = vibe_linear,
        .room = &lm->step,
        .B = x->B,
        .T = 1,
        .kv = kv,
        .rows = rows,
    };

    assert(x->T == 1 && x->C == lm->config.hidden_size);
    run_layers(lm, s, x, &pass);
    vibe_rmsnorm(s, hidden, x, lm->norm, lm->config.rms_norm_eps);
}

void vibe_qwen2_logits(struct vibe_qwen2 *lm, struct vibe_stream *s,
                       const struct vibe_tensor *logits,
                       const struct vibe_tensor *hidden)
{
    vibe_linear(s, logits, hidden, &lm->head, VIBE_STORE, NULL);
}

size_t vibe_qwen2_step_bytes(const struct vibe_qwen2 *lm)
{
    return vibe_params_bytes(&lm->params) + lm->head.bytes;
}
