/*
 * plan.h - where every byte of a model lives, decided before one is loaded.
 *
 * A pure function: what the model takes by part, what the device has and what
 * the user asked for go in; a plan comes out, or a refusal in one sentence.
 *
 * Only the rows of the language model's matrices can be streamed.  "N resident
 * layers" means N layers' worth of their bytes: attention first, because every
 * streamed part should be large, then an even share of the rest of all layers,
 * because copies and products then alternate.
 *
 * What the parts take is counted by running the code that allocates it on a
 * backend that only counts (engine/backend/tally.h), so a plan is exact where
 * the device gives what was asked: from one reservation of plan.reserve bytes.
 */
#ifndef VIBE_OFFLOAD_PLAN_H
#define VIBE_OFFLOAD_PLAN_H

#include <stddef.h>
#include <stdint.h>

struct vibe_error;

/* What a model takes; bytes of device memory. */
struct vibe_plan_model {
    size_t n_layers;
    size_t rows;   /* of the layers' matrices: what can be streamed */
    size_t lm;     /* norms, biases, scales, scratch: what cannot */
    size_t prompt; /* what a prompt's rows are computed in */
    size_t head, codec, connectors; /* weights and scratch */
    size_t head_prepared;           /* tables of the solver's steps */
    size_t states;                  /* of dialogues; no keys and values */
    size_t scratch;                 /* of products and attention */
    size_t frame_scratch;           /* of that, what no prompt needs */
    size_t mail;                    /* between parts of a step's attention */
    size_t encoder;                 /* while voices are read */
    size_t kv_block;                /* keys and values of block_tokens */
    size_t block_tokens;

    /* weights that a frame reads, and that each of its steps reads again */
    size_t head_frame_reads, head_step_reads, codec_reads, connector_reads;
    size_t steps; /* of a frame */
};

/* What a device has; bytes. */
struct vibe_plan_device {
    size_t total;
    size_t free;    /* now, with the context there */
    size_t context; /* taken from free by this process already */
    size_t later;   /* that it will take besides: kernels, libraries */
};

/* How fast a machine is; bytes per second. */
struct vibe_plan_rates {
    double read;     /* of device memory, as kernels reach it */
    double link;     /* from the host to the device */
    int is_pageable; /* that is from pageable memory: no other is to be had */
};

enum vibe_plan_kind {
    VIBE_PLAN_AUTO,   /* as much as utilization allows */
    VIBE_PLAN_LAYERS, /* at most n_layers, fewer when they do not fit */
    VIBE_PLAN_SHARE,  /* the same, for a share of all layers */
    VIBE_PLAN_WHOLE,  /* all of it, or a refusal */
};

enum vibe_memory_mode {
    VIBE_MEMORY_NORMAL,
    VIBE_MEMORY_LIGHTWEIGHT, /* codec read from the host */
    VIBE_MEMORY_BEEFY,       /* the acoustic encoder stays */
};

struct vibe_plan_request {
    enum vibe_plan_kind kind;
    double n_layers;      /* VIBE_PLAN_LAYERS; a fraction is allowed */
    double share;         /* VIBE_PLAN_SHARE: 0 .. 1 */
    double utilization;   /* VIBE_PLAN_AUTO: share of free; 0: 0.80 */
    int64_t max_vram;     /* bytes, context and all; 0: no cap; negative:
                                  leave that much free */
    int64_t reserve;      /* bytes to leave free; 0: as usual; negative: none */
    int has_kv_on_host;   /* --offload-kv-cache */
    int has_head_on_host; /* --offload-prediction-head */
    int has_voices_first; /* they are known, and read before all else */
    int lends_prompt;     /* keys and values grow where prompts of at most
                             n_prompt positions are read before */
    enum vibe_memory_mode mode;
    size_t n_dialogues;        /* that advance together; 0: 1 */
    size_t positive, negative; /* positions to plan for in each dialogue */
    size_t n_prompt;
    size_t ring_slots;            /* 0: see vibe_plan_ring */
    size_t chunk_bytes;           /* of a slot; 0: as usual */
    struct vibe_plan_rates rates; /* 0: unknown */
};

struct vibe_plan {
    size_t n_layers;
    size_t rows;     /* of the language model that could be streamed */
    size_t resident; /* of them, that stay on the device */
    size_t streamed; /* rows - resident: what each frame copies */
    double layers;   /* resident, counted in layers */
    size_t ring_slots, chunk_bytes; /* 0 when nothing streams */

    size_t kv;      /* of the planned positions, on the device or the host */
    size_t encoder; /* beside everything else; 0: before it, or where kv comes
                       later */
    size_t fixed;   /* what neither streams nor grows */
    size_t reserve; /* all of this program's allocations */
    size_t total;   /* with context and what comes later: the planned peak */
    size_t budget;  /* what reserve had to fit in */
    size_t needed;  /* budget for all layers to be resident */

    int has_kv_on_host, has_head_on_host, has_codec_on_host;
    int lends_prompt; /* as asked */
    char why[160];    /* one sentence, no full stop */
};

enum {
    VIBE_PLAN_RING_SLOTS = 3,
    VIBE_PLAN_RING_MOST = 40,
    VIBE_PLAN_CHUNK_BYTES = 32 << 20,
};

/*
 * Plan.
 *
 *   out   untouched on error
 *
 * Errors: VIBE_E_NOMEM  it does not fit; msg says what is needed, what there
 *                       is, and what would help
 */
int vibe_plan_make(struct vibe_plan *out, const struct vibe_plan_model *model,
                   const struct vibe_plan_device *device,
                   const struct vibe_plan_request *request,
                   struct vibe_error *err);

/* Bytes of a device that a request allows to be allocated. */
size_t vibe_plan_budget(const struct vibe_plan_device *device,
                        const struct vibe_plan_request *request);

/*
 * Seconds that a frame of n steps takes at least:
 * head + codec + max((streamed - ring) / link, reading the layers), but no less
 * than streamed / link; what is read from the host is so at the link's rate.
 * 0 where a rate is needed and unknown.
 */
double vibe_plan_frame_s(const struct vibe_plan *plan,
                         const struct vibe_plan_model *model,
                         const struct vibe_plan_rates *rates, size_t n_steps);

/*
 * Slots of a ring that the link fills while head and codec are computed: from 3
 * to 40, and 3 where a rate is unknown.  Such a link never rests.  A shorter
 * ring leaves as much more to resident layers, which is as good; a longer one
 * makes the frame's own few bytes wait for chunks.
 */
size_t vibe_plan_ring(const struct vibe_plan_model *model,
                      const struct vibe_plan_rates *rates, size_t chunk_bytes);

/* Write a count of bytes as "9.8 GiB" or "310 MiB"; returns buf. */
const char *vibe_plan_bytes(char *buf, size_t size, size_t bytes);

#endif /* VIBE_OFFLOAD_PLAN_H */
