#include "engine/precision.h"

#include <assert.h>

#include "engine/base/error.h"
#include "engine/format/config.h"
#include "engine/format/recode.h"
#include "engine/format/weights.h"

void vibe_precision_keep(struct vibe_weights *w,
                         const struct vibe_precision *precision)
{
    vibe_weights_keep(w, "model.language_model.layers.", precision->lm);
    vibe_weights_keep(w, "model.prediction_head.", precision->head);
    vibe_weights_keep(w, "model.acoustic_tokenizer.", precision->codec);
    vibe_weights_keep(w, "model.semantic_tokenizer.", precision->codec);
}

/* Of their widest product; others may have rows that are no whole groups. */
enum vibe_dtype vibe_precision_lm(const struct vibe_weights *w,
                                  const struct vibe_lm_config *config,
                                  enum vibe_weight_dtype as)
{
    const size_t shape[] = {config->intermediate_size, config->hidden_size};
    struct vibe_weight up;
    const int rc = vibe_weights_need(
        w, &up, "model.language_model.layers.0.mlp.up_proj.weight", shape, 2,
        NULL);

    assert(rc == VIBE_OK);
    return vibe_recode_dtype(&up, as);
}

enum vibe_weight_dtype vibe_precision_kv(const struct vibe_weights *w,
                                         const struct vibe_lm_config *config,
                                         const struct vibe_precision *p,
                                         int is_gpu)
{
    if (p->kv == VIBE_WEIGHTS_AUTO && p->lm != VIBE_WEIGHTS_F32 && is_gpu &&
        vibe_precision_lm(w, config, p->lm) == VIBE_I4)
        return VIBE_WEIGHTS_F8_E4M3;
    return p->kv;
}

const char *vibe_precision_name(enum vibe_weight_dtype as)
{
    switch (as) {
    case VIBE_WEIGHTS_AUTO:
        break;
    case VIBE_WEIGHTS_F32:
        return "float32";
    case VIBE_WEIGHTS_BF16:
        return "bfloat16";
    case VIBE_WEIGHTS_F8_E4M3:
        return "float8_e4m3fn";
    case VIBE_WEIGHTS_I8:
        return "int8";
    case VIBE_WEIGHTS_I4:
        return "int4";
    case VIBE_WEIGHTS_BF16_PACKED:
        return "bf16-packed";
    }
    return "auto";
}
