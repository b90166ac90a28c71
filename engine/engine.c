#include "engine/engine.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/base/clock.h"
#include "engine/base/device.h"
#include "engine/base/trace.h"
#include "engine/format/readahead.h"
#include "engine/format/weights.h"
#include "engine/front.h"
#include "engine/model/diffusion.h"
#include "engine/model/kvcache.h"
#include "engine/planning.h"
#include "engine/precision.h"
#include "engine/prompt.h"
#include "engine/text/tokenizer.h"
#include "engine/voice.h"
#include "offload/host.h"

enum { READERS = 4 }; /* threads of --memory-mode beefy */

/* The directory of a model: path itself, or where the file lies; owned. */
static char *model_dir(const char *path)
{
    const char *slash = strrchr(path, '/');
    struct stat st;

    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return strdup(path);
    if (!slash)
        return strdup(".");
    return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

/* dir/name, owned; NULL without memory. */
static char *join(const char *dir, const char *name)
{
    char *path = NULL;

    return asprintf(&path, "%s/%s", dir, name) < 0 ? NULL : path;
}

/* Read the files that say what the model is; dir is where they lie. */
static int read_files(struct vibe_engine *e,
                      const struct vibe_engine_options *o, const char *dir,
                      struct vibe_error *err)
{
    char *config = o->config ? strdup(o->config) : join(dir, "config.json");
    char *preprocessor = join(dir, "preprocessor_config.json");
    const char *tokenizer = o->tokenizer ? o->tokenizer : dir;
    int rc = VIBE_OK;

    if (!config || !preprocessor)
        rc = vibe_fail(err, VIBE_E_NOMEM, "%s: no memory", o->model);
    if (rc == VIBE_OK)
        rc = vibe_config_read(&e->config, config, err);
    if (rc == VIBE_OK)
        rc = vibe_preprocessor_read(&e->preprocessor, preprocessor, err);
    if (rc == VIBE_OK)
        rc = vibe_tokenizer_open(&e->tokenizer, tokenizer, err);
    if (rc == VIBE_OK)
        rc = vibe_control_ids(e->control_ids, e->tokenizer, tokenizer, err);
    if (rc == VIBE_OK && o->like)
        e->weights = vibe_weights_share(o->like->weights);
    if (rc == VIBE_OK && !o->like)
        rc = vibe_weights_open(&e->weights, o->model, err);
    if (rc == VIBE_OK && !o->like)
        rc = vibe_models_check(e->weights, &e->config, err);
    free(config);
    free(preprocessor);
    return rc;
}

static void notice(const struct vibe_engine_options *o, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void notice(const struct vibe_engine_options *o, const char *format, ...)
{
    char sentence[sizeof(((struct vibe_error *)0)->msg) + 64];
    va_list args;

    if (!o->on_notice)
        return;
    va_start(args, format);
    vsnprintf(sentence, sizeof(sentence), format, args);
    va_end(args);
    o->on_notice(o->user, sentence);
}

/* Ask for the dtypes that the options say, before anything is measured or
 * loaded, and say so where that is work. */
static void keep_weights(struct vibe_engine *e,
                         const struct vibe_engine_options *o)
{
    const struct vibe_precision *p = &o->precision;
    const enum vibe_dtype stored = vibe_precision_lm(e->weights, &e->config.lm,
                                                     VIBE_WEIGHTS_AUTO);
    const enum vibe_dtype lm = vibe_precision_lm(e->weights, &e->config.lm,
                                                 p->lm);

    vibe_precision_keep(e->weights, p);
    if (lm != stored)
        notice(o,
               "%s: holds %s weights; the language model's are made %s while "
               "loading (--convert does it once for all)",
               o->model, vibe_dtype_name(stored), vibe_dtype_name(lm));
}

/* The device asked for; AUTO falls back to the CPU and says why. */
static int open_backend(struct vibe_engine *e,
                        const struct vibe_engine_options *o,
                        struct vibe_error *err)
{
    const int want_cuda = o->device != VIBE_DEVICE_CPU;
    struct vibe_backend_options options = {
        .want_cuda = want_cuda,
        .device = o->device_index,
        .threads = o->threads,
        .is_exact = o->precision.lm == VIBE_WEIGHTS_F32,
        .kv = vibe_precision_kv(e->weights, &e->config.lm, &o->precision,
                                want_cuda),
        .notice = {.tell = o->on_notice, .user = o->user},
    };
    const struct vibe_held held = vibe_host_hold();
    struct vibe_error why = {0};
    int rc = vibe_backend_open(&e->backend, &options, &why);

    vibe_host_let_go(held);
    if (rc != VIBE_OK && o->device == VIBE_DEVICE_AUTO) {
        /* a build without CUDA is no news to whoever built it */
        if (why.code != VIBE_E_UNSUPPORTED)
            notice(o, "%s: computing on the CPU", why.msg);
        options.want_cuda = 0;
        options.kv = o->precision.kv;
        rc = vibe_backend_open(&e->backend, &options, &why);
    }
    /* whatever the reason, it is the device that cannot be had */
    if (rc == VIBE_E_UNSUPPORTED)
        rc = why.code = VIBE_E_DEVICE;
    if (rc != VIBE_OK && err)
        *err = why;
    return rc;
}

/* From now on what is computed is timed. */
static void start_trace(struct vibe_engine *e, struct vibe_trace *trace,
                        double loading_s)
{
    vibe_trace_span(trace, VIBE_TRACK_HOST, "load", loading_s, vibe_clock_s());
    e->trace = trace;
    e->stream.is_timed = trace != NULL;
    e->generator->timeline.trace = trace;
    vibe_timeline_meter(&e->generator->timeline, &e->stream);
}

/* Read the files and find the tensors: what can be known without a device. */
static int open_files(struct vibe_engine **out,
                      const struct vibe_engine_options *o,
                      struct vibe_error *err)
{
    struct vibe_engine *e = calloc(1, sizeof(*e));
    char *dir = model_dir(o->model);
    int rc = VIBE_OK;

    if (!e || !dir)
        rc = vibe_fail(err, VIBE_E_NOMEM, "%s: no memory", o->model);
    if (rc == VIBE_OK)
        rc = read_files(e, o, dir, err);
    if (rc == VIBE_OK && !o->like)
        keep_weights(e, o);
    if (rc == VIBE_OK)
        e->models.config = e->config; /* by which requests are checked */
    free(dir);
    if (rc == VIBE_OK)
        *out = e;
    else
        vibe_engine_free(e);
    return rc;
}

/* Put the models where the plan says, or as they were asked to be. */
static int load_models(struct vibe_engine *e,
                       const struct vibe_engine_options *o,
                       struct vibe_error *err)
{
    const struct vibe_weight_streaming *asked = &o->streaming;
    const struct vibe_plan *plan = &e->plan.plan;
    /* on a GPU also what all stays: keys and values may want its memory */
    const int is_on = asked->is_on || plan->streamed || e->backend->is_cuda;
    const size_t resident = plan->streamed ? plan->resident : SIZE_MAX;
    const struct vibe_streaming_options streaming = {
        .budget = asked->is_on ? asked->resident_bytes : resident,
        .chunk_bytes = asked->is_on ? asked->chunk_bytes : plan->chunk_bytes,
        .clear_interval = asked->clear_interval,
        .cpu_layers = asked->cpu_layers,
        .cpu_threads = o->threads,
        .is_metered = o->is_metered,
        .rows = 2 * (o->n_dialogues ? o->n_dialogues : 1),
        .like = o->like ? &o->like->models.streaming : NULL,
        .offload = {.slots = asked->is_on ? asked->ring_slots
                                          : plan->ring_slots,
                    .ring_bytes = o->plan.ring_slots
                                      ? 0
                                      : plan->ring_slots * plan->chunk_bytes,
                    .host_limit = asked->host_bytes,
                    .is_unpinned = asked->is_unpinned,
                    .is_on_demand = asked->is_on_demand,
                    .is_synchronous = asked->is_synchronous},
    };
    const int rc = vibe_models_init(
        &e->models, e->backend, e->weights, &e->config, e->control_ids,
        o->n_dialogues ? o->n_dialogues : 1, is_on ? &streaming : NULL, err);

    if (rc != VIBE_OK || !is_on)
        return rc;
    e->models.streaming.s = &e->stream;
    e->stream.is_eager = vibe_offload_is_streaming(e->models.streaming.offload);
    return VIBE_OK;
}

/* Say what was chosen that nobody has asked for. */
static void tell_of_choice(const struct vibe_engine *e,
                           const struct vibe_engine_options *o)
{
    const struct vibe_precision *asked = &o->precision;
    const struct vibe_precision *chosen = &e->plan.precision;

    if (chosen->lm != asked->lm)
        notice(o,
               "%s: its language model is kept as %s%s, so that all of it "
               "fits; --dtype bfloat16 streams what does not",
               o->model, vibe_precision_name(chosen->lm),
               chosen->head == asked->head ? "" : ", and the diffusion head");
    if (asked->kv == VIBE_WEIGHTS_AUTO && !o->like &&
        e->backend->kv_dtype == VIBE_F8_E4M3)
        notice(o,
               "%s: its language model is int4, and keys and values are kept "
               "as float8_e4m3fn, which adds little to its error; --kv-dtype "
               "bfloat16 takes twice the memory",
               o->model);
}

/* Plan, and take all of it: another program that takes memory in between
 * changes the plan, not the outcome. */
static int plan_memory(struct vibe_engine *e,
                       const struct vibe_engine_options *o,
                       struct vibe_error *err)
{
    enum { ATTEMPTS = 3 };
    int rc = VIBE_E_NOMEM;

    for (int i = 0; i < ATTEMPTS && rc == VIBE_E_NOMEM; i++) {
        rc = vibe_planning_make(&e->plan, e, o, err);
        if (rc != VIBE_OK)
            return rc;
        rc = vibe_planning_reserve(e, &e->plan, err);
    }
    e->plan.n_fronts = vibe_fronts_plan(e->fronts, e->plan.fronts,
                                        VIBE_MAX_FRONTS);
    if (rc != VIBE_OK)
        return rc;
    tell_of_choice(e, o);
    return VIBE_OK;
}

/* What that takes is lent like a prompt's. */
static int encode_voices(struct vibe_engine *e,
                         const struct vibe_engine_options *o,
                         struct vibe_error *err)
{
    struct vibe_backend *be = e->backend;
    int rc;

    if (e->plan.plan.lends_prompt)
        be->ops->rest(be);
    be->is_reading = 1;
    rc = vibe_prepare_voices(e, o->requests, o->n_requests, err);
    be->is_reading = 0;
    if (e->plan.plan.lends_prompt)
        be->ops->rest(be);
    return rc;
}

/* Read the voices that are known before anything else wants memory: the plan
 * has no room for their encoder beside it. */
static int read_voices(struct vibe_engine *e,
                       const struct vibe_engine_options *o,
                       struct vibe_error *err)
{
    const int rc = vibe_voices_open(&e->voices, err);

    if (rc == VIBE_OK && e->plan.plan.encoder)
        vibe_voices_keep(e->voices);
    if (rc != VIBE_OK || !e->plan.has_voices_first)
        return rc;
    e->models = (struct vibe_models){
        .be = e->backend, .w = e->weights, .config = e->config};
    return encode_voices(e, o, err);
}

/* With memory for everything there is memory to read it ahead. */
static struct vibe_readahead *read_ahead(const struct vibe_engine *e,
                                         const struct vibe_engine_options *o)
{
    return o->plan.mode == VIBE_MEMORY_BEEFY && !o->like
               ? vibe_readahead_begin(e->weights, READERS)
               : NULL;
}

/* Put everything where the plan says. */
static int load(struct vibe_engine *e, const struct vibe_engine_options *o,
                struct vibe_error *err)
{
    struct vibe_readahead *ahead = read_ahead(e, o);
    int rc = read_voices(e, o, err);

    if (rc == VIBE_OK)
        rc = load_models(e, o, err);
    vibe_readahead_end(ahead);
    if (rc == VIBE_OK && e->models.is_scale_restored)
        notice(o,
               "%s: its speech scalars were rounded to float8; the released "
               "ones are used, %.10g and %.11g",
               o->model, (double)e->models.scale.scale,
               (double)e->models.scale.bias);
    if (rc == VIBE_OK)
        rc = vibe_generator_open(&e->generator, &e->models, &e->stream,
                                 e->control_ids, err);
    if (rc == VIBE_OK && e->plan.plan.lends_prompt)
        vibe_generator_lend(e->generator);
    if (rc == VIBE_OK && e->models.streaming.offload)
        vibe_kvcache_limit(e->generator->cache, e->plan.plan.kv,
                           vibe_streaming_make_room, &e->models.streaming);
    if (rc == VIBE_OK && e->fronts)
        rc = vibe_fronts_load(e->fronts, e, err);
    return rc;
}

int vibe_engine_open(struct vibe_engine **out,
                     const struct vibe_engine_options *options,
                     struct vibe_error *err)
{
    struct vibe_engine *e = NULL;
    double start_s = vibe_clock_s();
    int rc = open_files(&e, options, err);

    *out = NULL;
    if (rc == VIBE_OK)
        rc = open_backend(e, options, err);
    if (rc == VIBE_OK)
        rc = vibe_fronts_open(&e->fronts, e, options, err);
    if (rc == VIBE_OK)
        rc = plan_memory(e, options, err);
    if (rc == VIBE_OK)
        rc = vibe_stream_init(&e->stream, e->backend, err);
    vibe_trace_span(options->trace, VIBE_TRACK_HOST, "open", start_s,
                    vibe_clock_s());
    start_s = vibe_clock_s();
    if (rc == VIBE_OK)
        rc = load(e, options, err);
    if (rc == VIBE_OK)
        start_trace(e, options->trace, start_s);
    if (rc == VIBE_OK)
        *out = e;
    else
        vibe_engine_free(e);
    return rc;
}

int vibe_engine_plan(struct vibe_engine_plan *out,
                     const struct vibe_engine_options *options, int probes_cpu,
                     struct vibe_error *err)
{
    struct vibe_engine *e = NULL;
    int rc = open_files(&e, options, err);

    if (rc == VIBE_OK)
        rc = open_backend(e, options, err);
    if (rc == VIBE_OK)
        rc = vibe_fronts_open(&e->fronts, e, options, err);
    if (rc == VIBE_OK)
        rc = vibe_planning_make(out, e, options, err);
    if (rc == VIBE_OK)
        out->n_fronts = vibe_fronts_plan(e->fronts, out->fronts,
                                         VIBE_MAX_FRONTS);
    if (rc == VIBE_OK && out->rates.read <= 0 &&
        (probes_cpu || e->backend->is_cuda))
        vibe_planning_probe(&out->rates, e->backend,
                            options->streaming.is_unpinned);
    vibe_engine_free(e);
    return rc;
}

const struct vibe_engine_plan *vibe_engine_planned(
    const struct vibe_engine *engine)
{
    return &engine->plan;
}

int vibe_engine_measure(struct vibe_plan_model *out,
                        const struct vibe_engine_options *options,
                        enum vibe_weight_dtype lm, struct vibe_error *err)
{
    struct vibe_precision p = options->precision;
    struct vibe_engine *e = NULL;
    int rc = open_files(&e, options, err);

    if (lm != VIBE_WEIGHTS_AUTO)
        p.lm = lm;
    if (rc == VIBE_OK)
        rc = vibe_planning_measure(
            out, e, options, lm,
            vibe_kv_dtype(vibe_precision_kv(e->weights, &e->config.lm, &p, 1),
                          VIBE_BF16),
            err);
    vibe_engine_free(e);
    return rc;
}

void vibe_engine_free(struct vibe_engine *engine)
{
    if (!engine)
        return;
    vibe_voices_free(engine->voices);
    vibe_generator_free(engine->generator);
    vibe_fronts_free(engine->fronts);
    if (engine->backend)
        vibe_backend_enter(engine->backend);
    vibe_models_release(&engine->models);
    vibe_stream_release(&engine->stream);
    vibe_backend_free(engine->backend);
    vibe_weights_free(engine->weights);
    vibe_tokenizer_free(engine->tokenizer);
    free(engine->verified_tokens);
    free(engine);
}

static size_t count_parameters(const struct vibe_weights *w)
{
    size_t n = 0;

    for (size_t i = 0; i < vibe_weights_count(w); i++) {
        struct vibe_weight weight;

        vibe_weights_get(w, i, &weight);
        n += weight.n;
    }
    return n;
}

void vibe_engine_describe(const struct vibe_engine *engine,
                          struct vibe_engine_info *out)
{
    const struct vibe_config *config = &engine->config;

    *out = (struct vibe_engine_info){
        .n_tensors = vibe_weights_count(engine->weights),
        .weight_bytes = vibe_weights_bytes(engine->weights),
        .dtype = vibe_dtype_name(vibe_weights_dtype(engine->weights)),
        .n_parameters = count_parameters(engine->weights),
        .hidden_size = config->lm.hidden_size,
        .intermediate_size = config->lm.intermediate_size,
        .num_hidden_layers = config->lm.first_layer +
                             config->lm.num_hidden_layers,
        .num_attention_heads = config->lm.num_attention_heads,
        .num_key_value_heads = config->lm.num_key_value_heads,
        .vocab_size = config->lm.vocab_size,
        .max_position_embeddings = config->lm.max_position_embeddings,
        .head_layers = config->head.head_layers,
        .latent_size = config->head.latent_size,
        .semantic_size = config->semantic_encoder.vae_dim,
        .hop = config->hop,
        .default_steps = config->head.ddpm_num_inference_steps,
        .is_tied = !vibe_weights_has(engine->weights, "lm_head.weight"),
        .speech_scaling_factor = engine->models.scale.scale,
        .speech_bias_factor = engine->models.scale.bias,
    };
    memcpy(out->device, engine->backend->name, sizeof(out->device));
    vibe_models_bytes(&engine->models, &out->frame_bytes, &out->step_bytes);
}

void vibe_engine_usage(const struct vibe_engine *engine, struct vibe_usage *out)
{
    struct vibe_backend *be = engine->backend;
    struct vibe_device_reading reading;
    struct vibe_memory memory;

    be->ops->meter(be, &reading);
    be->ops->memory(be, &memory);
    *out = (struct vibe_usage){
        .vram_peak = be->is_cuda ? memory.taken_peak + memory.context : 0,
        .energy_j = reading.energy_j,
    };
}
