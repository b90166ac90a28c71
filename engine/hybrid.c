#include "engine/hybrid.h"

#include <assert.h>
#include <stdlib.h>

#include "engine/backend/cpu/cpu.h"
#include "offload/transfer.h"

enum {
    /* of a product that is measured: as long as one of a frame */
    PIECE_BYTES = 16 << 20,
    /* of all that are: no cache of a host holds them */
    SAMPLE_BYTES = 512 << 20,
};

/* A product of the host's. */
struct lent {
    struct vibe_hybrid *h;
    struct vibe_matrix w; /* N 0: none of its rows is lent */
    struct vibe_tensor x, y;
    enum vibe_epilogue epilogue;
};

/* Rows that are measured with. */
struct sample {
    struct vibe_matrix *pieces; /* [n], owned */
    size_t n, next;
};

struct vibe_hybrid {
    struct vibe_backend *be, *cpu;
    struct vibe_stream s; /* of the CPU */
    const struct vibe_matrix_source *sources;
    size_t n, rows;
    struct lent *lent; /* [n] */
    float *x, *y;      /* [rows][largest K], [rows][largest N]; pinned */
    struct vibe_event *asked, *done;
    struct sample sample;
};

/* Numbers for x and y of any product, in memory that the device sees too. */
static int allocate(struct vibe_hybrid *h, struct vibe_error *err)
{
    const struct vibe_transfer *move = h->be->transfer;
    size_t K = 0;
    size_t N = 0;
    int rc;

    assert(h->n > 0);
    for (size_t i = 0; i < h->n; i++) {
        K = h->sources[i].K > K ? h->sources[i].K : K;
        N = h->sources[i].N > N ? h->sources[i].N : N;
    }
    h->lent = calloc(h->n, sizeof(*h->lent));
    h->x = move->pinned_alloc(h->be, h->rows * K * sizeof(float));
    h->y = move->pinned_alloc(h->be, h->rows * N * sizeof(float));
    if (!h->lent || !h->x || !h->y)
        return vibe_fail(err, VIBE_E_NOMEM,
                         "no memory for rows that the CPU multiplies");
    for (size_t i = 0; i < h->rows * K; i++)
        h->x[i] = 0.0f;
    rc = move->event_create(&h->asked, h->be, err);
    return rc == VIBE_OK ? move->event_create(&h->done, h->be, err) : rc;
}

int vibe_hybrid_open(struct vibe_hybrid **out, struct vibe_backend *be,
                     const struct vibe_matrix_source *sources, size_t n,
                     int threads, size_t rows, struct vibe_error *err)
{
    const int all = vibe_cpu_threads();
    const struct vibe_backend_options options = {
        .threads = threads   ? threads
                   : all > 1 ? all - 1
                             : 1,
        .is_exact = be->is_exact,
    };
    struct vibe_hybrid *h = calloc(1, sizeof(*h));
    int rc;

    assert(rows > 0);
    *out = NULL;
    if (!h)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for the CPU's rows");
    h->be = be;
    h->sources = sources;
    h->n = n;
    h->rows = rows;
    rc = vibe_backend_open(&h->cpu, &options, err);
    if (rc == VIBE_OK)
        rc = vibe_stream_init(&h->s, h->cpu, err);
    if (rc == VIBE_OK)
        rc = allocate(h, err);
    if (rc != VIBE_OK) {
        vibe_hybrid_free(h);
        return rc;
    }
    *out = h;
    return VIBE_OK;
}

static void forget_sample(struct vibe_hybrid *h)
{
    for (size_t i = 0; i < h->sample.n; i++)
        vibe_matrix_release(&h->sample.pieces[i], h->cpu);
    free(h->sample.pieces);
    h->sample = (struct sample){0};
}

void vibe_hybrid_free(struct vibe_hybrid *h)
{
    const struct vibe_transfer *move;

    if (!h)
        return;
    move = h->be->transfer;
    if (h->done)
        move->event_wait(h->done, VIBE_QUEUE_HOST, NULL);
    for (size_t i = 0; h->lent && i < h->n; i++)
        vibe_matrix_release(&h->lent[i].w, h->cpu);
    forget_sample(h);
    free(h->lent);
    move->event_destroy(h->asked);
    move->event_destroy(h->done);
    move->pinned_free(h->be, h->x);
    move->pinned_free(h->be, h->y);
    vibe_stream_release(&h->s);
    vibe_backend_free(h->cpu);
    free(h);
}

/* [B][1][C] in memory of the host's. */
static struct vibe_tensor rows_of(float *data, size_t B, size_t C)
{
    return (struct vibe_tensor){
        .data = data,
        .dtype = VIBE_F32,
        .B = B,
        .T = 1,
        .C = C,
        .stride_b = C,
        .stride_t = C,
    };
}

static size_t channels(const struct vibe_matrix *w)
{
    return w->is_pair ? w->N / 2 : w->N;
}

/* Multiply all rows that a step may have, whatever they hold. */
static void try_out(struct vibe_hybrid *h, const struct vibe_matrix *w)
{
    const struct vibe_tensor x = rows_of(h->x, h->rows, w->K);
    const struct vibe_tensor y = rows_of(h->y, h->rows, channels(w));

    vibe_linear(&h->s, &y, &x, w, w->is_pair ? VIBE_SWIGLU : VIBE_STORE, NULL);
}

static int load_rows(struct vibe_hybrid *h, struct vibe_matrix *w,
                     const struct vibe_matrix_source *src, size_t first,
                     size_t n, struct vibe_error *err)
{
    const struct vibe_matrix_source rows = vibe_matrix_source_rows(src, first,
                                                                   n);

    return vibe_matrix_load(w, h->cpu, &rows, err);
}

/* Cut the matrices, from the last on, until there is enough to measure. */
static int take_sample(struct vibe_hybrid *h, struct vibe_error *err)
{
    struct sample *sample = &h->sample;
    size_t bytes = 0;

    for (size_t i = h->n; i-- > 0 && bytes < SAMPLE_BYTES;) {
        const struct vibe_matrix_source *src = &h->sources[i];
        const size_t row = vibe_matrix_piece_bytes(h->cpu, src, 0, src->N) /
                               src->N +
                           1;
        const size_t rows = PIECE_BYTES / row / VIBE_MATRIX_UNIT *
                                VIBE_MATRIX_UNIT +
                            VIBE_MATRIX_UNIT;

        for (size_t first = 0; first < src->N; first += rows) {
            const size_t left = src->N - first;
            struct vibe_matrix *pieces = realloc(
                sample->pieces, (sample->n + 1) * sizeof(*pieces));
            int rc;

            if (!pieces)
                return vibe_fail(err, VIBE_E_NOMEM, "no memory for a sample");
            sample->pieces = pieces;
            rc = load_rows(h, &pieces[sample->n], src, first,
                           left < rows ? left : rows, err);
            if (rc != VIBE_OK)
                return rc;
            bytes += pieces[sample->n++].bytes;
        }
    }
    return VIBE_OK;
}

static size_t work(void *user)
{
    struct vibe_hybrid *h = user;
    const struct vibe_matrix *w = &h->sample.pieces[h->sample.next];

    h->sample.next = (h->sample.next + 1) % h->sample.n;
    try_out(h, w);
    return w->bytes;
}

int vibe_hybrid_measure(struct vibe_hybrid *h, struct vibe_share_rates *out,
                        struct vibe_error *err)
{
    const struct vibe_share_work beside = {.work = work, .user = h};
    int rc = take_sample(h, err);

    for (size_t i = 0; i < h->sample.n && rc == VIBE_OK; i++)
        work(h); /* brings the pages in */
    if (rc == VIBE_OK)
        rc = vibe_share_measure(out, h->be, h->be->transfer, &beside, err);
    forget_sample(h);
    return rc == VIBE_OK ? vibe_stream_check(&h->s, err) : rc;
}

int vibe_hybrid_take(struct vibe_hybrid *h, size_t matrix,
                     const struct vibe_matrix_source *src, size_t first,
                     struct vibe_error *err)
{
    struct lent *lent = &h->lent[matrix];
    const int rc = load_rows(h, &lent->w, src, first, src->N - first, err);

    if (rc != VIBE_OK)
        return rc;
    lent->h = h;
    try_out(h, &lent->w);
    return vibe_stream_check(&h->s, err);
}

static void multiply(void *user)
{
    const struct lent *lent = user;

    vibe_linear(&lent->h->s, &lent->y, &lent->x, &lent->w, lent->epilogue,
                NULL);
}

void vibe_hybrid_begin(struct vibe_hybrid *h, struct vibe_stream *s,
                       size_t matrix, const struct vibe_tensor *y,
                       const struct vibe_tensor *x, enum vibe_epilogue epilogue)
{
    const struct vibe_transfer *move = h->be->transfer;
    struct lent *lent = &h->lent[matrix];
    struct vibe_error *err = &s->err;

    assert(lent->w.N > 0 && x->T == 1 && x->B <= h->rows);
    /* what is enqueued reads it: a step ends before the next one begins */
    lent->x = rows_of(h->x, x->B, x->C);
    lent->y = rows_of(h->y, y->B, y->C);
    lent->epilogue = epilogue;
    vibe_copy(s, &lent->x, x);
    if (epilogue == VIBE_ADD)
        vibe_copy(s, &lent->y, y);
    if (err->code == VIBE_OK)
        move->event_record(h->asked, VIBE_QUEUE_COMPUTE, err);
    if (err->code == VIBE_OK)
        move->event_wait(h->asked, VIBE_QUEUE_ASIDE, err);
    if (err->code == VIBE_OK)
        move->call(h->be, multiply, lent, err);
    if (err->code == VIBE_OK)
        move->event_record(h->done, VIBE_QUEUE_ASIDE, err);
}

void vibe_hybrid_finish(struct vibe_hybrid *h, struct vibe_stream *s,
                        size_t matrix, const struct vibe_tensor *y)
{
    if (s->err.code == VIBE_OK)
        h->be->transfer->event_wait(h->done, VIBE_QUEUE_COMPUTE, &s->err);
    vibe_copy(s, y, &h->lent[matrix].y);
}
