#include "engine/streaming.h"

#include <stdlib.h>
#include <string.h>

#include "engine/backend/ops.h"
#include "engine/base/clock.h"
#include "engine/base/error.h"
#include "engine/hybrid.h"
#include "engine/model/qwen2.h"
#include "offload/transfer.h"

enum {
    ALIGNMENT = 256, /* of transfer.h's allocations */
    CLEAR_INTERVAL = 50,
};

static const size_t chunk_bytes = (size_t)32 << 20;

static struct vibe_streaming *of_supply(struct vibe_supply *supply)
{
    char *at = (char *)supply - offsetof(struct vibe_streaming, supply);

    return (struct vibe_streaming *)(void *)at;
}

/* A chunk of a layer was asked for. */
static void count_layer(struct vibe_streaming *st, size_t layer)
{
    struct vibe_streaming_stats *stats = &st->stats;
    double start_s;

    if (stats->layer_transfers && layer == st->layer)
        return;
    st->layer = layer;
    stats->layer_transfers++;
    if (!st->clear_interval || stats->layer_transfers % st->clear_interval)
        return;
    start_s = vibe_clock_s();
    st->be->ops->trim(st->be);
    stats->clear_s += vibe_clock_s() - start_s;
    stats->clears++;
}

static int take(struct vibe_supply *supply, size_t number, size_t first,
                const void **device, size_t *n, struct vibe_error *err)
{
    struct vibe_streaming *st = of_supply(supply);
    const size_t layer = number / VIBE_LM_MATRICES;
    struct vibe_taken taken;
    int rc;

    if (st->waited_s && first == 0)
        st->be->transfer->waited(st->be, st->waited_s, st->n / VIBE_LM_MATRICES,
                                 layer);
    rc = vibe_offload_take(st->offload, &taken, number, first, err);
    if (taken.is_streamed)
        count_layer(st, layer);
    *device = taken.device;
    *n = taken.n;
    return rc;
}

static int done(struct vibe_supply *supply, struct vibe_error *err)
{
    return vibe_offload_done(of_supply(supply)->offload, err);
}

static int is_whole(struct vibe_supply *supply, size_t number)
{
    return vibe_offload_is_whole(of_supply(supply)->offload, number);
}

static size_t lent_from(struct vibe_supply *supply, size_t number)
{
    return vibe_offload_end(of_supply(supply)->offload, number);
}

static void begin(struct vibe_supply *supply, struct vibe_stream *s,
                  size_t number, const struct vibe_tensor *y,
                  const struct vibe_tensor *x, enum vibe_epilogue epilogue)
{
    struct vibe_streaming *st = of_supply(supply);

    if (s->err.code == VIBE_OK)
        vibe_offload_pass_by(st->offload, &s->err);
    vibe_hybrid_begin(st->hybrid, s, number, y, x, epilogue);
}

static void finish(struct vibe_supply *supply, struct vibe_stream *s,
                   size_t number, const struct vibe_tensor *y)
{
    vibe_hybrid_finish(of_supply(supply)->hybrid, s, number, y);
}

/* Remember a matrix; its rows stay where the checkpoint is mapped. */
static int offer(void *user, size_t number,
                 const struct vibe_matrix_source *src, struct vibe_error *err)
{
    struct vibe_streaming *st = user;
    struct vibe_matrix_source *sources = realloc(
        st->sources, (number + 1) * sizeof(*sources));

    if (!sources)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for %zu matrices",
                         number + 1);
    st->sources = sources;
    sources[number] = *src;
    st->n = number + 1;
    return vibe_matrix_measure(st->be, src, NULL, NULL, err);
}

/* Give the CPU its rows of a matrix. */
static int lend(struct vibe_streaming *st, size_t number,
                const struct vibe_matrix_source *src, struct vibe_error *err)
{
    const size_t first = vibe_offload_end(st->offload, number);

    if (first == src->N)
        return VIBE_OK;
    return vibe_hybrid_take(st->hybrid, number, src, first, err);
}

static int load(void *user, struct vibe_matrix *m, size_t number,
                const struct vibe_matrix_source *src, struct vibe_error *err)
{
    struct vibe_streaming *st = user;
    enum vibe_purpose purpose;
    int rc = vibe_matrix_load_small(m, st->be, src, err);

    if (rc != VIBE_OK)
        return rc;
    m->supply = &st->supply;
    m->number = number;
    m->bytes = vibe_matrix_piece_bytes(st->be, src, 0, src->N);
    purpose = st->be->purpose;
    st->be->purpose = VIBE_FOR_LM_ROWS;
    rc = vibe_offload_fill(st->offload, number, err);
    st->be->purpose = purpose;
    if (rc == VIBE_OK && st->hybrid)
        rc = lend(st, number, src, err);
    if (rc != VIBE_OK)
        vibe_matrix_release(m, st->be);
    return rc;
}

static size_t piece_bytes(const void *user, size_t matrix, size_t first,
                          size_t n)
{
    const struct vibe_streaming *st = user;

    return vibe_matrix_piece_bytes(st->be, &st->sources[matrix], first, n);
}

static void lay(void *user, size_t matrix, size_t first, size_t n, void *out)
{
    const struct vibe_streaming *st = user;

    vibe_matrix_lay(st->be, &st->sources[matrix], first, n, out);
}

static int fill(void *user, size_t matrix, size_t first, size_t n, void *device,
                struct vibe_error *err)
{
    const struct vibe_streaming *st = user;

    return vibe_matrix_fill(st->be, &st->sources[matrix], first, n, device,
                            err);
}

/* Attention is kept: small matrices between which the large ones stream. */
static int make_table(const struct vibe_streaming *st,
                      struct vibe_residency *table,
                      const struct vibe_streaming_options *options, double lent,
                      struct vibe_error *err)
{
    struct vibe_residency_matrix *matrix = calloc(st->n, sizeof(*matrix));
    const struct vibe_residency_input in = {
        .matrix = matrix,
        .n_matrices = st->n,
        .piece_bytes = piece_bytes,
        .user = st,
        .chunk_bytes = options->chunk_bytes ? options->chunk_bytes
                                            : chunk_bytes,
        .granule = ALIGNMENT,
        .budget = options->budget,
        .lent = lent,
    };
    int rc;

    if (!matrix)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for %zu matrices",
                         st->n);
    for (size_t i = 0; i < st->n; i++)
        matrix[i] = (struct vibe_residency_matrix){
            .N = st->sources[i].N,
            .is_kept = i % VIBE_LM_MATRICES < VIBE_LM_GATE_UP,
        };
    rc = vibe_residency_init(table, &in, err);
    free(matrix);
    return rc;
}

/* Choose what of a table is lent to the CPU. */
static int choose_lent(struct vibe_streaming *st, double *lent,
                       const struct vibe_residency *table,
                       const struct vibe_streaming_options *options,
                       struct vibe_error *err)
{
    const double all = (double)(table->resident_bytes + table->streamed_bytes);
    const double layer = all * VIBE_LM_MATRICES / (double)st->n;
    struct vibe_share_rates *rates = &st->stats.rates;
    double asked;
    int rc;

    *lent = 0;
    if (options->cpu_layers == 0 || !table->n_chunks)
        return VIBE_OK;
    rc = vibe_hybrid_open(&st->hybrid, st->be, st->sources, st->n,
                          options->cpu_threads, options->rows, err);
    if (rc != VIBE_OK)
        return rc;
    asked = options->cpu_layers * layer / (double)table->streamed_bytes;
    asked = asked < 1 ? asked : 1;
    if (asked > 0 && !st->be->is_cuda) { /* nothing is copied that far */
        *lent = asked;
        return VIBE_OK;
    }
    rc = vibe_hybrid_measure(st->hybrid, rates, err);
    if (rc != VIBE_OK)
        return rc;
    *lent = asked > 0 ? vibe_share_allow(rates, asked)
                      : vibe_share_choose(rates);
    if (*lent < asked)
        st->stats.refused = asked;
    return VIBE_OK;
}

/* The table, and the CPU where something is lent to it. */
static int share(struct vibe_streaming *st, struct vibe_residency *table,
                 const struct vibe_streaming_options *options,
                 struct vibe_error *err)
{
    double lent;
    int rc = make_table(st, table, options, 0, err);

    if (rc == VIBE_OK)
        rc = choose_lent(st, &lent, table, options, err);
    if (rc != VIBE_OK || lent <= 0) {
        vibe_hybrid_free(st->hybrid);
        st->hybrid = NULL;
        return rc;
    }
    vibe_residency_release(table);
    st->supply.lent_from = lent_from;
    st->supply.begin = begin;
    st->supply.finish = finish;
    return make_table(st, table, options, lent, err);
}

/* Have waits timed from the first one on. */
static int meter(struct vibe_streaming *st, struct vibe_error *err)
{
    const size_t n_layers = st->n / VIBE_LM_MATRICES;

    st->waited_s = calloc(n_layers, sizeof(*st->waited_s));
    if (!st->waited_s)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for times of %zu layers",
                         n_layers);
    st->be->transfer->waited(st->be, st->waited_s, n_layers, 0);
    return VIBE_OK;
}

int vibe_streaming_init(struct vibe_streaming *st, struct vibe_backend *be,
                        const struct vibe_weights *w,
                        const struct vibe_lm_config *config,
                        const struct vibe_streaming_options *options,
                        struct vibe_error *err)
{
    const struct vibe_offload_source source = {
        .out = {.lay = lay, .user = st},
        .fill = fill,
    };
    const enum vibe_purpose purpose = be->purpose;
    struct vibe_offload_options offload = options->offload;
    struct vibe_residency table = {0};
    int rc;

    st->be = be;
    if (options->like && strcmp(options->like->be->name, be->name) == 0)
        offload.like = options->like->offload;
    st->clear_interval = options->clear_interval < 0 ? 0
                         : options->clear_interval
                             ? (uint64_t)options->clear_interval
                             : CLEAR_INTERVAL;
    st->supply = (struct vibe_supply){
        .take = take, .done = done, .is_whole = is_whole};
    st->store = (struct vibe_params_store){
        .offer = offer, .load = load, .user = st};
    rc = vibe_qwen2_offer(w, config, &st->store, err);
    if (rc == VIBE_OK && options->is_metered)
        rc = meter(st, err);
    be->purpose = VIBE_FOR_RING;
    if (rc == VIBE_OK)
        rc = share(st, &table, options, err);
    if (rc == VIBE_OK)
        rc = vibe_offload_open(&st->offload, be, be->transfer, &source, &table,
                               &offload, err);
    be->purpose = purpose;
    vibe_residency_release(&table);
    return rc;
}

int vibe_streaming_make_room(void *user, size_t bytes, size_t *freed,
                             struct vibe_error *err)
{
    struct vibe_streaming *st = user;
    const enum vibe_purpose purpose = st->be->purpose;
    int rc;

    st->be->purpose = VIBE_FOR_RING;
    rc = vibe_offload_demote(st->offload, bytes, freed, err);
    st->be->purpose = purpose;
    if (st->s)
        st->s->is_eager = vibe_offload_is_streaming(st->offload);
    return rc;
}

void vibe_streaming_release(struct vibe_streaming *st)
{
    vibe_hybrid_free(st->hybrid);
    vibe_offload_free(st->offload);
    free(st->sources);
    free(st->waited_s);
    *st = (struct vibe_streaming){0};
}
