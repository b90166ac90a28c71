#include "engine/measure.h"

#include "engine/backend/ops.h"
#include "engine/backend/tally.h"
#include "engine/base/size.h"
#include "engine/format/config.h"
#include "engine/generate.h"
#include "engine/model/codec.h"
#include "engine/model/codec_encoder.h"
#include "engine/model/diffusion.h"
#include "engine/model/kvcache.h"
#include "engine/model/qwen2.h"
#include "engine/models.h"
#include "engine/voice.h"

/* What products of a prompt take at most: partial sums, or the workspace of the
 * library, sums of a block, x in bf16 and weights that are not bf16 as such. */
enum {
    PARTIAL_BYTES = 64 << 20,
    LIBRARY_BYTES = 32 << 20,
    SUM_BYTES = 82 << 20,
    WEIGHT_BYTES = 72 << 20,
    BLOCK_UNIT = 256, /* outputs that blocks are rounded up to */
};

/* What attention and products of a frame of one dialogue take at most, and
 * what modulation takes for each solver step. */
enum { FRAME_BYTES = 16 << 20, STEP_BYTES = 1 << 19 };

/* What parts of a step's attention tell each other of a sequence, at most: of
 * 8 heads of 128 channels 32 bytes for every four, with as many parts as half
 * of 192 multiprocessors. */
enum { MAIL_BYTES = 192 / 2 * 8 * 128 / 4 * 32 };

/* Elements of the matrices of a layer. */
static size_t layer_weights(const struct vibe_lm_config *lm)
{
    const size_t kv = lm->num_key_value_heads * lm->head_dim;

    return lm->hidden_size *
           (2 * lm->hidden_size + 2 * kv + 3 * lm->intermediate_size);
}

/* Of a product of K channels to N: x and weights in bf16, sums. */
static size_t product_bytes(size_t K, size_t N, size_t sum, int is_expanded)
{
    const size_t row = K * sizeof(uint16_t);
    const size_t most = is_expanded && N > WEIGHT_BYTES / row
                            ? WEIGHT_BYTES / row
                            : N;
    const size_t sums = VIBE_PROMPT_ROWS * most * sum;

    return VIBE_PROMPT_ROWS * row + (is_expanded ? most * row : 0) +
           (sums < SUM_BYTES ? sums : SUM_BYTES);
}

/* The larger of gate and up, and down. */
static size_t product_scratch(const struct vibe_lm_config *lm, size_t rows)
{
    const size_t bf16_rows = lm->num_hidden_layers * layer_weights(lm) *
                             sizeof(uint16_t);
    const int is_expanded = rows < bf16_rows;
    const size_t ffn = lm->intermediate_size + BLOCK_UNIT;
    const size_t up = product_bytes(lm->hidden_size, 2 * ffn, sizeof(uint16_t),
                                    is_expanded);
    const size_t down = product_bytes(ffn, lm->hidden_size + BLOCK_UNIT,
                                      sizeof(float), is_expanded);
    const size_t library = LIBRARY_BYTES + (up > down ? up : down);

    return library > PARTIAL_BYTES ? library : PARTIAL_BYTES;
}

static size_t count_encoder(const struct vibe_models *m, struct vibe_error *err)
{
    struct vibe_codec_encoder *enc = NULL;
    struct vibe_memory count = {0};

    if (vibe_voice_encoder_open(&enc, m, err) == VIBE_OK)
        m->be->ops->memory(m->be, &count);
    vibe_codec_encoder_free(enc);
    return count.bytes[VIBE_FOR_ENCODER];
}

/* Everything there is, as it lies on the tally. */
static void describe(struct vibe_plan_model *out, const struct vibe_models *m,
                     const struct vibe_generator *g, size_t steps)
{
    struct vibe_memory count;

    m->be->ops->memory(m->be, &count);
    *out = (struct vibe_plan_model){
        .n_layers = m->config.lm.num_hidden_layers,
        .rows = count.bytes[VIBE_FOR_LM_ROWS],
        .lm = count.bytes[VIBE_FOR_LM] + count.bytes[VIBE_FOR_SCRATCH],
        .prompt = count.bytes[VIBE_FOR_PROMPT],
        .head = count.bytes[VIBE_FOR_HEAD],
        .head_prepared = vibe_diffusion_prepared_bytes(m->head, steps),
        .codec = count.bytes[VIBE_FOR_CODEC],
        .connectors = count.bytes[VIBE_FOR_CONNECTORS],
        .states = count.bytes[VIBE_FOR_STATES],
        .scratch = product_scratch(&m->config.lm,
                                   count.bytes[VIBE_FOR_LM_ROWS]),
        .frame_scratch = FRAME_BYTES + steps * STEP_BYTES,
        .mail = 2 * m->n_dialogues * MAIL_BYTES,
        .kv_block = vibe_kvcache_position_bytes(g->cache) *
                    VIBE_KV_BLOCK_TOKENS,
        .block_tokens = VIBE_KV_BLOCK_TOKENS,
        .head_frame_reads = vibe_diffusion_frame_bytes(m->head),
        .head_step_reads = vibe_diffusion_step_bytes(m->head),
        .codec_reads = vibe_codec_bytes(m->decoder) +
                       vibe_codec_encoder_bytes(m->semantic),
        .connector_reads = vibe_connector_bytes(m->acoustic_connector) +
                           vibe_connector_bytes(m->semantic_connector),
        .steps = steps,
    };
}

int vibe_measure(struct vibe_plan_model *out, const struct vibe_measured *what,
                 struct vibe_error *err)
{
    const struct vibe_tally_options options = {
        .kv_dtype = what->kv_dtype,
        .lm = what->lm,
    };
    struct vibe_backend *be = NULL;
    struct vibe_models m = {0};
    struct vibe_generator *g = NULL;
    struct vibe_stream s = {0};
    int rc = vibe_tally_open(&be, &options, err);

    if (rc == VIBE_OK)
        rc = vibe_stream_init(&s, be, err);
    if (rc == VIBE_OK)
        rc = vibe_models_init(&m, be, what->w, what->config, what->control_ids,
                              what->n_dialogues, NULL, err);
    if (rc == VIBE_OK)
        rc = vibe_generator_open(&g, &m, &s, what->control_ids, err);
    if (rc == VIBE_OK) {
        describe(out, &m, g, what->steps);
        out->encoder = count_encoder(&m, err);
        if (!out->encoder)
            rc = VIBE_E_NOMEM;
    }
    vibe_generator_free(g);
    vibe_models_release(&m);
    vibe_stream_release(&s);
    vibe_backend_free(be);
    return rc;
}
