/*
 * streaming.h - the language model's matrices, between the model that
 * multiplies by them and offload/, which says where their rows are.
 */
#ifndef VIBE_STREAMING_H
#define VIBE_STREAMING_H

#include <stddef.h>
#include <stdint.h>

#include "engine/backend/ops.h"
#include "engine/model/params.h"
#include "offload/offload.h"
#include "offload/share.h"

struct vibe_hybrid;
struct vibe_lm_config;
struct vibe_weights;

struct vibe_streaming_options {
    size_t budget;      /* bytes of rows that may be resident */
    size_t chunk_bytes; /* of a copy; 0: 32 MB */
    int clear_interval; /* layers streamed from one clear to the next, see
                           vibe_streaming_stats; 0: 50, negative: never */
    double cpu_layers;  /* layers' worth of what streams that the CPU multiplies
                           in a step; 0: none, negative: as many as measuring
                           says are worth it; on a GPU fewer where it says that
                           so many are slower than none */
    int cpu_threads;    /* see hybrid.h */
    int is_metered;     /* time what the device waits for copies, too */
    size_t rows;        /* of a step, at most */
    struct vibe_streaming *like; /* see vibe_engine_options, or NULL */
    struct vibe_offload_options offload;
};

/*
 * Every so many layer transfers (a layer of which at least a chunk was copied)
 * the backend returns to the system what prompts and growth have left behind.
 */
struct vibe_streaming_stats {
    uint64_t layer_transfers, clears;
    double clear_s;                /* all of them */
    struct vibe_share_rates rates; /* 0: not measured */
    double refused; /* share of the CPU's that was asked for; 0: none */
};

struct vibe_streaming {
    struct vibe_backend *be;
    struct vibe_stream *s; /* what the model runs on, borrowed; may be NULL */
    struct vibe_matrix_source *sources; /* [n], owned; parts are the weights' */
    size_t n;
    struct vibe_offload *offload;
    struct vibe_hybrid *hybrid; /* NULL: nothing is lent to the CPU */
    uint64_t clear_interval;    /* 0: never */
    /* what the device waited for copies of each layer, [n / VIBE_LM_MATRICES];
     * NULL unless metered */
    double *waited_s;
    size_t layer; /* that was transferred last */
    struct vibe_streaming_stats stats;
    struct vibe_supply supply;      /* ops call it */
    struct vibe_params_store store; /* the model's loader calls it */
};

/*
 * Find every matrix of the language model, choose what is resident, and start
 * to lay out the rest.
 *
 *   st        all zero; release with vibe_streaming_release, also after an
 *             error; must not move until then
 *   be, w     borrowed until then
 *
 * Errors: VIBE_E_FORMAT, VIBE_E_NOMEM, VIBE_E_DEVICE
 */
int vibe_streaming_init(struct vibe_streaming *st, struct vibe_backend *be,
                        const struct vibe_weights *w,
                        const struct vibe_lm_config *config,
                        const struct vibe_streaming_options *options,
                        struct vibe_error *err);

/*
 * Give resident rows up until that many bytes are free, for vibe_kvcache_limit;
 * user is the vibe_streaming.  What computes from now on is not captured.
 *
 * Errors: VIBE_E_NOMEM, VIBE_E_DEVICE
 */
int vibe_streaming_make_room(void *user, size_t bytes, size_t *freed,
                             struct vibe_error *err);

/* After the model that was loaded through store. */
void vibe_streaming_release(struct vibe_streaming *st);

#endif /* VIBE_STREAMING_H */
