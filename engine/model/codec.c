/*
 * codec.c - the acoustic decoder: a stack whose rate goes up.
 */
#include "engine/model/codec.h"

#include <stdlib.h>

#include "engine/model/conv_stack.h"

struct vibe_codec {
    struct vibe_conv_stack stack;
};

static struct vibe_conv_stack_options stack_options(
    const struct vibe_stack_config *config)
{
    return (struct vibe_conv_stack_options){
        .prefix = "model.acoustic_tokenizer.decoder.",
        .config = config,
        .is_decoder = 1,
    };
}

int vibe_codec_check(const struct vibe_weights *w,
                     const struct vibe_stack_config *config,
                     struct vibe_error *err)
{
    struct vibe_conv_stack_options options = stack_options(config);

    return vibe_conv_stack_check(w, &options, err);
}

int vibe_codec_open(struct vibe_codec **out, struct vibe_backend *be,
                    const struct vibe_weights *w,
                    const struct vibe_stack_config *config, size_t n_dialogues,
                    size_t max_frames, struct vibe_error *err)
{
    struct vibe_conv_stack_options options = stack_options(config);
    struct vibe_codec *codec = calloc(1, sizeof(*codec));
    int rc;

    *out = NULL;
    if (!codec)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for the decoder");
    options.max_batch = n_dialogues;
    options.max_T = max_frames;
    rc = vibe_conv_stack_init(&codec->stack, be, w, &options, err);
    if (rc) {
        vibe_codec_free(codec);
        return rc;
    }
    *out = codec;
    return VIBE_OK;
}

void vibe_codec_free(struct vibe_codec *codec)
{
    if (!codec)
        return;
    vibe_conv_stack_release(&codec->stack);
    free(codec);
}

size_t vibe_codec_state_size(const struct vibe_codec *codec)
{
    return codec->stack.n_state;
}

void vibe_codec_decode(struct vibe_codec *codec, struct vibe_stream *s,
                       const struct vibe_tensor *pcm,
                       const struct vibe_tensor *latent,
                       const struct vibe_tensor *state,
                       const struct vibe_tensor *before)
{
    vibe_conv_stack_forward(&codec->stack, s, pcm, latent, state, before);
}

size_t vibe_codec_bytes(const struct vibe_codec *codec)
{
    return vibe_params_bytes(&codec->stack.params);
}
