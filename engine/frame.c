#include "engine/frame.h"

#include "engine/model/codec.h"
#include "engine/model/codec_encoder.h"
#include "engine/model/diffusion.h"
#include "engine/models.h"
#include "engine/timeline.h"
#include "engine/vibevoice.h"

int vibe_frame_init(struct vibe_frame *f, const struct vibe_models *models,
                    struct vibe_error *err)
{
    const struct vibe_config *config = &models->config;
    const size_t D = models->n_dialogues;
    const size_t key_floats = sizeof(struct vibe_noise_key) / sizeof(float);
    const size_t n_state = vibe_codec_state_size(models->decoder) +
                           vibe_codec_encoder_state_size(models->semantic);
    const struct {
        struct vibe_tensor *tensor;
        size_t B, T, C;
    } shapes[] = {
        {&f->cfg_scale, 1, 1, D},
        {&f->keys, 1, D, key_floats},
        {&f->latent, D, 1, config->head.latent_size},
        {&f->unscaled, D, 1, config->head.latent_size},
        {&f->pcm, D, config->hop, 1},
        {&f->semantic, D, 1, config->semantic_encoder.vae_dim},
        {&f->next, D, 1, config->lm.hidden_size},
        {&f->state[0], D, 1, n_state},
        {&f->state[1], D, 1, n_state},
    };
    int rc = VIBE_OK;

    f->models = models;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]) && rc == VIBE_OK;
         i++)
        rc = vibe_tensor_init(shapes[i].tensor, models->be, VIBE_F32,
                              shapes[i].B, shapes[i].T, shapes[i].C, err);
    return rc;
}

void vibe_frame_release(struct vibe_frame *f)
{
    struct vibe_tensor *const owned[] = {
        &f->cfg_scale, &f->keys, &f->latent,   &f->unscaled, &f->pcm,
        &f->semantic,  &f->next, &f->state[0], &f->state[1],
    };

    for (size_t i = 0; f->models && i < sizeof(owned) / sizeof(owned[0]); i++)
        vibe_tensor_release(owned[i], f->models->be);
    *f = (struct vibe_frame){0};
}

/* The dialogues that take part. */
static struct vibe_tensor active(const struct vibe_frame *f,
                                 const struct vibe_tensor *t)
{
    return vibe_tensor_batch(t, 0, f->n);
}

/* The decoder's part of a state of both, and the semantic encoder's. */
static struct vibe_tensor of_decoder(const struct vibe_frame *f,
                                     const struct vibe_tensor *state)
{
    const struct vibe_tensor t = active(f, state);

    return vibe_tensor_channels(&t, 0,
                                vibe_codec_state_size(f->models->decoder));
}

static struct vibe_tensor of_semantic(const struct vibe_frame *f,
                                      const struct vibe_tensor *state)
{
    const struct vibe_tensor t = active(f, state);
    const size_t n_decoder = vibe_codec_state_size(f->models->decoder);

    return vibe_tensor_channels(&t, n_decoder, t.C - n_decoder);
}

void vibe_frame_noise(struct vibe_frame *f, struct vibe_stream *s,
                      const struct vibe_noise_key *keys)
{
    const struct vibe_tensor latent = active(f, &f->latent);

    vibe_write(s, f->keys.data, keys, f->n * sizeof(*keys));
    vibe_noise(s, &latent, f->keys.data);
}

void vibe_frame_latent(struct vibe_frame *f, struct vibe_stream *s,
                       const struct vibe_tensor *cond)
{
    const struct vibe_tensor latent = active(f, &f->latent);

    vibe_diffusion_sample(f->models->head, s, &latent, cond, f->cfg_scale.data);
}

void vibe_frame_decode(struct vibe_frame *f, struct vibe_stream *s)
{
    const struct vibe_latent_scale *scale = &f->models->scale;
    const struct vibe_tensor latent = active(f, &f->latent);
    const struct vibe_tensor unscaled = active(f, &f->unscaled);
    const struct vibe_tensor pcm = active(f, &f->pcm);
    const struct vibe_tensor state = of_decoder(f, &f->state[f->now]);
    const struct vibe_tensor before = of_decoder(f, &f->state[!f->now]);

    vibe_affine(s, &unscaled, &latent, 1.0f / scale->scale, -scale->bias);
    vibe_codec_decode(f->models->decoder, s, &pcm, &unscaled, &state, &before);
}

void vibe_frame_listen(struct vibe_frame *f, struct vibe_stream *s)
{
    const struct vibe_tensor semantic = active(f, &f->semantic);
    const struct vibe_tensor pcm = active(f, &f->pcm);
    const struct vibe_tensor state = of_semantic(f, &f->state[f->now]);
    const struct vibe_tensor before = of_semantic(f, &f->state[!f->now]);

    vibe_codec_encoder_step(f->models->semantic, s, &semantic, &pcm, &state,
                            &before);
}

void vibe_frame_connect_latent(struct vibe_frame *f, struct vibe_stream *s)
{
    const struct vibe_tensor next = active(f, &f->next);
    const struct vibe_tensor latent = active(f, &f->latent);

    vibe_connector_forward(f->models->acoustic_connector, s, &next, &latent,
                           VIBE_STORE);
}

void vibe_frame_connect_semantic(struct vibe_frame *f, struct vibe_stream *s)
{
    const struct vibe_tensor next = active(f, &f->next);
    const struct vibe_tensor semantic = active(f, &f->semantic);

    vibe_connector_forward(f->models->semantic_connector, s, &next, &semantic,
                           VIBE_ADD);
}

/* Copy a dialogue of a tensor. */
static void copy_dialogue(struct vibe_stream *s, const struct vibe_tensor *y,
                          size_t to, const struct vibe_tensor *x, size_t from)
{
    const struct vibe_tensor out = vibe_tensor_batch(y, to, 1);
    const struct vibe_tensor in = vibe_tensor_batch(x, from, 1);

    vibe_copy(s, &out, &in);
}

void vibe_frame_turn(struct vibe_frame *f)
{
    f->now = !f->now;
}

void vibe_frame_undo(struct vibe_frame *f, struct vibe_stream *s, size_t d)
{
    copy_dialogue(s, &f->state[f->now], d, &f->state[!f->now], d);
}

void vibe_frame_move(struct vibe_frame *f, struct vibe_stream *s, size_t to,
                     size_t from)
{
    const struct vibe_tensor *state = &f->state[f->now];

    copy_dialogue(s, &f->next, to, &f->next, from);
    copy_dialogue(s, state, to, state, from);
}

void vibe_frame_silence(struct vibe_frame *f, struct vibe_stream *s, size_t d)
{
    const struct vibe_tensor state = vibe_tensor_batch(&f->state[f->now], d, 1);

    vibe_zero(s, &state);
}
