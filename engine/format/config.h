/*
 * config.h - the dimensions of a checkpoint, read from config.json.
 *
 * Both the original schema (decoder_config, ...) and the one of
 * transformers 5 (text_config, ...) are understood.  After a successful read
 * every field is within the bounds stated beside it, so later arithmetic on
 * them cannot overflow.
 */
#ifndef VIBE_FORMAT_CONFIG_H
#define VIBE_FORMAT_CONFIG_H

#include <stddef.h>

struct vibe_error;

enum { VIBE_MAX_STAGES = 12 };

/* Qwen2 backbone. */
struct vibe_lm_config {
    size_t hidden_size;         /* 1 .. 65536, multiple of n_heads */
    size_t intermediate_size;   /* 1 .. 1048576 */
    size_t num_hidden_layers;   /* 1 .. 1024 */
    size_t first_layer;         /* number of the first of these; 0 unless a
                                   model is split among devices */
    size_t num_attention_heads; /* 1 .. 1024 */
    size_t num_key_value_heads; /* divides num_attention_heads */
    size_t head_dim;            /* hidden_size / num_attention_heads, even */
    size_t vocab_size;          /* 1 .. 2^24 */
    size_t max_position_embeddings; /* 1 .. 2^24 */
    float rms_norm_eps;
    double rope_theta;
};

/* Diffusion head. */
struct vibe_head_config {
    size_t hidden_size; /* as the backbone's */
    size_t head_layers; /* 1 .. 64 */
    size_t ffn_size;    /* hidden_size * head_ffn_ratio; 1 .. 2^22 */
    size_t latent_size; /* 1 .. 4096; the vae_dim of the acoustic codec */
    float rms_norm_eps;
    size_t ddpm_num_steps;           /* training steps; 1000; 1 .. 65536 */
    size_t ddpm_num_inference_steps; /* the checkpoint's own default */
};

/*
 * One stack of the codec: stage s of an encoder has n_filters << s channels
 * and depths[s] blocks; ratios[s] is the stride between stage s and s + 1.
 * A decoder is stored the way it runs: stage 0 is the widest.
 */
struct vibe_stack_config {
    size_t n_filters; /* of the narrowest stage; the widest has <= 65536 */
    size_t n_stages;  /* n_ratios + 1, 2 .. VIBE_MAX_STAGES */
    size_t depths[VIBE_MAX_STAGES]; /* 1 .. 256 */
    size_t ratios[VIBE_MAX_STAGES]; /* in order of application */
    size_t vae_dim;                 /* 1 .. 4096 */
    float layernorm_eps;
};

struct vibe_config {
    struct vibe_lm_config lm;
    struct vibe_head_config head;
    struct vibe_stack_config acoustic_encoder;
    struct vibe_stack_config acoustic_decoder;
    struct vibe_stack_config semantic_encoder;
    size_t hop;    /* samples per frame, product of the ratios; <= 2^20 */
    float fix_std; /* sigma of the acoustic latents before the / 0.8; 0.5,
                    * or 0 where voices are not sampled */
};

/* How voices are made loud, from preprocessor_config.json if there is one. */
struct vibe_preprocessor {
    int db_normalize;
    float target_db;      /* -25 */
    float eps;            /* 1e-6 */
    size_t sampling_rate; /* 24000; anything else is refused */
};

/*
 * Read config.json.
 *
 *   out    untouched on error
 *   path   the file itself
 *
 * Errors: VIBE_E_IO           cannot be read
 *         VIBE_E_FORMAT       not JSON, a number missing or out of bounds
 *         VIBE_E_UNSUPPORTED  an architecture, activation, schedule or
 *                             padding that the model code does not compute
 */
int vibe_config_read(struct vibe_config *out, const char *path,
                     struct vibe_error *err);

/* As vibe_config_read, of n bytes; path is for messages. */
int vibe_config_parse(struct vibe_config *out, const char *bytes, size_t n,
                      const char *path, struct vibe_error *err);

/*
 * Read preprocessor_config.json; a missing file gives the defaults above.
 * Errors: as vibe_config_read.
 */
int vibe_preprocessor_read(struct vibe_preprocessor *out, const char *path,
                           struct vibe_error *err);

/* As vibe_preprocessor_read, of n bytes; path is for messages. */
int vibe_preprocessor_parse(struct vibe_preprocessor *out, const char *bytes,
                            size_t n, const char *path, struct vibe_error *err);

#endif /* VIBE_FORMAT_CONFIG_H */
