#include "engine/format/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Rewrite the part of a name behind its prefix; 1 if it does not fit. */
typedef int rewrite(char *out, size_t size, const char *rest);

struct rename {
    const char *from, *to;
};

/* If text begins with prefix, what follows it; else NULL. */
static const char *after(const char *text, const char *prefix)
{
    size_t n = strlen(prefix);

    return strncmp(text, prefix, n) == 0 ? text + n : NULL;
}

static int print(char *out, size_t size, const char *a, const char *b)
{
    return snprintf(out, size, "%s%s", a, b) >= (int)size;
}

/* Rename by the first prefix in the table that fits; else copy. */
static int by_table(char *out, size_t size, const char *rest,
                    const struct rename *table, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const char *tail = after(rest, table[i].from);

        if (tail)
            return print(out, size, table[i].to, tail);
    }
    return print(out, size, "", rest);
}

static int plain(char *out, size_t size, const char *rest)
{
    return print(out, size, "", rest);
}

static int connector(char *out, size_t size, const char *rest)
{
    static const struct rename table[] = {
        {"linear_1.", "fc1."},
        {"act.", "norm."}, /* named so, but it is the RMSNorm */
        {"linear_2.", "fc2."},
    };

    return by_table(out, size, rest, table, sizeof(table) / sizeof(*table));
}

/* A small number and a dot, as in "12."; what follows, or NULL. */
static const char *index_dot(const char *text, unsigned long *out)
{
    char *end;

    if (*text < '0' || *text > '9')
        return NULL;
    *out = strtoul(text, &end, 10);
    return *end == '.' && *out < 10000 ? end + 1 : NULL;
}

static int head(char *out, size_t size, const char *rest)
{
    static const struct rename table[] = {
        {"timestep_proj.fc1.", "t_embedder.mlp.0."}, /* as released */
        {"timestep_proj.fc2.", "t_embedder.mlp.2."},
        {"timestep_proj.layer_1.", "t_embedder.mlp.0."}, /* while in review */
        {"timestep_proj.layer_2.", "t_embedder.mlp.2."},
        {"timestep_embedder.layer_1.", "t_embedder.mlp.0."},
        {"timestep_embedder.layer_2.", "t_embedder.mlp.2."},
        {"final_layer.linear_1.", "final_layer.adaLN_modulation.1."},
        {"final_layer.linear_2.", "final_layer.linear."},
    };
    const char *layer = after(rest, "layers.");
    const char *part = NULL;
    unsigned long i = 0;

    if (layer)
        part = index_dot(layer, &i);
    if (part && after(part, "linear."))
        return snprintf(out, size, "layers.%lu.adaLN_modulation.1.%s", i,
                        after(part, "linear.")) >= (int)size;
    return by_table(out, size, rest, table, sizeof(table) / sizeof(*table));
}

/* Inside a block only the depthwise convolution has fewer wrappers. */
static int block(char *out, size_t size, unsigned long stage, const char *rest)
{
    const char *conv = strstr(rest, ".mixer.conv.");
    const char *tail = conv ? conv + strlen(".mixer.conv.") : NULL;

    if (!conv || after(tail, "conv."))
        return snprintf(out, size, "stages.%lu.%s", stage, rest) >= (int)size;
    return snprintf(out, size, "stages.%lu.%.*s.mixer.conv.conv.conv.%s", stage,
                    (int)(conv - rest), rest, tail) >= (int)size;
}

/* stem is stage 0, conv_layers.k is stage k + 1; each resamples, then has
 * its blocks. */
static int codec(char *out, size_t size, const char *rest, const char *resample)
{
    const char *part = after(rest, "stem.");
    const char *layer = after(rest, "conv_layers.");
    const char *conv = after(rest, "head.conv.");
    unsigned long stage = 0;

    if (layer && (part = index_dot(layer, &stage)))
        stage++;
    if (part && after(part, "stage."))
        return block(out, size, stage, after(part, "stage."));
    if (part)
        return snprintf(out, size, "%s.%lu.0.%s", resample, stage, part) >=
               (int)size;
    if (conv && !after(conv, "conv."))
        return print(out, size, "head.conv.conv.", conv);
    return print(out, size, "", rest);
}

static int encoder(char *out, size_t size, const char *rest)
{
    return codec(out, size, rest, "downsample_layers");
}

static int decoder(char *out, size_t size, const char *rest)
{
    return codec(out, size, rest, "upsample_layers");
}

/* Groups of tensors.  Those whose prefix is the same in both conventions are
 * here too: a checkpoint may have been converted in part. */
static const struct group {
    const char *from, *to;
    rewrite *rewrite;
} groups[] = {
    {"model.audio_tower.encoder.", "model.acoustic_tokenizer.encoder.",
     encoder},
    {"model.audio_tower.decoder.", "model.acoustic_tokenizer.decoder.",
     decoder},
    {"model.acoustic_tokenizer_encoder.", "model.acoustic_tokenizer.encoder.",
     encoder},
    {"model.acoustic_tokenizer_decoder.", "model.acoustic_tokenizer.decoder.",
     decoder},
    {"model.acoustic_tokenizer.encoder.", "model.acoustic_tokenizer.encoder.",
     encoder},
    {"model.acoustic_tokenizer.decoder.", "model.acoustic_tokenizer.decoder.",
     decoder},
    {"model.semantic_tokenizer_encoder.", "model.semantic_tokenizer.encoder.",
     encoder},
    {"model.semantic_tokenizer.encoder.", "model.semantic_tokenizer.encoder.",
     encoder},
    {"model.multi_modal_projector.", "model.acoustic_connector.", connector},
    {"model.acoustic_connector.", "model.acoustic_connector.", connector},
    {"model.semantic_connector.", "model.semantic_connector.", connector},
    {"model.diffusion_head.", "model.prediction_head.", head},
    {"model.prediction_head.", "model.prediction_head.", head},
    {"model.latent_scaling_factor", "model.speech_scaling_factor", plain},
    {"model.latent_bias_factor", "model.speech_bias_factor", plain},
};

int vibe_names_original(char *out, size_t size, const char *name)
{
    for (size_t i = 0; i < sizeof(groups) / sizeof(*groups); i++) {
        const char *rest = after(name, groups[i].from);
        size_t n = strlen(groups[i].to);

        if (!rest)
            continue;
        if (n >= size)
            return 1;
        memcpy(out, groups[i].to, n + 1);
        return groups[i].rewrite(out + n, size - n, rest);
    }
    return print(out, size, "", name);
}
