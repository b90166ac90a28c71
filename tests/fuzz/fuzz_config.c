/*
 * Any bytes as config.json, preprocessor_config.json and an index of shards:
 * what is accepted keeps the bounds of its header, the rest gets a sentence.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/format/config.h"
#include "engine/format/index.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Crash where what must hold does not, also without assertions. */
static void must(int fact)
{
    if (!fact)
        abort();
}

static void check_stack(const struct vibe_stack_config *s, size_t hop)
{
    size_t product = 1;

    must(s->n_stages >= 2 && s->n_stages <= VIBE_MAX_STAGES);
    must(s->n_filters >= 1 && s->n_filters << (s->n_stages - 1) <= 65536);
    must(s->vae_dim >= 1 && s->vae_dim <= 4096);
    for (size_t i = 0; i < s->n_stages; i++)
        must(s->depths[i] >= 1 && s->depths[i] <= 256);
    for (size_t i = 0; i + 1 < s->n_stages; i++)
        product *= s->ratios[i];
    must(product == hop && hop <= 1 << 20);
}

static void check_config(const struct vibe_config *c)
{
    must(c->lm.hidden_size >= 1 && c->lm.hidden_size <= 65536);
    must(c->lm.intermediate_size >= 1 && c->lm.intermediate_size <= 1 << 20);
    must(c->lm.num_hidden_layers >= 1 && c->lm.num_hidden_layers <= 1024);
    must(c->lm.head_dim * c->lm.num_attention_heads == c->lm.hidden_size);
    must(c->lm.head_dim % 2 == 0);
    must(c->lm.num_attention_heads % c->lm.num_key_value_heads == 0);
    must(c->lm.vocab_size >= 1 && c->lm.vocab_size <= 1 << 24);
    must(c->lm.rms_norm_eps > 0 && c->lm.rope_theta >= 1);
    must(c->head.hidden_size == c->lm.hidden_size);
    must(c->head.head_layers >= 1 && c->head.head_layers <= 64);
    must(c->head.ffn_size >= 1 && c->head.ffn_size <= 1 << 22);
    must(c->head.latent_size == c->acoustic_encoder.vae_dim);
    must(c->head.ddpm_num_steps >= 1 && c->head.ddpm_num_steps <= 65536);
    check_stack(&c->acoustic_encoder, c->hop);
    check_stack(&c->acoustic_decoder, c->hop);
    check_stack(&c->semantic_encoder, c->hop);
}

static void try_index(const char *text, size_t size)
{
    struct vibe_index index;

    if (vibe_index_parse(&index, text, size, "fuzz", NULL) != VIBE_OK)
        return;
    must(index.n_shards >= 1 && index.n_shards <= VIBE_MAX_SHARDS);
    for (size_t i = 0; i < index.n_entries; i++)
        must(index.entries[i].shard < index.n_shards);
    for (size_t i = 0; i < index.n_shards; i++)
        must(index.shards[i][0] && !strchr(index.shards[i], '/') &&
             !strstr(index.shards[i], ".."));
    vibe_index_release(&index);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    struct vibe_preprocessor preprocessor;
    struct vibe_error err = {0};
    struct vibe_config config;
    int rc = vibe_config_parse(&config, text, size, "fuzz", &err);

    must((rc == VIBE_OK) == (err.msg[0] == '\0'));
    if (rc == VIBE_OK)
        check_config(&config);
    rc = vibe_preprocessor_parse(&preprocessor, text, size, "fuzz", NULL);
    must(rc != VIBE_OK || preprocessor.sampling_rate == 24000);
    try_index(text, size);
    return 0;
}
