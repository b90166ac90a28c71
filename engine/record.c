#include "engine/record.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/backend/noise.h"
#include "engine/format/safetensors_write.h"
#include "engine/models.h"
#include "engine/prompt.h"
#include "engine/vibevoice.h"

/* A tensor that grows by whole rows. */
struct column {
    char *data; /* owned */
    size_t n_bytes, cap;
};

struct vibe_recorder {
    const struct vibe_models *models;
    const struct vibe_request *request;
    struct vibe_safetensors_item *items; /* names and data owned */
    size_t n_items, cap_items;
    struct column ids, logits, audio; /* generated.* */
    struct column features, embeds;   /* voice.* */
    size_t n_prompt, n_tokens, n_frames, n_voice_frames;
    struct vibe_error err; /* latched */
};

static void latch_nomem(struct vibe_recorder *rec)
{
    vibe_fail(&rec->err, VIBE_E_NOMEM, "%s: no memory for a record",
              rec->request->dump_dir);
}

static void append(struct vibe_recorder *rec, struct column *column,
                   const void *data, size_t n_bytes)
{
    if (rec->err.code != VIBE_OK)
        return;
    if (column->n_bytes + n_bytes > column->cap) {
        const size_t cap = 2 * (column->n_bytes + n_bytes);
        char *grown = realloc(column->data, cap);

        if (!grown) {
            latch_nomem(rec);
            return;
        }
        column->data = grown;
        column->cap = cap;
    }
    memcpy(column->data + column->n_bytes, data, n_bytes);
    column->n_bytes += n_bytes;
}

/* Keep a tensor of up to three dimensions; a trailing 0 ends the shape.
 * Takes data, name is copied. */
static void keep(struct vibe_recorder *rec, const char *name,
                 enum vibe_dtype dtype, const size_t shape[3], void *data)
{
    struct vibe_safetensors_item *item;

    if (rec->n_items == rec->cap_items) {
        const size_t cap = rec->cap_items ? 2 * rec->cap_items : 64;
        void *grown = realloc(rec->items, cap * sizeof(*rec->items));

        if (grown) {
            rec->items = grown;
            rec->cap_items = cap;
        }
    }
    if (!data || rec->n_items == rec->cap_items) {
        free(data);
        latch_nomem(rec);
        return;
    }
    item = &rec->items[rec->n_items++];
    *item = (struct vibe_safetensors_item){
        .name = strdup(name),
        .dtype = dtype,
        .data = data,
    };
    while (item->n_dims < 3 && shape[item->n_dims]) {
        item->shape[item->n_dims] = shape[item->n_dims];
        item->n_dims++;
    }
    if (!item->name)
        latch_nomem(rec);
}

/* Read rows of a device tensor and keep them as frameNNN.<name>. */
static void keep_device(struct vibe_recorder *rec, struct vibe_stream *s,
                        const char *name, const struct vibe_tensor *t,
                        const size_t shape[3])
{
    const size_t n_bytes = t->T * t->C * sizeof(float);
    char full[64];
    void *data = malloc(n_bytes);

    if (data)
        vibe_read(s, data, t->data, n_bytes);
    if (data && vibe_stream_check(s, &rec->err) != VIBE_OK) {
        free(data);
        return;
    }
    snprintf(full, sizeof(full), "frame%03zu.%s", rec->n_frames, name);
    keep(rec, full, VIBE_F32, shape, data);
}

/* The draw of this frame; the reference makes two rows and uses the first. */
static void keep_noise(struct vibe_recorder *rec, size_t C)
{
    float *noise = calloc(2 * C, sizeof(*noise));
    char full[64];

    for (size_t i = 0; noise && i < C; i++)
        noise[i] = vibe_noise_normal(rec->request->seed, 0,
                                     (uint32_t)rec->n_frames, (uint32_t)i);
    snprintf(full, sizeof(full), "frame%03zu.noise0", rec->n_frames);
    keep(rec, full, VIBE_F32, (size_t[3]){2, C, 0}, noise);
}

int vibe_recorder_open(struct vibe_recorder **out,
                       const struct vibe_models *models,
                       const struct vibe_request *request,
                       const struct vibe_prompt *prompt, struct vibe_error *err)
{
    struct vibe_recorder *rec = NULL;
    int64_t *ids = NULL;

    *out = NULL;
    if (mkdir(request->dump_dir, 0777) != 0 && errno != EEXIST)
        return vibe_fail(err, VIBE_E_IO, "%s: %s", request->dump_dir,
                         strerror(errno));
    rec = calloc(1, sizeof(*rec));
    if (!rec)
        return vibe_fail(err, VIBE_E_NOMEM, "%s: no memory for a record",
                         request->dump_dir);
    rec->models = models;
    rec->request = request;
    rec->n_prompt = prompt->n;
    ids = calloc(prompt->n, sizeof(*ids));
    for (size_t i = 0; ids && i < prompt->n; i++)
        ids[i] = prompt->ids[i];
    keep(rec, "prompt.ids", VIBE_I64, (size_t[3]){prompt->n, 0, 0}, ids);
    *out = rec;
    return VIBE_OK;
}

void vibe_recorder_free(struct vibe_recorder *rec)
{
    if (!rec)
        return;
    for (size_t i = 0; i < rec->n_items; i++) {
        free((char *)rec->items[i].name);
        free((void *)rec->items[i].data);
    }
    free(rec->items);
    free(rec->ids.data);
    free(rec->logits.data);
    free(rec->audio.data);
    free(rec->features.data);
    free(rec->embeds.data);
    free(rec);
}

void vibe_recorder_voice(struct vibe_recorder *rec, const float *features,
                         const float *embeds, size_t n_frames)
{
    const struct vibe_config *config = rec ? &rec->models->config : NULL;

    if (!rec)
        return;
    append(rec, &rec->features, features,
           n_frames * config->acoustic_encoder.vae_dim * sizeof(*features));
    append(rec, &rec->embeds, embeds,
           n_frames * config->lm.hidden_size * sizeof(*embeds));
    rec->n_voice_frames += n_frames;
}

/* Everything of a frame that was spoken. */
static void keep_frame(struct vibe_recorder *rec, struct vibe_generator *g)
{
    const struct vibe_config *config = &rec->models->config;
    const size_t H = config->lm.hidden_size;
    const size_t latent = config->head.latent_size;
    const struct vibe_tensor positive = vibe_tensor_batch(&g->hidden, 0, 1);
    const struct vibe_tensor negative = vibe_tensor_batch(&g->hidden, g->n, 1);
    const struct vibe_frame *f = &g->frame;

    keep_noise(rec, latent);
    keep_device(rec, g->s, "pos_condition", &positive, (size_t[3]){1, H, 0});
    keep_device(rec, g->s, "neg_condition", &negative, (size_t[3]){1, H, 0});
    keep_device(rec, g->s, "latent", &f->latent, (size_t[3]){1, 1, latent});
    keep_device(rec, g->s, "audio", &f->pcm, (size_t[3]){1, 1, config->hop});
    keep_device(rec, g->s, "semantic", &f->semantic,
                (size_t[3]){1, 1, f->semantic.C});
    keep_device(rec, g->s, "next_embed", &f->next, (size_t[3]){1, 1, H});
}

void vibe_recorder_step(struct vibe_recorder *rec, struct vibe_generator *g,
                        enum vibe_control token)
{
    if (!rec)
        return;
    append(rec, &rec->ids, &(int64_t){g->control_ids[token]}, sizeof(int64_t));
    append(rec, &rec->logits, g->host_logits, VIBE_N_CONTROL * sizeof(float));
    rec->n_tokens++;
    if (token != VIBE_CONTROL_DIFFUSION)
        return;
    keep_frame(rec, g);
    append(rec, &rec->audio, g->host_pcm,
           rec->models->config.hop * sizeof(float));
    rec->n_frames++;
}

/* Keep what has grown, if anything has. */
static void keep_column(struct vibe_recorder *rec, const char *name,
                        enum vibe_dtype dtype, const size_t shape[3],
                        struct column *column)
{
    if (!column->n_bytes)
        return;
    keep(rec, name, dtype, shape, column->data);
    *column = (struct column){0};
}

/* golden.json: what verify must know to ask for the same. */
static int write_json(const struct vibe_recorder *rec,
                      const struct vibe_generator *g, const char *path)
{
    const struct vibe_request *request = rec->request;
    const struct vibe_script *script = request->script;
    json_t *lines = json_array();
    json_t *root;
    int rc;

    for (size_t i = 0; i < script->n_turns; i++) {
        const struct vibe_turn *turn = &script->turns[i];

        json_array_append_new(
            lines,
            json_pack("[i, s+]", vibe_script_number(script, turn->speaker), " ",
                      turn->text));
    }
    root = json_pack(
        "{s:I, s:i, s:i, s:i, s:i, s:f, s:i, s:I, s:I, s:o, s:I}", "seed",
        (json_int_t)request->seed, "start", g->control_ids[VIBE_CONTROL_START],
        "end", g->control_ids[VIBE_CONTROL_END], "diffusion",
        g->control_ids[VIBE_CONTROL_DIFFUSION], "eos",
        g->control_ids[VIBE_CONTROL_EOS], "cfg_scale",
        (double)request->cfg_scale, "steps", request->steps, "prompt_len",
        (json_int_t)rec->n_prompt, "max_new_tokens", (json_int_t)rec->n_tokens,
        "lines", lines, "frames", (json_int_t)rec->n_frames);
    rc = root ? json_dump_file(root, path, JSON_INDENT(1)) : -1;
    json_decref(root);
    return rc;
}

int vibe_recorder_write(struct vibe_recorder *rec,
                        const struct vibe_generator *g, struct vibe_error *err)
{
    const struct vibe_config *config = &rec->models->config;
    const char *dir = rec->request->dump_dir;
    char *path = NULL;
    char *json = NULL;
    int rc;

    keep_column(
        rec, "voice.features", VIBE_F32,
        (size_t[3]){rec->n_voice_frames, config->acoustic_encoder.vae_dim, 0},
        &rec->features);
    keep_column(rec, "voice.embeds", VIBE_F32,
                (size_t[3]){rec->n_voice_frames, config->lm.hidden_size, 0},
                &rec->embeds);
    keep_column(rec, "generated.ids", VIBE_I64,
                (size_t[3]){rec->n_tokens, 0, 0}, &rec->ids);
    keep_column(rec, "generated.logits_start_end_diff_eos", VIBE_F32,
                (size_t[3]){rec->n_tokens, VIBE_N_CONTROL, 0}, &rec->logits);
    keep_column(rec, "generated.audio", VIBE_F32,
                (size_t[3]){1, rec->n_frames * config->hop, 0}, &rec->audio);
    if (rec->err.code != VIBE_OK)
        return vibe_fail(err, rec->err.code, "%s", rec->err.msg);
    if (asprintf(&path, "%s/golden.safetensors", dir) < 0 ||
        asprintf(&json, "%s/golden.json", dir) < 0) {
        free(path);
        return vibe_fail(err, VIBE_E_NOMEM, "%s: no memory", dir);
    }
    rc = vibe_safetensors_write(path, rec->items, rec->n_items, err);
    if (rc == VIBE_OK && write_json(rec, g, json) != 0)
        rc = vibe_fail(err, VIBE_E_IO, "%s: cannot be written", json);
    free(json);
    free(path);
    return rc;
}
