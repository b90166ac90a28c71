#include "engine/models.h"

#include "engine/base/error.h"
#include "engine/format/weights.h"
#include "engine/model/codec.h"
#include "engine/model/codec_encoder.h"
#include "engine/model/diffusion.h"
#include "engine/model/qwen2.h"

static const char ACOUSTIC_CONNECTOR[] = "model.acoustic_connector.";
static const char SEMANTIC_CONNECTOR[] = "model.semantic_connector.";

int vibe_models_check(const struct vibe_weights *w,
                      const struct vibe_config *config, struct vibe_error *err)
{
    const size_t hidden = config->lm.hidden_size;
    struct vibe_latent_scale scale;
    int rc = vibe_qwen2_check(w, &config->lm, err);

    if (rc == VIBE_OK)
        rc = vibe_diffusion_check(w, &config->head, err);
    if (rc == VIBE_OK)
        rc = vibe_codec_check(w, &config->acoustic_decoder, err);
    if (rc == VIBE_OK)
        rc = vibe_codec_encoder_check(w, VIBE_ACOUSTIC_ENCODER,
                                      &config->acoustic_encoder, err);
    if (rc == VIBE_OK)
        rc = vibe_codec_encoder_check(w, VIBE_SEMANTIC_ENCODER,
                                      &config->semantic_encoder, err);
    if (rc == VIBE_OK)
        rc = vibe_connector_check(w, ACOUSTIC_CONNECTOR,
                                  config->acoustic_decoder.vae_dim, hidden,
                                  err);
    if (rc == VIBE_OK)
        rc = vibe_connector_check(w, SEMANTIC_CONNECTOR,
                                  config->semantic_encoder.vae_dim, hidden,
                                  err);
    if (rc == VIBE_OK)
        rc = vibe_latent_scale_read(&scale, w, err);
    return rc;
}

/* The two connectors. */
static int init_connectors(struct vibe_models *m, struct vibe_error *err)
{
    const struct vibe_config *config = &m->config;
    int rc = vibe_connector_open(&m->acoustic_connector, m->be, m->w,
                                 ACOUSTIC_CONNECTOR,
                                 config->acoustic_decoder.vae_dim,
                                 config->lm.hidden_size, m->n_dialogues, err);

    if (rc == VIBE_OK)
        rc = vibe_connector_open(&m->semantic_connector, m->be, m->w,
                                 SEMANTIC_CONNECTOR,
                                 config->semantic_encoder.vae_dim,
                                 config->lm.hidden_size, m->n_dialogues, err);
    return rc;
}

int vibe_models_init(struct vibe_models *m, struct vibe_backend *be,
                     const struct vibe_weights *w,
                     const struct vibe_config *config,
                     const int32_t *control_ids, size_t n_dialogues,
                     const struct vibe_streaming_options *streaming,
                     struct vibe_error *err)
{
    const struct vibe_params_store *store = NULL;
    int rc;

    *m = (struct vibe_models){
        .be = be,
        .w = w,
        .config = *config,
        .n_dialogues = n_dialogues,
    };
    rc = vibe_latent_scale_read(&m->scale, w, err);
    if (rc == VIBE_OK)
        m->is_scale_restored = vibe_latent_scale_restore(&m->scale,
                                                         &config->lm);
    be->purpose = VIBE_FOR_LM;
    if (rc == VIBE_OK && streaming) {
        rc = vibe_streaming_init(&m->streaming, be, w, &config->lm, streaming,
                                 err);
        store = &m->streaming.store;
    }
    if (rc == VIBE_OK)
        rc = vibe_qwen2_open(&m->lm, be, w, &config->lm, control_ids,
                             2 * n_dialogues, store, err);
    be->purpose = VIBE_FOR_HEAD;
    if (rc == VIBE_OK)
        rc = vibe_diffusion_open(&m->head, be, w, &config->head, n_dialogues,
                                 err);
    be->purpose = VIBE_FOR_CODEC;
    if (rc == VIBE_OK)
        rc = vibe_codec_open(&m->decoder, be, w, &config->acoustic_decoder,
                             n_dialogues, 1, err);
    if (rc == VIBE_OK)
        rc = vibe_codec_encoder_open(&m->semantic, be, w, VIBE_SEMANTIC_ENCODER,
                                     &config->semantic_encoder, n_dialogues, 1,
                                     err);
    be->purpose = VIBE_FOR_CONNECTORS;
    if (rc == VIBE_OK)
        rc = init_connectors(m, err);
    be->purpose = VIBE_FOR_OTHER;
    return rc;
}

void vibe_models_release(struct vibe_models *m)
{
    vibe_connector_free(m->semantic_connector);
    vibe_connector_free(m->acoustic_connector);
    vibe_codec_encoder_free(m->semantic);
    vibe_codec_free(m->decoder);
    vibe_diffusion_free(m->head);
    vibe_qwen2_free(m->lm);
    vibe_streaming_release(&m->streaming);
    *m = (struct vibe_models){0};
}

void vibe_models_bytes(const struct vibe_models *m, size_t *frame, size_t *step)
{
    *frame = vibe_qwen2_step_bytes(m->lm) +
             vibe_diffusion_frame_bytes(m->head) +
             vibe_codec_bytes(m->decoder) +
             vibe_codec_encoder_bytes(m->semantic) +
             vibe_connector_bytes(m->acoustic_connector) +
             vibe_connector_bytes(m->semantic_connector);
    *step = vibe_diffusion_step_bytes(m->head);
}
