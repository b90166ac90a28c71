/*
 * codec_encoder.c - the encoders: stacks whose rate goes down.
 */
#include "engine/model/codec_encoder.h"

#include <stdlib.h>

#include "engine/backend/ops.h"
#include "engine/model/conv_stack.h"

struct vibe_codec_encoder {
    struct vibe_conv_stack stack;
    size_t hop, vae_dim;
};

int vibe_codec_encoder_check(const struct vibe_weights *w, const char *prefix,
                             const struct vibe_stack_config *config,
                             struct vibe_error *err)
{
    const struct vibe_conv_stack_options options = {
        .prefix = prefix,
        .config = config,
    };

    return vibe_conv_stack_check(w, &options, err);
}

int vibe_codec_encoder_open(struct vibe_codec_encoder **out,
                            struct vibe_backend *be,
                            const struct vibe_weights *w, const char *prefix,
                            const struct vibe_stack_config *config,
                            size_t n_dialogues, size_t max_frames,
                            struct vibe_error *err)
{
    struct vibe_conv_stack_options options = {
        .prefix = prefix,
        .config = config,
        .max_batch = n_dialogues,
    };
    struct vibe_codec_encoder *enc = calloc(1, sizeof(*enc));
    int rc;

    *out = NULL;
    if (!enc)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for %s", prefix);
    enc->vae_dim = config->vae_dim;
    enc->hop = 1;
    for (size_t i = 0; i + 1 < config->n_stages; i++)
        enc->hop *= config->ratios[i];
    options.max_T = max_frames * enc->hop;
    rc = vibe_conv_stack_init(&enc->stack, be, w, &options, err);
    if (rc) {
        vibe_codec_encoder_free(enc);
        return rc;
    }
    *out = enc;
    return VIBE_OK;
}

void vibe_codec_encoder_free(struct vibe_codec_encoder *enc)
{
    if (!enc)
        return;
    vibe_conv_stack_release(&enc->stack);
    free(enc);
}

size_t vibe_codec_encoder_state_size(const struct vibe_codec_encoder *enc)
{
    return enc->stack.n_state;
}

void vibe_codec_encoder_step(struct vibe_codec_encoder *enc,
                             struct vibe_stream *s,
                             const struct vibe_tensor *features,
                             const struct vibe_tensor *pcm,
                             const struct vibe_tensor *state,
                             const struct vibe_tensor *before)
{
    vibe_conv_stack_forward(&enc->stack, s, features, pcm, state, before);
}

/* What encoding a clip needs beside the stack; all device memory. */
struct clip {
    struct vibe_tensor pcm, features, state;
};

static void clip_release(struct clip *clip, struct vibe_backend *be)
{
    vibe_tensor_release(&clip->pcm, be);
    vibe_tensor_release(&clip->features, be);
    vibe_tensor_release(&clip->state, be);
}

static int clip_init(struct clip *clip, const struct vibe_codec_encoder *enc,
                     struct vibe_error *err)
{
    struct vibe_backend *be = enc->stack.params.be;
    size_t max_T = enc->stack.max_T;
    int rc;

    *clip = (struct clip){0};
    rc = vibe_tensor_init(&clip->pcm, be, VIBE_F32, 1, max_T, 1, err);
    if (!rc)
        rc = vibe_tensor_init(&clip->features, be, VIBE_F32, 1,
                              max_T / enc->hop, enc->vae_dim, err);
    if (!rc)
        rc = vibe_tensor_init(&clip->state, be, VIBE_F32, 1, 1,
                              enc->stack.n_state, err);
    return rc;
}

int vibe_codec_encoder_clip(struct vibe_codec_encoder *enc,
                            struct vibe_stream *s, float *features,
                            const float *pcm, size_t n, struct vibe_error *err)
{
    struct clip clip;
    int rc = clip_init(&clip, enc, err);

    /* Every chunk but the last is of whole frames, so only the end is padded,
     * and in front of each convolution: not with silent samples. */
    while (!rc && n > 0) {
        size_t take = n < clip.pcm.T ? n : clip.pcm.T;
        size_t T = (take + enc->hop - 1) / enc->hop;
        struct vibe_tensor in = vibe_tensor_rows(&clip.pcm, 0, take);
        struct vibe_tensor out = vibe_tensor_rows(&clip.features, 0, T);

        vibe_write(s, in.data, pcm, take * sizeof(*pcm));
        vibe_codec_encoder_step(enc, s, &out, &in, &clip.state, NULL);
        vibe_read(s, features, out.data, T * enc->vae_dim * sizeof(*features));
        rc = vibe_stream_check(s, err);
        pcm += take;
        n -= take;
        features += T * enc->vae_dim;
    }
    clip_release(&clip, enc->stack.params.be);
    return rc;
}

size_t vibe_codec_encoder_bytes(const struct vibe_codec_encoder *enc)
{
    return vibe_params_bytes(&enc->stack.params);
}
