/*
 * vibevoice.h - the engine: a checkpoint on a device that speaks scripts.
 *
 * Open an engine once, then speak requests with it, one after another.
 * Nothing here prints or exits; progress and samples come by callback.
 *
 * Audio is 24 kHz mono f32; a frame is VIBE_HOP samples at 7.5 frames/s.
 */
#ifndef VIBEVOICE_H
#define VIBEVOICE_H

#include <stddef.h>
#include <stdint.h>

#include "engine/base/dtype.h"
#include "engine/base/error.h"
#include "engine/text/script.h"
#include "offload/card.h"
#include "offload/plan.h"
#include "offload/preset.h"

enum { VIBE_SAMPLE_RATE = 24000 }; /* Hz */

struct vibe_device_info;
struct vibe_device_reading;
struct vibe_engine;
struct vibe_trace;

enum vibe_device { VIBE_DEVICE_AUTO, VIBE_DEVICE_CPU, VIBE_DEVICE_CUDA };

/* A device by its kind and, of a GPU, its number. */
struct vibe_device_choice {
    enum vibe_device device; /* not AUTO */
    int index;
};

/* How the language model's weights come to the device that do not stay there.
 * All zero: they all stay. */
struct vibe_weight_streaming {
    size_t resident_bytes; /* that stay, at most */
    size_t chunk_bytes;    /* of one copy, at most; 0: 32 MB */
    size_t ring_slots;     /* copies on the device at once; 0: 3 */
    size_t host_bytes;     /* host memory to keep them in; 0: what is free */
    int is_on;
    int is_unpinned;    /* use no page-locked memory */
    int is_on_demand;   /* copy nothing ahead of its use */
    int is_synchronous; /* compute nothing while copying */
    int clear_interval; /* layers streamed from one trim of the memory pool to
                           the next; 0: 50, negative: never */
    double cpu_layers;  /* layers' worth of what does not stay that the CPU
                           multiplies itself, see hybrid.h: 0 none, negative: as
                           many as are measured to be worth it */
};

struct vibe_engine_options {
    const char *model;     /* directory or .safetensors file */
    const char *config;    /* config.json, or NULL: beside the model */
    const char *tokenizer; /* directory, or NULL: beside the model */
    enum vibe_device device;
    int device_index; /* of the GPU */
    struct vibe_precision precision;
    int threads;        /* CPU threads; 0: all that this process may use */
    size_t n_dialogues; /* that can advance together; 0: 1 */
    struct vibe_weight_streaming streaming;
    int is_metered; /* for stats: time also what costs a little to time */

    /* Of the same model and precision, or NULL: its host copy of the weights is
     * used; borrowed until this engine is freed. */
    struct vibe_engine *like;

    /* Devices [n_fronts] for the first layers, of the same kind as device,
     * which has the last ones and all else; borrowed for the call. */
    const struct vibe_device_choice *fronts;
    size_t n_fronts;

    /* Where weights, keys and values live on a GPU; all zero: what fits there
     * stays there.  Lengths are those of the requests, and of none usual. */
    struct vibe_plan_request plan;
    const struct vibe_request *requests; /* [n_requests] that will be spoken,
                                            borrowed for the call */
    size_t n_requests;
    int steps; /* of the solver, where no request says it; 0: 10 */

    /* Told once, while the engine lives, of each thing that is missing and
     * can be done without: the GPU of VIBE_DEVICE_AUTO in a build that knows
     * CUDA, cuBLASLt for prompts; and that weights are recoded, or scalars
     * restored.  May be NULL. */
    void (*on_notice)(void *user, const char *sentence);
    void *user;

    /* What is loaded, prompts and the stages of every step go there;
     * borrowed until the engine is freed; NULL: nowhere. */
    struct vibe_trace *trace;
};

/*
 * Open a checkpoint on a device.  Everything is validated before a weight is
 * read.
 *
 *   out   set to the engine, or to NULL on error; vibe_engine_free
 *
 * Errors: VIBE_E_IO, VIBE_E_FORMAT, VIBE_E_UNSUPPORTED  the files
 *         VIBE_E_DEVICE                                 the device
 *         VIBE_E_NOMEM
 */
int vibe_engine_open(struct vibe_engine **out,
                     const struct vibe_engine_options *options,
                     struct vibe_error *err);

/* Release everything; NULL is allowed. */
void vibe_engine_free(struct vibe_engine *engine);

/* A device with some of the first layers, see vibe_engine_options. */
struct vibe_front_plan {
    char device[96];
    size_t n_layers;
    size_t rows;  /* bytes of their matrices */
    size_t bytes; /* all that is taken there, but for its context */
};

enum { VIBE_MAX_FRONTS = 16 };

/* What would be where. */
struct vibe_engine_plan {
    char device[96];
    int has_gpu; /* 0: everything is in the memory of the host */
    struct vibe_plan_model model;
    struct vibe_plan_device memory;
    struct vibe_plan plan;
    struct vibe_precision precision; /* as asked, or what it takes to fit */
    const char *kv_dtype;            /* of keys and values: "BF16", ... */
    size_t positive, negative;       /* positions of a dialogue, as planned */
    int has_voices_first;            /* they are read before all else */
    size_t others;                   /* bytes of the device that others use */
    struct vibe_plan_rates rates;    /* probed where something streams, and by
                                        vibe_engine_plan */
    const char *path; /* that streamed chunks will take, see offload/offload.h:
                         "direct", ... */
    struct vibe_front_plan fronts[VIBE_MAX_FRONTS];
    size_t n_fronts;
};

/*
 * Say what opening would do, and how fast the device is.  Loads nothing.
 *
 *   probes_cpu   whether to measure a CPU too, which takes a moment
 *
 * Errors: as vibe_engine_open
 */
int vibe_engine_plan(struct vibe_engine_plan *out,
                     const struct vibe_engine_options *options, int probes_cpu,
                     struct vibe_error *err);

/* The plan that an engine was opened by; borrowed from it. */
const struct vibe_engine_plan *vibe_engine_planned(
    const struct vibe_engine *engine);

/*
 * Count what a checkpoint takes of a GPU, which need not be there.
 *
 *   lm   what the language model's matrices are kept in; AUTO: as they are
 *
 * Errors: those of the files; VIBE_E_NOMEM
 */
int vibe_engine_measure(struct vibe_plan_model *out,
                        const struct vibe_engine_options *options,
                        enum vibe_weight_dtype lm, struct vibe_error *err);

/* What has been done with a device since an engine was opened. */
struct vibe_engine_stats {
    size_t n_layers;
    double gpu_layers; /* of them, that are resident */
    const char *path;  /* of what is streamed: "direct", "bounce", ...; see
                          offload/offload.h */
    int is_path_final; /* all of it is where it stays */
    size_t resident_bytes, streamed_bytes; /* of the layers; each pass copies
                                              what is streamed */
    size_t n_chunks;
    uint64_t transfers, bytes; /* from the host, of weights */
    double waited_s;           /* the host's, for what was not ready to copy */
    double device_waited_s;    /* for copies; 0 unless metered */
    size_t n_demoted;         /* resident pieces given up for keys and values */
    uint64_t layer_transfers; /* layers of which something was copied */
    uint64_t clears;          /* of the memory pool */
    double clear_s;           /* all of them */
    double link;              /* bytes per second, probed now; 0: not asked */
    double frame_s; /* that a frame takes at least, as chunks lie now; 0: not
                       known */
    /* of a GPU: as planned, as its driver counts it at most, the part that
     * was reserved, and what of that was used at most; 0 on the CPU */
    size_t vram_planned, vram_peak, vram_reserved, vram_used;
};

void vibe_engine_stats(const struct vibe_engine *engine,
                       struct vibe_engine_stats *out);

/* What the CPU does in each frame of what would have to be copied. */
struct vibe_cpu_share {
    size_t bytes, streamed_bytes; /* that it multiplies, that are copied */
    double refused; /* share that was asked for and is slower than none */
    /* bytes per second: the CPU's and the link's while both worked, and the
     * link's alone; 0 where nothing was measured */
    double cpu_rate, link_rate, alone_rate;
};

void vibe_engine_cpu_share(const struct vibe_engine *engine,
                           struct vibe_cpu_share *out);

/* The same for one layer; transfers is of chunks. */
struct vibe_layer_stats {
    size_t resident_bytes, streamed_bytes;
    uint64_t transfers;
    double device_waited_s;
};

void vibe_engine_layer_stats(const struct vibe_engine *engine, size_t layer,
                             struct vibe_layer_stats *out);

/*
 * Write a checkpoint as one .safetensors file, its matrices in the dtypes of a
 * precision (AUTO: as they are); everything else stays as it is.  The file
 * appears under its name when it is whole; it may be none of the checkpoint's.
 *
 *   should_stop   asked before each tensor; NULL: goes on to the end
 *
 * Errors: VIBE_E_IO, also when stopped; VIBE_E_FORMAT, VIBE_E_UNSUPPORTED,
 *         VIBE_E_NOMEM; nothing is left behind
 */
int vibe_convert(const char *model, const char *out,
                 const struct vibe_precision *precision,
                 int (*should_stop)(void), struct vibe_error *err);

/* What a precision would do to one matrix. */
struct vibe_precision_row {
    const char *name; /* as the file spells it */
    const char *from, *to;
    double snr_db; /* infinite where nothing is lost */
};

/*
 * Judge every matrix that a precision changes, the worst first.
 *
 *   visit   row borrowed for the call
 *
 * Errors: as vibe_convert
 */
int vibe_precision_judge(const char *model,
                         const struct vibe_precision *precision,
                         void (*visit)(void *user,
                                       const struct vibe_precision_row *row),
                         void *user, struct vibe_error *err);

/* What --info prints. */
struct vibe_engine_info {
    char device[96];
    size_t n_tensors, weight_bytes;
    const char *dtype; /* of most weights, as safetensors spells it */
    size_t n_parameters;
    size_t hidden_size, intermediate_size, num_hidden_layers;
    size_t num_attention_heads, num_key_value_heads, vocab_size;
    size_t max_position_embeddings;
    size_t head_layers, latent_size, semantic_size, hop;
    size_t default_steps; /* the checkpoint's ddpm_num_inference_steps */
    int is_tied;          /* output head = embedding table */
    float speech_scaling_factor, speech_bias_factor;
    /* bytes that one frame of one dialogue reads, at n diffusion steps:
     * frame_bytes + n * step_bytes */
    size_t frame_bytes, step_bytes;
};

void vibe_engine_describe(const struct vibe_engine *engine,
                          struct vibe_engine_info *out);

/* What an engine has used of its device. */
struct vibe_usage {
    size_t vram_peak; /* bytes it has ever taken, the driver's context
                         included; 0 on the CPU */
    double energy_j;  /* that the device has taken until now, whoever used it;
                         only differences mean something; negative: unknown */
};

void vibe_engine_usage(const struct vibe_engine *engine,
                       struct vibe_usage *out);

/* A reference clip for one speaker. */
struct vibe_voice {
    int speaker;          /* id as the script writes it */
    const float *samples; /* [n] 24 kHz mono, as recorded; borrowed */
    size_t n;
    const char *name; /* for messages */
};

/* Why a dialogue ended. */
enum vibe_finish {
    VIBE_FINISH_END,         /* the model said so */
    VIBE_FINISH_LENGTH,      /* a cap on its length */
    VIBE_FINISH_INTERRUPTED, /* on_frame returned non-zero */
};

struct vibe_sampling {
    int is_on;         /* 0: the most probable control token */
    float temperature; /* > 0; 1 is the model's own */
    float top_p;       /* 0 < top_p <= 1 */
};

struct vibe_request {
    const struct vibe_script *script; /* borrowed */
    const struct vibe_voice *voices;  /* [n_voices], borrowed */
    size_t n_voices;                  /* 0: the model invents the voices */
    float cfg_scale;                  /* 1: no guidance; 1.3 */
    int steps;                        /* solver steps, 1 .. 1000; 10 */
    uint64_t seed;
    struct vibe_sampling sampling;
    float max_length_times; /* cap on tokens, times the prompt's; 2 */
    size_t max_frames;      /* cap on frames; 0: none */
    /* Of a script that is spoken in parts: */
    size_t first_frame;    /* frames of the parts before this one */
    int has_silent_voices; /* a voice may be of who says nothing here */

    /*
     * Called for each frame with n samples (borrowed for the call).  Return 0
     * to go on, non-zero to finish here.  May be NULL.
     */
    int (*on_frame)(void *user, const float *samples, size_t n);

    /* Called once when the prompt is known; may be NULL. */
    void (*on_prompt)(void *user, size_t n_tokens, size_t max_tokens);
    void *user;

    const char *dump_dir; /* write intermediate tensors here, or NULL */
};

struct vibe_result {
    enum vibe_finish finish;
    size_t frames, samples, tokens, prompt_tokens;
    double prompt_s, frames_s; /* wall time of the prompt, of the frames */
};

/*
 * Speak one script.
 *
 *   result   filled in also after an error, as far as it went
 *
 * Errors: VIBE_E_ARG      the request: speakers and voices do not match (msg
 *                         says which id), a number out of range
 *         VIBE_E_FORMAT   text that is not UTF-8, a clip that is no voice (see
 *                         vibe_voice_check), weights that compute NaN
 *         VIBE_E_NOMEM, VIBE_E_DEVICE, VIBE_E_IO (dump_dir)
 */
int vibe_speak(struct vibe_engine *engine, const struct vibe_request *request,
               struct vibe_result *result, struct vibe_error *err);

/*
 * Speak many requests, as many at once as the engine has room for: each weight
 * is read once for all of them.  What is said does not depend on what else is
 * spoken.
 *
 * Requests that take other numbers of solver steps than those being spoken
 * wait until these have ended: give them in an order that has few changes.
 */
struct vibe_batch {
    /*
     * Fill in the next request and return 1, or return 0 if there is none; it
     * is asked for again when a dialogue has ended.  What a request points to
     * is borrowed until its end.
     */
    int (*next)(void *user, struct vibe_request *out);

    /* A dialogue has ended: as the result says, or by an error if err->code is
     * not VIBE_OK, which may be any of vibe_speak. */
    void (*on_end)(void *user, const struct vibe_request *request,
                   const struct vibe_result *result,
                   const struct vibe_error *err);

    /* Asked between frames: non-zero ends them all as interrupted; may be
     * NULL. */
    int (*is_stopped)(void *user);
    void *user;
};

/*
 * Errors: VIBE_E_NOMEM, VIBE_E_DEVICE, after which nothing more can be spoken.
 *         The failure of one dialogue is told to on_end alone.
 */
int vibe_speak_batch(struct vibe_engine *engine, const struct vibe_batch *batch,
                     struct vibe_error *err);

/*
 * Encode the voices of requests that are going to be spoken, so that later no
 * dialogue waits for another one's; those that vibe_engine_open was told of
 * are.  Errors: VIBE_E_NOMEM, VIBE_E_DEVICE
 */
int vibe_prepare_voices(struct vibe_engine *engine,
                        const struct vibe_request *requests, size_t n,
                        struct vibe_error *err);

/*
 * Check a request as vibe_speak would, without speaking.  Needs the tokenizer
 * only; *n_tokens (may be NULL) is the length of its prompt.
 */
int vibe_request_check(struct vibe_engine *engine,
                       const struct vibe_request *request, size_t *n_tokens,
                       struct vibe_error *err);

/*
 * Is this clip usable as a voice?  Errors: VIBE_E_FORMAT (empty, silent, too
 * long); msg starts with its name.
 */
int vibe_voice_check(const struct vibe_voice *voice, struct vibe_error *err);

/*
 * Visit the prompt's tokens (--dump-tokens): id, and its text as bytes; a
 * voice placeholder has n == 0.
 */
int vibe_request_tokens(struct vibe_engine *engine,
                        const struct vibe_request *request,
                        void (*visit)(void *user, size_t i, int32_t id,
                                      const char *text, size_t n),
                        void *user, struct vibe_error *err);

/* One compared tensor of --verify. */
struct vibe_verify_row {
    const char *name;
    double max_error, max_ref; /* largest |error|, largest |recorded| */
    double bound;              /* what max_error may be */
    int is_free;               /* free-running: reported, not judged */
    int is_ok;
};

struct vibe_verify_summary {
    size_t n_compared, n_failed;
    size_t n_tokens, n_tokens_equal; /* free-running sequence */
    const int32_t *tokens;           /* [n_tokens_got] free-running */
    size_t n_tokens_got;
};

/*
 * Compare with recorded results of the reference implementation: every stage
 * fed with the recorded inputs, then free-running.
 *
 *   golden   golden.safetensors; golden.json is read from beside it
 *   visit    called per tensor, in order; may be NULL
 *
 * Returns VIBE_OK when the comparison could be made; whether all holds is
 * summary->n_failed == 0.  summary->tokens lives until the engine is freed.
 *
 * Errors: VIBE_E_IO, VIBE_E_FORMAT (a recorded tensor is absent or
 *         misshapen), VIBE_E_NOMEM, VIBE_E_DEVICE
 */
int vibe_engine_verify(struct vibe_engine *engine, const char *golden,
                       void (*visit)(void *user,
                                     const struct vibe_verify_row *row),
                       void *user, struct vibe_verify_summary *summary,
                       struct vibe_error *err);

/* What the engine's device is doing now, see base/device.h.  Any thread. */
void vibe_engine_meter(struct vibe_engine *engine,
                       struct vibe_device_reading *out);

/*
 * Visit the CPU, then every GPU, usable or not.
 *
 * Errors: VIBE_E_UNSUPPORTED  this build has no CUDA: the CPU was visited
 *         VIBE_E_DEVICE       no GPU: likewise
 *         VIBE_E_ARG, VIBE_E_NOMEM  nothing was
 */
int vibe_list_devices(void (*visit)(void *user,
                                    const struct vibe_device_info *info),
                      void *user, struct vibe_error *err);

/* What this build has and this CPU runs, "cuda 13.0: sm_80 90 + ptx; cpu: avx2
 * avx512", in buf of size. */
const char *vibe_describe_build(char *buf, size_t size);

/* One stage of a frame. */
enum vibe_stage {
    VIBE_STAGE_LM,
    VIBE_STAGE_HEAD,
    VIBE_STAGE_DECODER,
    VIBE_STAGE_SEMANTIC,
    VIBE_STAGE_CONNECTORS,
    VIBE_N_STAGES,
};

/* "lm", "head", "decoder", "semantic", "connectors". */
const char *vibe_stage_name(enum vibe_stage stage);

/* What vibe_engine_bench measured; medians over frames. */
struct vibe_bench {
    double frame_s;                    /* one frame of all, read back */
    double stage_s[VIBE_N_STAGES];     /* each stage of a frame */
    double host_s;                     /* of a frame, while no stage ran */
    size_t stage_bytes[VIBE_N_STAGES]; /* weights that it reads */
    double bandwidth;      /* bytes per second, probed; 0: unknown */
    size_t link_bytes;     /* weights that a frame copies from the host */
    double link_bandwidth; /* bytes per second, probed; 0: nothing is copied */
    double prefill_s;      /* of a prompt of n_prompt tokens */
    double wait_s; /* longest time between two frames of the others while one
                      of several dialogues reads that prompt; 0: alone */
    size_t memory_used, memory_total; /* of the device, whoever uses it */
    /* of a GPU, bytes that this engine uses before and after the frames, and
     * what it has ever taken, the driver's context included; 0 on the CPU */
    size_t vram_first, vram_last, vram_peak;
    double energy_j;  /* of a frame; negative: unknown, or too short a time */
    size_t rss_bytes; /* peak of the process, before probing */
};

/*
 * Time frames of dialogues that have been going on for n_context tokens: as
 * many as the engine has room for.
 *
 *   n_frames   to time, > 0
 *   steps      of the solver
 *   n_prompt   tokens of a prompt to time; 0: none
 *
 * Errors: VIBE_E_ARG (a number out of range), VIBE_E_NOMEM, VIBE_E_DEVICE
 */
int vibe_engine_bench(struct vibe_engine *engine, struct vibe_bench *out,
                      size_t n_frames, int steps, size_t n_context,
                      size_t n_prompt, struct vibe_error *err);

/*
 * Compare every op of a device with the CPU's on fresh random inputs: with the
 * arithmetic of float32, then with that of speech.
 *
 *   options    device, device_index and threads are used
 *   report     called per case
 *   n_failed   set to the number of cases that failed
 *
 * Errors: VIBE_E_DEVICE, VIBE_E_UNSUPPORTED, VIBE_E_NOMEM
 */
int vibe_self_test(const struct vibe_engine_options *options, uint64_t seed,
                   void (*report)(void *user, const char *op, const char *shape,
                                  double max_err, double bound, int is_ok),
                   void *user, size_t *n_failed, struct vibe_error *err);

/*
 * Compare token ids with recorded ones (vectors.json).
 *
 *   visit   called for each vector that differs, with the place of its first
 *           difference among the ids; may be NULL
 *
 * Errors: VIBE_E_IO, VIBE_E_FORMAT, VIBE_E_NOMEM; a difference is none.
 */
int vibe_tokenizer_verify_file(const char *tokenizer_dir, const char *vectors,
                               void (*visit)(void *user, size_t index,
                                             const char *text,
                                             size_t first_difference),
                               void *user, size_t *n_vectors, size_t *n_equal,
                               struct vibe_error *err);

#endif /* VIBEVOICE_H */
