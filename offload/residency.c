#include "offload/residency.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/base/size.h"

/* Blocks that a resident piece has at most where others stream: few products
 * for many rows, and yet little is freed at once. */
enum { RESIDENT_BLOCKS = 4 };

static size_t bytes_of(const struct vibe_residency_input *in, size_t matrix,
                       size_t first, size_t n)
{
    return in->piece_bytes(in->user, matrix, first, n);
}

/* Rows of the blocks that a matrix is cut into. */
static size_t block_rows(const struct vibe_residency_input *in, size_t matrix)
{
    const size_t N = in->matrix[matrix].N;
    size_t n_blocks = bytes_of(in, matrix, 0, N) / in->chunk_bytes + 1;
    size_t rows;

    for (;; n_blocks++) {
        rows = vibe_size_round((N + n_blocks - 1) / n_blocks,
                               VIBE_RESIDENCY_UNIT);
        if (rows >= N)
            return N;
        if (rows == VIBE_RESIDENCY_UNIT ||
            bytes_of(in, matrix, 0, rows) <= in->chunk_bytes)
            return rows;
    }
}

static size_t count_blocks(const struct vibe_residency_input *in, size_t matrix)
{
    const size_t rows = block_rows(in, matrix);

    return (in->matrix[matrix].N + rows - 1) / rows;
}

/* Where the table stands while it is made or measured. */
struct cut {
    const struct vibe_residency_input *in;
    struct vibe_piece *pieces; /* NULL: only count */
    size_t n_pieces, n_chunks, n_lent;
    size_t resident_bytes, streamed_bytes, lent_bytes;
};

enum kind { RESIDENT, STREAMED, LENT };

static void add_piece(struct cut *cut, size_t matrix, size_t first, size_t n,
                      enum kind kind)
{
    const size_t bytes = bytes_of(cut->in, matrix, first, n);

    if (cut->pieces)
        cut->pieces[cut->n_pieces] = (struct vibe_piece){
            .matrix = matrix,
            .first = first,
            .n = n,
            .bytes = bytes,
            .is_resident = kind == RESIDENT,
            .is_lent = kind == LENT,
        };
    cut->n_pieces++;
    switch (kind) {
    case RESIDENT:
        cut->resident_bytes += vibe_size_round(bytes, cut->in->granule);
        return;
    case STREAMED:
        cut->n_chunks++;
        cut->streamed_bytes += bytes;
        return;
    case LENT:
        cut->n_lent++;
        cut->lent_bytes += bytes;
        return;
    }
}

/* Rows first .. end - 1 in pieces of at most step rows. */
static void add_pieces(struct cut *cut, size_t matrix, size_t first, size_t end,
                       size_t step, enum kind kind)
{
    for (; first < end; first += step)
        add_piece(cut, matrix, first, end - first < step ? end - first : step,
                  kind);
}

/* Rows first .. N - 1, which are not resident: in blocks of at most rows, as
 * large as each other where some are lent. */
static void add_streamed(struct cut *cut, size_t matrix, size_t first,
                         size_t rows)
{
    const size_t N = cut->in->matrix[matrix].N;
    const size_t kept = vibe_size_round(
        (size_t)((1 - cut->in->lent) * (double)(N - first)),
        VIBE_RESIDENCY_UNIT);
    const size_t end = kept < N - first ? first + kept : N;
    const size_t n_blocks = (end - first + rows - 1) / rows;

    if (end < N && n_blocks)
        rows = vibe_size_round((end - first + n_blocks - 1) / n_blocks,
                               VIBE_RESIDENCY_UNIT);
    add_pieces(cut, matrix, first, end, rows, STREAMED);
    add_pieces(cut, matrix, end, N, rows, LENT);
}

/* How many blocks stream, among the kept matrices and the others. */
struct share {
    size_t n_blocks[2], n_streamed[2];
};

/*
 * Cut every matrix.  Of two kinds of matrix, kept and not, the streamed blocks
 * are spread as Bresenham draws a line: after any number of blocks as many
 * have been streamed as their share asks for, rounded down.
 */
static void cut_all(struct cut *cut, const struct share *share)
{
    const int is_whole = !share->n_streamed[0] && !share->n_streamed[1];
    size_t seen[2] = {0, 0};

    for (size_t i = 0; i < cut->in->n_matrices; i++) {
        const int kind = cut->in->matrix[i].is_kept != 0;
        const size_t N = cut->in->matrix[i].N;
        const size_t rows = block_rows(cut->in, i);
        const size_t n_blocks = count_blocks(cut->in, i);
        const size_t part = share->n_streamed[kind];
        const size_t all = share->n_blocks[kind];
        size_t before, resident, border;

        assert(all > 0); /* the blocks of this matrix are among them */
        before = seen[kind] * part / all;
        seen[kind] += n_blocks;
        resident = n_blocks - (seen[kind] * part / all - before);
        border = resident == n_blocks ? N : resident * rows;
        add_pieces(cut, i, 0, border, is_whole ? N : RESIDENT_BLOCKS * rows,
                   RESIDENT);
        add_streamed(cut, i, border, rows);
    }
}

/* Stream as little as the budget allows, of kept matrices last. */
static struct share choose(const struct vibe_residency_input *in)
{
    struct share share = {.n_blocks = {0, 0}};

    for (size_t i = 0; i < in->n_matrices; i++)
        share.n_blocks[in->matrix[i].is_kept != 0] += count_blocks(in, i);
    for (;;) {
        struct cut cut = {.in = in};

        cut_all(&cut, &share);
        if (cut.resident_bytes <= in->budget)
            return share;
        if (share.n_streamed[0] < share.n_blocks[0])
            share.n_streamed[0]++;
        else
            share.n_streamed[1]++;
    }
}

/* Bytes of the largest block of any matrix. */
static size_t largest_block(const struct vibe_residency_input *in)
{
    size_t most = 0;

    for (size_t i = 0; i < in->n_matrices; i++) {
        const size_t rows = block_rows(in, i);

        for (size_t first = 0; first < in->matrix[i].N; first += rows) {
            const size_t left = in->matrix[i].N - first;
            const size_t bytes = bytes_of(in, i, first,
                                          left < rows ? left : rows);

            if (bytes > most)
                most = bytes;
        }
    }
    return most;
}

static enum kind kind_of(const struct vibe_piece *piece)
{
    if (piece->is_resident)
        return RESIDENT;
    return piece->is_lent ? LENT : STREAMED;
}

/* Measure the table and take what was measured. */
static void take_counts(struct vibe_residency *r)
{
    const struct vibe_piece *pieces = r->pieces;
    struct cut cut = {.in = &r->input};

    for (size_t i = 0; i < r->n_pieces; i++)
        add_piece(&cut, pieces[i].matrix, pieces[i].first, pieces[i].n,
                  kind_of(&pieces[i]));
    r->n_chunks = cut.n_chunks;
    r->n_lent = cut.n_lent;
    r->resident_bytes = cut.resident_bytes;
    r->streamed_bytes = cut.streamed_bytes;
    r->lent_bytes = cut.lent_bytes;
    r->slot_bytes = cut.n_chunks + cut.n_lent ? largest_block(&r->input) : 0;
}

int vibe_residency_init(struct vibe_residency *r,
                        const struct vibe_residency_input *in,
                        struct vibe_error *err)
{
    struct share share;
    struct cut cut = {.in = in};
    struct vibe_residency_matrix *matrix;

    assert(in->n_matrices > 0 && in->chunk_bytes > 0 && in->granule > 0);
    *r = (struct vibe_residency){0};
    share = choose(in);
    cut_all(&cut, &share);
    matrix = calloc(in->n_matrices, sizeof(*matrix));
    r->pieces = calloc(cut.n_pieces, sizeof(*r->pieces));
    if (!matrix || !r->pieces) {
        free(matrix);
        free(r->pieces);
        *r = (struct vibe_residency){0};
        return vibe_fail(err, VIBE_E_NOMEM,
                         "no memory for a table of %zu pieces", cut.n_pieces);
    }
    memcpy(matrix, in->matrix, in->n_matrices * sizeof(*matrix));
    r->n_pieces = cut.n_pieces;
    r->input = *in;
    r->input.matrix = matrix;
    cut = (struct cut){.in = in, .pieces = r->pieces};
    cut_all(&cut, &share);
    take_counts(r);
    return VIBE_OK;
}

void vibe_residency_release(struct vibe_residency *r)
{
    free(r->pieces);
    free((void *)(size_t)r->input.matrix);
    *r = (struct vibe_residency){0};
}

/* Resident bytes of a matrix. */
static size_t matrix_bytes(const struct vibe_residency *r, size_t matrix)
{
    size_t bytes = 0;

    for (size_t i = 0; i < r->n_pieces; i++)
        if (r->pieces[i].matrix == matrix && r->pieces[i].is_resident)
            bytes += r->pieces[i].bytes;
    return bytes;
}

size_t vibe_residency_last(const struct vibe_residency *r)
{
    const struct vibe_residency_matrix *matrix = r->input.matrix;
    size_t best = r->n_pieces;
    size_t most = 0;
    int is_kept = 1;

    for (size_t i = 0; i < r->n_pieces; i++) {
        const struct vibe_piece *p = &r->pieces[i];
        size_t bytes;

        if (!p->is_resident)
            continue;
        bytes = matrix_bytes(r, p->matrix);
        if (best == r->n_pieces || matrix[p->matrix].is_kept < is_kept ||
            (matrix[p->matrix].is_kept == is_kept && bytes >= most)) {
            best = i;
            most = bytes;
            is_kept = matrix[p->matrix].is_kept;
        }
    }
    return best;
}

int vibe_residency_demote(struct vibe_residency *r, size_t i,
                          struct vibe_error *err)
{
    const struct vibe_piece piece = r->pieces[i];
    const size_t rows = block_rows(&r->input, piece.matrix);
    const size_t n = (piece.n + rows - 1) / rows;
    struct cut cut = {.in = &r->input};
    struct vibe_piece *pieces = calloc(r->n_pieces + n - 1, sizeof(*pieces));

    assert(piece.is_resident);
    if (!pieces)
        return vibe_fail(err, VIBE_E_NOMEM,
                         "no memory for a table of %zu pieces",
                         r->n_pieces + n - 1);
    memcpy(pieces, r->pieces, i * sizeof(*pieces));
    memcpy(pieces + i + n, r->pieces + i + 1,
           (r->n_pieces - i - 1) * sizeof(*pieces));
    cut.pieces = pieces + i;
    add_pieces(&cut, piece.matrix, piece.first, piece.first + piece.n, rows,
               STREAMED);
    free(r->pieces);
    r->pieces = pieces;
    r->n_pieces += n - 1;
    take_counts(r);
    return VIBE_OK;
}
