#include "offload/offload.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/error.h"
#include "offload/host.h"
#include "offload/ring.h"
#include "offload/transfer.h"

/* Of free host memory, what chunks leave for everything else: page cache that
 * the checkpoint is read through, libraries that come later, buffers that
 * chunks pass through, and the program itself. */
enum { HOST_SHARE = 16, HOST_MARGIN = 640 << 20 };

/* Where a piece is: beside the table, because memory is no matter of policy. */
struct held {
    void *device;                   /* resident and filled */
    struct vibe_arena_chunk *chunk; /* streamed */
    size_t index;                   /* of the chunk, in the ring as loaded */
};

struct vibe_offload {
    struct vibe_backend *be;
    const struct vibe_transfer *move;
    struct vibe_offload_source source;
    struct vibe_offload_options options;
    struct vibe_residency table;
    struct held *held; /* [table.n_pieces] */
    uint64_t *copies;  /* [n_matrices] */
    size_t *ends;      /* [n_matrices] see vibe_offload_end */
    size_t at;         /* piece that was taken last */
    int is_from_ring;  /* it is a chunk */
    int has_lent;      /* the ring is loaded with chunks that are lent, too */
    struct vibe_arena *arena; /* another's, where it is shared */
    struct vibe_ring *ring;   /* NULL while nothing streams */
    size_t n_demoted;
};

const char *vibe_path_name(enum vibe_path path)
{
    switch (path) {
    case VIBE_PATH_NONE:
        return "resident";
    case VIBE_PATH_DIRECT:
        return "direct";
    case VIBE_PATH_BOUNCE:
        return "bounce";
    case VIBE_PATH_DISK:
        return "disk";
    case VIBE_PATH_PAGEABLE:
        return "pageable";
    }
    return "?";
}

static size_t host_limit(const struct vibe_offload_options *options)
{
    const size_t n = vibe_host_free();
    const size_t margin = n / HOST_SHARE + HOST_MARGIN;

    if (options->host_limit)
        return options->host_limit;
    return n > margin ? n - margin : 0;
}

enum vibe_path vibe_path_expect(size_t streamed,
                                const struct vibe_offload_options *options)
{
    if (!streamed)
        return VIBE_PATH_NONE;
    if (options->is_unpinned)
        return VIBE_PATH_PAGEABLE;
    return streamed > host_limit(options) ? VIBE_PATH_DISK : VIBE_PATH_DIRECT;
}

/* Put every chunk without one in the arena, in the order of their use. */
static int add_chunks(struct vibe_offload *o, struct vibe_error *err)
{
    for (size_t i = 0; i < o->table.n_pieces; i++) {
        int rc = VIBE_OK;

        if (!o->table.pieces[i].is_resident && !o->held[i].chunk)
            rc = vibe_arena_add(&o->held[i].chunk, o->arena,
                                &o->table.pieces[i], err);
        if (rc != VIBE_OK)
            return rc;
    }
    return VIBE_OK;
}

/* Where chunks turn out smaller than was planned for there are more slots. */
static void count_slots(struct vibe_offload *o)
{
    size_t slots = o->options.ring_bytes / o->table.slot_bytes;

    if (slots > VIBE_RING_SLOTS)
        slots = VIBE_RING_SLOTS;
    if (slots > o->options.slots)
        o->options.slots = slots;
}

static int open_ring(struct vibe_offload *o, struct vibe_error *err)
{
    const struct vibe_ring_options ring = {
        .slots = o->options.slots,
        .slot_bytes = o->table.slot_bytes,
        .buffers = o->options.threads + 1,
        .threads = o->options.threads,
        .is_unpinned = o->options.is_unpinned,
        .is_on_demand = o->options.is_on_demand,
        .is_synchronous = o->options.is_synchronous,
    };

    return vibe_ring_open(&o->ring, o->be, o->move, &ring, err);
}

/* Tell the ring what to stream, as the table has it. */
static int load_ring(struct vibe_offload *o, struct vibe_error *err)
{
    const size_t most = o->table.n_chunks + o->table.n_lent;
    struct vibe_arena_chunk **chunks = calloc(
        most, sizeof(struct vibe_arena_chunk *));
    size_t n = 0;
    int rc = VIBE_OK;

    if (!chunks)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for %zu chunks", most);
    if (!o->ring) {
        count_slots(o);
        rc = open_ring(o, err);
    }
    for (size_t i = 0; i < o->table.n_pieces; i++) {
        const struct vibe_piece *p = &o->table.pieces[i];

        if (p->is_resident || (p->is_lent && !o->has_lent))
            continue;
        o->held[i].index = n;
        chunks[n++] = o->held[i].chunk;
    }
    if (rc == VIBE_OK && n)
        rc = vibe_ring_load(o->ring, chunks, n, err);
    free(chunks);
    return rc;
}

static int is_streaming(const struct vibe_offload *o)
{
    return o->table.n_chunks + o->table.n_lent > 0;
}

/* What a start and a demotion share: chunks in the arena, and then the ring
 * before the arena pins all there is. */
static int stream_chunks(struct vibe_offload *o, struct vibe_error *err)
{
    int rc = add_chunks(o, err);

    if (rc == VIBE_OK && is_streaming(o))
        rc = load_ring(o, err);
    if (rc == VIBE_OK && o->table.n_chunks)
        vibe_arena_fill(o->arena);
    return rc;
}

static void find_ends(struct vibe_offload *o)
{
    for (size_t i = 0; i < o->table.n_pieces; i++) {
        const struct vibe_piece *p = &o->table.pieces[i];

        if (!p->is_lent)
            o->ends[p->matrix] = p->first + p->n;
    }
}

static int allocate(struct vibe_offload *o, struct vibe_error *err)
{
    const struct vibe_arena_options arena = {
        .slab_bytes = o->options.slab_bytes,
        .limit = host_limit(&o->options),
        .threads = o->options.threads,
        .is_unpinned = o->options.is_unpinned,
    };
    int rc = VIBE_OK;

    o->held = calloc(o->table.n_pieces, sizeof(*o->held));
    o->copies = calloc(o->table.input.n_matrices, sizeof(*o->copies));
    o->ends = calloc(o->table.input.n_matrices, sizeof(*o->ends));
    if (!o->held || !o->copies || !o->ends)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for %zu pieces",
                         o->table.n_pieces);
    find_ends(o);
    o->has_lent = o->table.n_lent > 0; /* a prompt comes first */
    if (o->options.like)
        o->arena = o->options.like->arena;
    else
        rc = vibe_arena_open(&o->arena, o->be, o->move, &o->source.out, &arena,
                             err);
    return rc == VIBE_OK ? stream_chunks(o, err) : rc;
}

int vibe_offload_open(struct vibe_offload **out, struct vibe_backend *be,
                      const struct vibe_transfer *move,
                      const struct vibe_offload_source *source,
                      struct vibe_residency *table,
                      const struct vibe_offload_options *options,
                      struct vibe_error *err)
{
    struct vibe_offload *o = calloc(1, sizeof(*o));
    int rc;

    *out = NULL;
    if (!o)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory to stream weights");
    o->be = be;
    o->move = move;
    o->source = *source;
    o->options = *options;
    if (!o->options.slots)
        o->options.slots = VIBE_OFFLOAD_SLOTS;
    if (!o->options.threads)
        o->options.threads = VIBE_OFFLOAD_THREADS;
    o->table = *table;
    rc = allocate(o, err);
    if (rc != VIBE_OK) {
        o->table.n_pieces = 0; /* it stays the caller's */
        o->table.pieces = NULL;
        o->table.input.matrix = NULL;
        vibe_offload_free(o);
        return rc;
    }
    *table = (struct vibe_residency){0};
    *out = o;
    return VIBE_OK;
}

void vibe_offload_free(struct vibe_offload *o)
{
    if (!o)
        return;
    vibe_ring_free(o->ring);
    if (!o->options.like)
        vibe_arena_free(o->arena);
    for (size_t i = 0; i < o->table.n_pieces; i++)
        o->move->device_free(o->be, o->held[i].device);
    vibe_residency_release(&o->table);
    free(o->held);
    free(o->copies);
    free(o->ends);
    free(o);
}

int vibe_offload_fill(struct vibe_offload *o, size_t matrix,
                      struct vibe_error *err)
{
    for (size_t i = 0; i < o->table.n_pieces; i++) {
        const struct vibe_piece *p = &o->table.pieces[i];
        struct held *held = &o->held[i];
        int rc;

        if (p->matrix != matrix || !p->is_resident || held->device)
            continue;
        held->device = o->move->device_alloc(o->be, p->bytes);
        if (!held->device)
            return vibe_fail(err, VIBE_E_NOMEM,
                             "no device memory for %zu rows of the language "
                             "model, %zu bytes",
                             p->n, p->bytes);
        rc = o->source.fill(o->source.out.user, matrix, p->first, p->n,
                            held->device, err);
        if (rc != VIBE_OK)
            return rc;
    }
    return VIBE_OK;
}

/* The piece that begins there: mostly the one after the last. */
static size_t find_piece(const struct vibe_offload *o, size_t matrix,
                         size_t first)
{
    size_t i = o->at;

    for (size_t n = 0; n < o->table.n_pieces; n++) {
        i = i + 1 < o->table.n_pieces ? i + 1 : 0;
        if (o->table.pieces[i].matrix == matrix &&
            o->table.pieces[i].first == first)
            return i;
    }
    assert(0 && "rows that no piece begins with");
    return i;
}

/* Stream from now on what is lent as well, or what is not. */
static int turn(struct vibe_offload *o, int has_lent, struct vibe_error *err)
{
    if (o->has_lent == has_lent)
        return VIBE_OK;
    o->has_lent = has_lent;
    return load_ring(o, err);
}

int vibe_offload_pass_by(struct vibe_offload *o, struct vibe_error *err)
{
    return turn(o, 0, err);
}

int vibe_offload_is_whole(const struct vibe_offload *o, size_t matrix)
{
    size_t n = 0;

    if (is_streaming(o))
        return 0;
    for (size_t i = 0; i < o->table.n_pieces; i++)
        n += o->table.pieces[i].matrix == matrix;
    return n == 1;
}

size_t vibe_offload_end(const struct vibe_offload *o, size_t matrix)
{
    return o->ends[matrix];
}

int vibe_offload_take(struct vibe_offload *o, struct vibe_taken *out,
                      size_t matrix, size_t first, struct vibe_error *err)
{
    const size_t i = find_piece(o, matrix, first);
    const struct vibe_piece *p = &o->table.pieces[i];
    int rc = VIBE_OK;

    o->at = i;
    o->is_from_ring = !p->is_resident;
    *out = (struct vibe_taken){
        .device = o->held[i].device, .n = p->n, .is_streamed = !p->is_resident};
    if (p->is_resident)
        return VIBE_OK;
    if (p->is_lent)
        rc = turn(o, 1, err);
    if (rc != VIBE_OK)
        return rc;
    o->copies[matrix]++;
    return vibe_ring_take(o->ring, &out->device, o->held[i].index, err);
}

int vibe_offload_done(struct vibe_offload *o, struct vibe_error *err)
{
    return o->is_from_ring ? vibe_ring_done(o->ring, err) : VIBE_OK;
}

/* Turn resident piece i into chunks that are not streamed yet. */
static int demote(struct vibe_offload *o, size_t i, struct vibe_error *err)
{
    const size_t before = o->table.n_pieces;
    const size_t most = o->table.pieces[i].n / VIBE_RESIDENCY_UNIT + 1;
    struct held *held = calloc(before + most, sizeof(*held));
    size_t n;
    int rc;

    if (!held)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for %zu pieces",
                         before + most);
    rc = vibe_residency_demote(&o->table, i, err);
    if (rc != VIBE_OK) {
        free(held);
        return rc;
    }
    n = o->table.n_pieces - before + 1;
    o->move->device_free(o->be, o->held[i].device);
    memcpy(held, o->held, i * sizeof(*held));
    memcpy(held + i + n, o->held + i + 1, (before - i - 1) * sizeof(*held));
    free(o->held);
    o->held = held;
    o->n_demoted++;
    return VIBE_OK;
}

int vibe_offload_demote(struct vibe_offload *o, size_t bytes, size_t *freed,
                        struct vibe_error *err)
{
    size_t needed = bytes;
    int rc = VIBE_OK;

    *freed = 0;
    while (rc == VIBE_OK && *freed < needed) {
        const size_t i = vibe_residency_last(&o->table);
        const size_t before = o->table.resident_bytes;

        if (i == o->table.n_pieces)
            break;
        rc = demote(o, i, err);
        if (rc != VIBE_OK)
            break;
        /* the first chunk brings a ring, which has to come from somewhere */
        if (!o->ring)
            needed = bytes + o->options.slots * o->table.slot_bytes;
        *freed += before - o->table.resident_bytes;
    }
    if (rc == VIBE_OK && *freed) {
        o->at = 0;
        vibe_arena_settle(o->arena);
        rc = stream_chunks(o, err);
    }
    *freed = *freed > needed - bytes ? *freed - (needed - bytes) : 0;
    return rc;
}

int vibe_offload_is_streaming(const struct vibe_offload *o)
{
    return is_streaming(o);
}

void vibe_offload_settle(struct vibe_offload *o)
{
    vibe_arena_settle(o->arena);
}

static enum vibe_path path_of(const struct vibe_offload *o,
                              const size_t place[VIBE_N_PLACES])
{
    if (!o->ring)
        return VIBE_PATH_NONE;
    if (!vibe_ring_is_pinned(o->ring) && !place[VIBE_PLACE_PINNED])
        return VIBE_PATH_PAGEABLE;
    if (place[VIBE_PLACE_FILE])
        return VIBE_PATH_DISK;
    return place[VIBE_PLACE_PAGEABLE] ? VIBE_PATH_BOUNCE : VIBE_PATH_DIRECT;
}

void vibe_offload_count(struct vibe_offload *o, struct vibe_offload_stats *out)
{
    struct vibe_ring_stats ring = {0};

    if (o->ring)
        vibe_ring_count(o->ring, &ring);
    *out = (struct vibe_offload_stats){
        .resident_bytes = o->table.resident_bytes,
        .streamed_bytes = o->table.streamed_bytes,
        .lent_bytes = o->table.lent_bytes,
        .n_chunks = o->table.n_chunks,
        .slots = o->ring ? o->options.slots : 0,
        .slot_bytes = o->table.slot_bytes,
        .transfers = ring.copies,
        .bytes = ring.bytes,
        .waited_s = ring.waited_s,
        .fill_rate = ring.fill_rate,
        .n_demoted = o->n_demoted,
    };
    out->is_settled = vibe_arena_count(o->arena, out->place_bytes);
    out->path = path_of(o, out->place_bytes);
}

uint64_t vibe_offload_copies(const struct vibe_offload *o, size_t matrix)
{
    return o->copies[matrix];
}

const struct vibe_residency *vibe_offload_table(const struct vibe_offload *o)
{
    return &o->table;
}
