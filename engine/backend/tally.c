#include "engine/backend/tally.h"

#include <stdlib.h>
#include <string.h>

#include "engine/backend/heap.h"
#include "engine/backend/ops.h"
#include "engine/backend/tiles.h"
#include "engine/base/device.h"
#include "engine/base/size.h"
#include "engine/format/quant.h"
#include "offload/transfer.h"

enum { ROW_ALIGNMENT = 16 }; /* elements: whole 16-byte loads in every dtype */

struct tally {
    struct vibe_backend base; /* first: a backend is cast to this */
    struct vibe_ops ops;
    struct vibe_tally_options options;
    struct vibe_heap *heap;
    uintptr_t next; /* address of the next imaginary span */
    void *room;     /* for tiles that are expanded */
    size_t room_bytes;
};

static struct tally *tally_of(const struct vibe_backend *be)
{
    return (struct tally *)be;
}

static void *take_span(void *user, size_t bytes)
{
    struct tally *tally = user;
    const uintptr_t at = tally->next;

    tally->next += bytes;
    return (void *)at; /* never looked at */
}

static void give_span(void *user, void *span)
{
    (void)user, (void)span;
}

static void *tally_alloc(struct vibe_backend *be, size_t bytes)
{
    return vibe_heap_take(tally_of(be)->heap, bytes ? bytes : 1, be->purpose);
}

static void tally_free(struct vibe_backend *be, void *data)
{
    vibe_heap_give(tally_of(be)->heap, data);
}

static int reserve(struct vibe_backend *be, size_t bytes, size_t scratch,
                   struct vibe_error *err)
{
    (void)be, (void)bytes, (void)scratch, (void)err;
    return VIBE_OK;
}

static void rest(struct vibe_backend *be)
{
    (void)be;
}

static void count(const struct vibe_backend *be, struct vibe_memory *out)
{
    vibe_heap_count(tally_of(be)->heap, out);
}

/* What the language model would be kept in. */
static enum vibe_dtype kept_dtype(const struct tally *tally,
                                  const struct vibe_matrix_source *src)
{
    const enum vibe_dtype stored = vibe_matrix_gpu_dtype(src);

    if (tally->base.purpose != VIBE_FOR_LM || src->layout != VIBE_LAYOUT_LINEAR)
        return stored;
    return vibe_quant_dtype(tally->options.lm, stored, src->K);
}

static size_t rows_bytes(enum vibe_dtype dtype, size_t n, size_t K)
{
    if (vibe_tile_bytes(dtype))
        return vibe_tiles_bytes(dtype, n, K);
    return n * vibe_dtype_bytes(dtype, vibe_size_round(K, ROW_ALIGNMENT));
}

static size_t floats_bytes(size_t n)
{
    return vibe_size_round(n * sizeof(float), VIBE_HEAP_ALIGNMENT);
}

static size_t scale_bytes(enum vibe_dtype dtype,
                          const struct vibe_matrix_source *src)
{
    int is_scaled = dtype == VIBE_I8 ||
                    (dtype == VIBE_F8_E4M3 &&
                     vibe_matrix_gpu_dtype(src) != VIBE_F8_E4M3);

    for (int i = 0; i < src->n_parts; i++)
        is_scaled |= src->part[i].scale != NULL;
    return is_scaled ? floats_bytes(src->N) : 0;
}

static int measure(struct vibe_backend *be,
                   const struct vibe_matrix_source *src, size_t *rows,
                   size_t *small, struct vibe_error *err)
{
    const enum vibe_dtype dtype = kept_dtype(tally_of(be), src);

    (void)err;
    *rows = rows_bytes(dtype, src->N, src->K);
    *small = scale_bytes(dtype, src) + (src->bias ? floats_bytes(src->N) : 0) +
             (src->gamma ? floats_bytes(src->N) : 0) +
             vibe_tiles_list_bytes(dtype, src->N, src->K);
    return VIBE_OK;
}

static size_t piece_bytes(struct vibe_backend *be,
                          const struct vibe_matrix_source *src, size_t first,
                          size_t n)
{
    (void)first;
    return rows_bytes(kept_dtype(tally_of(be), src), n, src->K);
}

static void lay(struct vibe_backend *be, const struct vibe_matrix_source *src,
                size_t first, size_t n, void *out)
{
    (void)be, (void)src, (void)first, (void)n, (void)out;
}

static int fill(struct vibe_backend *be, const struct vibe_matrix_source *src,
                size_t first, size_t n, void *device, struct vibe_error *err)
{
    (void)be, (void)src, (void)first, (void)n, (void)device, (void)err;
    return VIBE_OK;
}

static int load_small(struct vibe_matrix *m, struct vibe_backend *be,
                      const struct vibe_matrix_source *src,
                      struct vibe_error *err)
{
    size_t rows = 0;
    size_t small = 0;

    measure(be, src, &rows, &small, err);
    *m = (struct vibe_matrix){
        .N = src->N,
        .K = src->K,
        .is_pair = src->is_pair,
        .owned = small ? tally_alloc(be, small) : NULL,
    };
    return VIBE_OK;
}

/* Room beside the largest matrix in tiles. */
static void take_room(struct vibe_backend *be, size_t bytes)
{
    const enum vibe_purpose purpose = be->purpose;
    struct tally *tally = tally_of(be);

    if (bytes <= tally->room_bytes)
        return;
    be->purpose = VIBE_FOR_SCRATCH;
    tally_free(be, tally->room);
    tally->room = tally_alloc(be, bytes);
    tally->room_bytes = bytes;
    be->purpose = purpose;
}

static int load(struct vibe_matrix *m, struct vibe_backend *be,
                const struct vibe_matrix_source *src, struct vibe_error *err)
{
    const enum vibe_purpose purpose = be->purpose;
    size_t rows = 0;
    size_t small = 0;

    measure(be, src, &rows, &small, err);
    load_small(m, be, src, err);
    if (vibe_tile_bytes(kept_dtype(tally_of(be), src)))
        take_room(be, vibe_tiles_room(src->N, src->K));
    /* the output head's four rows are no piece */
    if (purpose == VIBE_FOR_LM && src->N >= VIBE_MATRIX_UNIT)
        be->purpose = VIBE_FOR_LM_ROWS;
    tally_alloc(be, rows);
    be->purpose = purpose;
    m->bytes = rows;
    return VIBE_OK;
}

/* Rows stay counted: what was taken matters, not what is left. */
static void release(struct vibe_matrix *m, struct vibe_backend *be)
{
    tally_free(be, m->owned);
}

static int stream_init(struct vibe_stream *s, struct vibe_error *err)
{
    (void)s, (void)err;
    return VIBE_OK;
}

static void nothing(struct vibe_stream *s)
{
    (void)s;
}

static void forget(struct vibe_stream *s, void *device, const void *host,
                   size_t bytes)
{
    (void)s, (void)device, (void)host, (void)bytes;
}

static void meter(struct vibe_backend *be, struct vibe_device_reading *out)
{
    (void)be;
    *out = (struct vibe_device_reading){.power_w = -1.0, .energy_j = -1.0};
}

static void *pinned_alloc(struct vibe_backend *be, size_t bytes)
{
    (void)be;
    return calloc(1, bytes);
}

static void pinned_free(struct vibe_backend *be, void *host)
{
    (void)be;
    free(host);
}

static void enter(struct vibe_backend *be)
{
    (void)be;
}

static void tally_close(struct vibe_backend *be)
{
    vibe_heap_free(tally_of(be)->heap);
    free(be);
}

static const struct vibe_transfer transfer = {
    .device_alloc = tally_alloc,
    .device_free = tally_free,
    .pinned_alloc = pinned_alloc,
    .pinned_free = pinned_free,
};

int vibe_tally_open(struct vibe_backend **out,
                    const struct vibe_tally_options *options,
                    struct vibe_error *err)
{
    struct tally *tally = calloc(1, sizeof(*tally));
    const struct vibe_heap_source source = {take_span, give_span, tally};

    *out = NULL;
    if (!tally || vibe_heap_open(&tally->heap, &source, err)) {
        free(tally);
        return vibe_fail(err, VIBE_E_NOMEM, "no memory to count memory");
    }
    tally->options = *options;
    tally->next = VIBE_HEAP_SPAN; /* no span is at NULL */
    tally->ops = (struct vibe_ops){
        .reserve = reserve,
        .rest = rest,
        .memory = count,
        .alloc = tally_alloc,
        .free = tally_free,
        .matrix_load = load,
        .matrix_release = release,
        .matrix_measure = measure,
        .piece_bytes = piece_bytes,
        .matrix_lay = lay,
        .matrix_load_small = load_small,
        .matrix_fill = fill,
        .enter = enter,
        .close = tally_close,
        .stream_init = stream_init,
        .stream_release = nothing,
        .sync = nothing,
        .write = forget,
        .meter = meter,
    };
    tally->base = (struct vibe_backend){
        .ops = &tally->ops,
        .transfer = &transfer,
        .name = "counting",
        .kv_dtype = options->kv_dtype,
        .is_tally = 1,
    };
    *out = &tally->base;
    return VIBE_OK;
}
