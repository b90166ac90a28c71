#include "engine/format/config.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/error.h"
#include "engine/format/fields.h"
#include "engine/format/json_util.h"

enum { MAX_CHANNELS = 65536, MAX_HOP = 1 << 20, MAX_VAE_DIM = 4096 };

static const struct vibe_size_range count_1k = {1, 1024};
static const struct vibe_size_range channels = {1, MAX_CHANNELS};
static const struct vibe_size_range vae_dims = {1, MAX_VAE_DIM};
static const struct vibe_size_range table_rows = {1, 1 << 24};
static const struct vibe_size_range step_counts = {1, 65536};
static const struct vibe_size_range block_counts = {1, 256};
static const struct vibe_real_range epsilon = {1e-12, 0.1};

/* Where a schema keeps what both have. */
struct schema {
    const char *lm, *head, *acoustic, *semantic;
    const char *n_filters, *ratios, *depths, *vae_dim, *eps;
    int lists_decoder_order; /* ratios are those of the decoder */
};

static const struct schema original = {
    .lm = "decoder_config",
    .head = "diffusion_head_config",
    .acoustic = "acoustic_tokenizer_config",
    .semantic = "semantic_tokenizer_config",
    .n_filters = "encoder_n_filters",
    .ratios = "encoder_ratios",
    .depths = "encoder_depths",
    .vae_dim = "vae_dim",
    .eps = "layernorm_eps",
    .lists_decoder_order = 1,
};

static const struct schema native = {
    .lm = "text_config",
    .head = "diffusion_head_config",
    .acoustic = "audio_config",
    .semantic = "semantic_model_config",
    .n_filters = "num_filters",
    .ratios = "downsampling_ratios",
    .depths = "depths",
    .vae_dim = "hidden_size",
    .eps = "rms_norm_eps",
};

static void reverse(size_t *x, size_t n)
{
    for (size_t i = 0; i < n / 2; i++) {
        size_t t = x[i];

        x[i] = x[n - 1 - i];
        x[n - 1 - i] = t;
    }
}

/* Refuse what is not equal to a number read elsewhere. */
static void need_equal(struct vibe_fields *f, size_t found, size_t expected,
                       const char *section, const char *key, const char *why)
{
    char text[80];

    if (found == expected)
        return;
    snprintf(text, sizeof(text), "%zu (%s)", expected, why);
    vibe_fields_refuse(f, VIBE_E_FORMAT, section, key, text);
}

/* Rotary embedding: one frequency base, no stretching of any kind. */
static void read_rope(struct vibe_fields *f, const char *lm, double *theta)
{
    const struct vibe_real_range range = {1.0, 1e12};
    char nested[64];
    char scaling[64];

    snprintf(nested, sizeof(nested), "%s.rope_parameters", lm);
    snprintf(scaling, sizeof(scaling), "%s.rope_scaling", lm);
    vibe_fields_only_text(f, nested, "rope_type", "default", NULL);
    if (vibe_fields_has(f, lm, "rope_scaling") &&
        !vibe_fields_has(f, scaling, "rope_type") &&
        !vibe_fields_has(f, scaling, "type"))
        vibe_fields_refuse(f, VIBE_E_UNSUPPORTED, lm, "rope_scaling", "null");
    vibe_fields_only_text(f, scaling, "rope_type", "default", NULL);
    vibe_fields_only_text(f, scaling, "type", "default", NULL);
    /* No fallback: a wrong base would speak noise without an error. */
    if (vibe_fields_has(f, nested, "rope_theta"))
        *theta = vibe_fields_real(f, nested, "rope_theta", range, 0);
    else
        *theta = vibe_fields_real(f, lm, "rope_theta", range, 0);
}

/* layer_types, if listed, must ask for full attention everywhere. */
static void check_layer_types(struct vibe_fields *f, const char *lm)
{
    const json_t *types = json_object_get(vibe_json_find(f->root, lm),
                                          "layer_types");

    for (size_t i = 0; i < json_array_size(types); i++) {
        const char *type = json_string_value(json_array_get(types, i));

        if (!type || strcmp(type, "full_attention") != 0) {
            vibe_fields_refuse(f, VIBE_E_UNSUPPORTED, lm, "layer_types",
                               "\"full_attention\" for every layer");
            return;
        }
    }
}

static void read_lm(struct vibe_fields *f, const char *lm,
                    struct vibe_lm_config *out)
{
    const struct vibe_size_range ffn = {1, 1 << 20};

    vibe_fields_section(f, lm);
    vibe_fields_only_text(f, lm, "model_type", "qwen2", NULL);
    vibe_fields_only_text(f, lm, "hidden_act", "silu", NULL);
    vibe_fields_only_bool(f, lm, "use_sliding_window", 0);
    check_layer_types(f, lm);
    out->hidden_size = vibe_fields_size(f, lm, "hidden_size", channels, 0);
    out->intermediate_size = vibe_fields_size(f, lm, "intermediate_size", ffn,
                                              0);
    out->num_hidden_layers = vibe_fields_size(f, lm, "num_hidden_layers",
                                              count_1k, 0);
    out->num_attention_heads = vibe_fields_size(f, lm, "num_attention_heads",
                                                count_1k, 0);
    out->num_key_value_heads = vibe_fields_size(f, lm, "num_key_value_heads",
                                                count_1k, 0);
    out->vocab_size = vibe_fields_size(f, lm, "vocab_size", table_rows, 0);
    out->max_position_embeddings = vibe_fields_size(
        f, lm, "max_position_embeddings", table_rows, 32768);
    out->rms_norm_eps = (float)vibe_fields_real(f, lm, "rms_norm_eps", epsilon,
                                                1e-6);
    read_rope(f, lm, &out->rope_theta);
    if (f->rc != VIBE_OK)
        return;

    if (out->hidden_size % (2 * out->num_attention_heads) != 0)
        vibe_fields_refuse(f, VIBE_E_FORMAT, lm, "hidden_size",
                           "an even multiple of num_attention_heads");
    if (out->num_attention_heads % out->num_key_value_heads != 0)
        vibe_fields_refuse(f, VIBE_E_FORMAT, lm, "num_key_value_heads",
                           "a divisor of num_attention_heads");
    out->head_dim = out->hidden_size / out->num_attention_heads;
    need_equal(f, vibe_fields_size(f, lm, "head_dim", channels, out->head_dim),
               out->head_dim, lm, "head_dim",
               "hidden_size / num_attention_heads");
}

/* The part of the head that the schemas spell differently. */
static void read_head_sizes(struct vibe_fields *f, const struct schema *s,
                            struct vibe_head_config *out)
{
    const struct vibe_size_range layers = {1, 64};
    const struct vibe_size_range ffn = {1, 1 << 22};
    const struct vibe_real_range ratios = {1.0 / 64, 64};

    if (s == &native) {
        vibe_fields_only_text(f, s->head, "hidden_act", "silu", NULL);
        vibe_fields_only_real(f, s->head, "frequency_embedding_size", 256);
        vibe_fields_only_real(f, s->head, "diffusion_max_period", 10000);
        vibe_fields_only_bool(f, s->head, "mlp_bias", 0);
        out->head_layers = vibe_fields_size(f, s->head, "num_hidden_layers",
                                            layers, 4);
        out->ffn_size = vibe_fields_size(f, s->head, "intermediate_size", ffn,
                                         0);
        /* Steps are in generation_config.json there; these are its own. */
        out->ddpm_num_steps = 1000;
        out->ddpm_num_inference_steps = 10;
        return;
    }
    vibe_fields_only_text(f, s->head, "diffusion_type", "ddpm", NULL);
    vibe_fields_only_text(f, s->head, "prediction_type", "v_prediction", NULL);
    vibe_fields_only_text(f, s->head, "ddpm_beta_schedule", "cosine",
                          "squaredcos_cap_v2");
    out->head_layers = vibe_fields_size(f, s->head, "head_layers", layers, 4);
    /* Truncated as by the reference. */
    out->ffn_size = (size_t)((double)out->hidden_size *
                             vibe_fields_real(f, s->head, "head_ffn_ratio",
                                              ratios, 3.0));
    if (out->ffn_size == 0)
        vibe_fields_refuse(f, VIBE_E_FORMAT, s->head, "head_ffn_ratio",
                           "an FFN of at least one channel");
    out->ddpm_num_steps = vibe_fields_size(f, s->head, "ddpm_num_steps",
                                           step_counts, 1000);
    out->ddpm_num_inference_steps = vibe_fields_size(
        f, s->head, "ddpm_num_inference_steps", step_counts, 20);
    if (out->ddpm_num_inference_steps > out->ddpm_num_steps)
        vibe_fields_refuse(f, VIBE_E_FORMAT, s->head,
                           "ddpm_num_inference_steps",
                           "at most ddpm_num_steps");
}

static void read_head(struct vibe_fields *f, const struct schema *s,
                      struct vibe_config *c)
{
    struct vibe_head_config *out = &c->head;
    const size_t vae_dim = c->acoustic_encoder.vae_dim;

    vibe_fields_section(f, s->head);
    if (f->rc != VIBE_OK)
        return;
    out->hidden_size = vibe_fields_size(f, s->head, "hidden_size", channels,
                                        c->lm.hidden_size);
    out->latent_size = vibe_fields_size(f, s->head, "latent_size", vae_dims,
                                        vae_dim);
    out->rms_norm_eps = (float)vibe_fields_real(f, s->head, "rms_norm_eps",
                                                epsilon, 1e-5);
    need_equal(f, out->hidden_size, c->lm.hidden_size, s->head, "hidden_size",
               "as the language model's");
    need_equal(f, out->latent_size, vae_dim, s->head, "latent_size",
               "as the acoustic codec's");
    need_equal(
        f, vibe_fields_size(f, s->head, "speech_vae_dim", vae_dims, vae_dim),
        vae_dim, s->head, "speech_vae_dim", "as the acoustic codec's");
    read_head_sizes(f, s, out);
}

/* What the codec code does not compute, in either schema. */
static void check_codec(struct vibe_fields *f, const struct schema *s,
                        const char *section)
{
    const struct vibe_real_range positive = {1e-30, 1e30};

    vibe_fields_only_real(f, section, "channels", 1);
    /* Zero would mean blocks without gamma tensors. */
    vibe_fields_real(f, section, "layer_scale_init_value", positive, 1e-6);
    if (s == &native) {
        vibe_fields_only_text(f, section, "hidden_act", "gelu", NULL);
        vibe_fields_only_real(f, section, "kernel_size", 7);
        vibe_fields_only_real(f, section, "ffn_expansion", 4);
        return;
    }
    vibe_fields_only_bool(f, section, "causal", 1);
    vibe_fields_only_bool(f, section, "conv_bias", 1);
    vibe_fields_only_text(f, section, "conv_norm", "none", NULL);
    vibe_fields_only_real(f, section, "corpus_normalize", 0);
    vibe_fields_only_bool(f, section, "disable_last_norm", 1);
    vibe_fields_only_text(f, section, "layernorm", "RMSNorm", NULL);
    vibe_fields_only_bool(f, section, "layernorm_elementwise_affine", 1);
    vibe_fields_only_text(f, section, "mixer_layer", "depthwise_conv", NULL);
    vibe_fields_only_text(f, section, "pad_mode", "constant", NULL);
    vibe_fields_only_text(f, section, "std_dist_type", "gaussian", "none");
}

/*
 * Read one list of strides and one of depths; what is missing keeps the
 * values that out came with.
 */
static void read_stages(struct vibe_fields *f, const char *section,
                        const char *ratios, const char *depths,
                        struct vibe_stack_config *out)
{
    const struct vibe_size_range stride = {1, 1024};
    size_t n = vibe_fields_list(f, section, ratios, stride, out->ratios,
                                VIBE_MAX_STAGES - 1);
    size_t n_depths = vibe_fields_list(f, section, depths, block_counts,
                                       out->depths, VIBE_MAX_STAGES);

    /* Depths that are not listed belong to as many stages as before. */
    if (n && n + 1 != out->n_stages && !n_depths)
        vibe_fields_refuse(f, VIBE_E_FORMAT, section, depths,
                           "one depth more than there are ratios");
    if (n)
        out->n_stages = n + 1;
    if (n_depths && n_depths != out->n_stages)
        vibe_fields_refuse(f, VIBE_E_FORMAT, section, depths,
                           "one depth more than there are ratios");
}

/* Bound the channels of the widest stage and the product of the strides. */
static size_t check_stack(struct vibe_fields *f, const char *section,
                          const char *n_filters, const char *ratios,
                          const struct vibe_stack_config *stack)
{
    size_t hop = 1;

    if (f->rc != VIBE_OK)
        return 0;
    if (stack->n_filters > (size_t)MAX_CHANNELS >> (stack->n_stages - 1))
        vibe_fields_refuse(f, VIBE_E_FORMAT, section, n_filters,
                           "at most 65536 channels in the widest stage");
    for (size_t i = 0; i + 1 < stack->n_stages && hop <= MAX_HOP; i++)
        hop *= stack->ratios[i];
    if (hop > MAX_HOP)
        vibe_fields_refuse(f, VIBE_E_FORMAT, section, ratios,
                           "a product of at most 1048576");
    return hop;
}

/* Read an encoder; returns its hop. */
static size_t read_encoder(struct vibe_fields *f, const struct schema *s,
                           const char *section, size_t vae_dim,
                           struct vibe_stack_config *out)
{
    static const struct vibe_stack_config released = {
        .n_stages = 7,
        .depths = {3, 3, 3, 3, 3, 3, 8},
        .ratios = {8, 5, 5, 4, 2, 2},
    };

    *out = released;
    if (!s->lists_decoder_order)
        reverse(out->ratios, 6);
    vibe_fields_section(f, section);
    check_codec(f, s, section);
    out->n_filters = vibe_fields_size(f, section, s->n_filters, channels, 32);
    out->vae_dim = vibe_fields_size(f, section, s->vae_dim, vae_dims, vae_dim);
    out->layernorm_eps = (float)vibe_fields_real(f, section, s->eps, epsilon,
                                                 1e-5);
    read_stages(f, section, s->ratios, s->depths, out);
    if (f->rc == VIBE_OK && s->lists_decoder_order)
        reverse(out->ratios, out->n_stages - 1);
    return check_stack(f, section, s->n_filters, s->ratios, out);
}

/* Read the acoustic decoder: the encoder run backwards, unless said. */
static void read_decoder(struct vibe_fields *f, const struct schema *s,
                         const struct vibe_stack_config *encoder, size_t hop,
                         struct vibe_stack_config *out)
{
    if (f->rc != VIBE_OK)
        return;
    *out = *encoder;
    reverse(out->ratios, out->n_stages - 1);
    reverse(out->depths, out->n_stages);
    if (s == &native)
        return;
    /* The reference's own default, whatever the encoder has. */
    out->n_filters = vibe_fields_size(f, s->acoustic, "decoder_n_filters",
                                      channels, 32);
    read_stages(f, s->acoustic, "decoder_ratios", "decoder_depths", out);
    need_equal(
        f,
        check_stack(f, s->acoustic, "decoder_n_filters", "decoder_ratios", out),
        hop, s->acoustic, "decoder_ratios", "the product of encoder_ratios");
}

/* Sigma of the acoustic latents; the native schema stores it / 0.8. */
static float read_fix_std(struct vibe_fields *f, const struct schema *s)
{
    const struct vibe_real_range range = {0, 100};
    const json_t *dist = json_object_get(vibe_json_find(f->root, s->acoustic),
                                         "std_dist_type");

    if (s == &native)
        return (float)(0.8 * vibe_fields_real(f, s->acoustic, "vae_std", range,
                                              0.625));
    if (json_is_string(dist) && strcmp(json_string_value(dist), "none") == 0)
        return 0.0f;
    return (float)vibe_fields_real(f, s->acoustic, "fix_std", range, 0.5);
}

static void read_codecs(struct vibe_fields *f, const struct schema *s,
                        struct vibe_config *c)
{
    /* The 7B spells it without the u. */
    const char *const acoustic_key = vibe_fields_has(f, "", "acostic_vae_dim")
                                         ? "acostic_vae_dim"
                                         : "acoustic_vae_dim";
    const size_t acoustic = vibe_fields_size(f, "", acoustic_key, vae_dims, 64);
    const size_t semantic = vibe_fields_size(f, "", "semantic_vae_dim",
                                             vae_dims, 128);
    size_t hop;

    c->hop = read_encoder(f, s, s->acoustic, acoustic, &c->acoustic_encoder);
    hop = read_encoder(f, s, s->semantic, semantic, &c->semantic_encoder);
    need_equal(f, hop, c->hop, s->semantic, s->ratios,
               "the product of the acoustic codec's");
    if (vibe_fields_has(f, "", acoustic_key))
        need_equal(f, c->acoustic_encoder.vae_dim, acoustic, s->acoustic,
                   s->vae_dim, "as the top level says");
    if (vibe_fields_has(f, "", "semantic_vae_dim"))
        need_equal(f, c->semantic_encoder.vae_dim, semantic, s->semantic,
                   s->vae_dim, "as the top level says");
    read_decoder(f, s, &c->acoustic_encoder, c->hop, &c->acoustic_decoder);
    c->fix_std = read_fix_std(f, s);
}

static int read_config(struct vibe_config *out, const json_t *root,
                       const char *path, struct vibe_error *err)
{
    struct vibe_fields f = {.root = root, .path = path, .err = err};
    struct vibe_config c = {0};
    const struct schema *s = NULL;

    vibe_fields_only_text(&f, "", "model_type", "vibevoice", "vibepod");
    if (f.rc != VIBE_OK)
        return f.rc;
    if (vibe_fields_has(&f, "", original.lm))
        s = &original;
    else if (vibe_fields_has(&f, "", native.lm))
        s = &native;
    else
        return vibe_fail(err, VIBE_E_FORMAT,
                         "%s: has neither decoder_config nor text_config (not "
                         "a VibeVoice config.json?)",
                         path);
    read_lm(&f, s->lm, &c.lm);
    read_codecs(&f, s, &c);
    read_head(&f, s, &c);
    if (f.rc == VIBE_OK)
        *out = c;
    return f.rc;
}

int vibe_config_parse(struct vibe_config *out, const char *bytes, size_t n,
                      const char *path, struct vibe_error *err)
{
    json_t *root;
    int rc = vibe_json_parse(&root, bytes, n, path, err);

    if (rc == VIBE_OK)
        rc = read_config(out, root, path, err);
    json_decref(root);
    return rc;
}

int vibe_config_read(struct vibe_config *out, const char *path,
                     struct vibe_error *err)
{
    json_t *root;
    int rc = vibe_json_read(&root, path, err);

    if (rc == VIBE_OK)
        rc = read_config(out, root, path, err);
    json_decref(root);
    return rc;
}

static const struct vibe_preprocessor default_preprocessor = {
    .db_normalize = 1,
    .target_db = -25.0f,
    .eps = 1e-6f,
    .sampling_rate = 24000,
};

static int read_preprocessor(struct vibe_preprocessor *out, const json_t *root,
                             const char *path, struct vibe_error *err)
{
    const struct vibe_real_range db = {-120, 0};
    const struct vibe_real_range eps = {1e-12, 0.1};
    struct vibe_fields f = {.root = root, .path = path, .err = err};
    struct vibe_preprocessor p = default_preprocessor;
    /* transformers 5 has no inner section. */
    const char *section = vibe_fields_has(&f, "", "audio_processor")
                              ? "audio_processor"
                              : "";

    if (*section) {
        vibe_fields_section(&f, section);
        p.db_normalize = vibe_fields_bool(&f, "", "db_normalize", 1);
    } else {
        p.db_normalize = vibe_fields_bool(
            &f, "", "db_normalize",
            vibe_fields_bool(&f, "", "normalize_audio", 1));
    }
    p.target_db = (float)vibe_fields_real(&f, section, "target_dB_FS", db,
                                          p.target_db);
    p.eps = (float)vibe_fields_real(&f, section, "eps", eps, 1e-6);
    vibe_fields_only_real(&f, section, "sampling_rate", 24000);
    if (f.rc == VIBE_OK)
        *out = p;
    return f.rc;
}

int vibe_preprocessor_parse(struct vibe_preprocessor *out, const char *bytes,
                            size_t n, const char *path, struct vibe_error *err)
{
    json_t *root;
    int rc = vibe_json_parse(&root, bytes, n, path, err);

    if (rc == VIBE_OK)
        rc = read_preprocessor(out, root, path, err);
    json_decref(root);
    return rc;
}

int vibe_preprocessor_read(struct vibe_preprocessor *out, const char *path,
                           struct vibe_error *err)
{
    json_t *root = NULL;
    int rc;

    if (access(path, F_OK) != 0 && errno == ENOENT) {
        *out = default_preprocessor;
        return VIBE_OK;
    }
    rc = vibe_json_read(&root, path, err);
    if (rc == VIBE_OK)
        rc = read_preprocessor(out, root, path, err);
    json_decref(root);
    return rc;
}
