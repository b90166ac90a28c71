/*
 * engine.h - what an engine is made of; for the files behind vibevoice.h.
 */
#ifndef VIBE_ENGINE_H
#define VIBE_ENGINE_H

#include "engine/backend/backend.h"
#include "engine/format/config.h"
#include "engine/generate.h"
#include "engine/models.h"
#include "engine/vibevoice.h"

struct vibe_fronts;
struct vibe_tokenizer;
struct vibe_voices;
struct vibe_weights;

struct vibe_engine {
    struct vibe_config config;
    struct vibe_preprocessor preprocessor;
    struct vibe_tokenizer *tokenizer;
    struct vibe_weights *weights;
    struct vibe_backend *backend;
    struct vibe_stream stream;
    struct vibe_fronts *fronts;   /* of --devices, or NULL */
    struct vibe_engine_plan plan; /* made before anything was loaded */
    struct vibe_models models;
    struct vibe_generator *generator;
    struct vibe_voices *voices;
    int32_t control_ids[VIBE_N_CONTROL];
    struct vibe_trace *trace; /* borrowed, or NULL */
    int32_t *verified_tokens; /* what the last verify heard */
};

#endif /* VIBE_ENGINE_H */
