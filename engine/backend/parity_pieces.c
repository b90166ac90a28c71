/* Parity of matrices in pieces: the bits of a product do not tell how many. */
#include "engine/backend/parity_lab.h"
#include "engine/base/size.h"
#include "offload/transfer.h"

struct split {
    size_t B, T; /* T > 1: a gemm, else linear */
    enum vibe_epilogue epilogue;
    struct vibe_lab_matrix w;
};

/* Bring a piece to the device: as a whole or, every second time, laid here and
 * copied. */
static int bring(struct vibe_lab *lab, void *device,
                 const struct vibe_matrix_source *src, size_t first, size_t n)
{
    struct vibe_backend *be = lab->be[VIBE_TESTED];
    const struct vibe_transfer *move = be->transfer;
    const size_t bytes = vibe_matrix_piece_bytes(be, src, first, n);
    struct vibe_event *copied = NULL;
    void *host = NULL;
    int rc;

    if (first / VIBE_MATRIX_UNIT % 2)
        return vibe_matrix_fill(be, src, first, n, device, &lab->err);
    rc = move->event_create(&copied, be, &lab->err);
    if (!rc)
        host = move->pinned_alloc(be, bytes);
    if (!rc && !host)
        rc = vibe_fail(&lab->err, VIBE_E_NOMEM, "no memory for a piece");
    if (!rc) {
        vibe_matrix_lay(be, src, first, n, host);
        rc = move->copy(be, device, host, bytes, &lab->err);
    }
    if (!rc)
        rc = move->event_record(copied, VIBE_QUEUE_COPY, &lab->err);
    if (!rc)
        rc = move->event_wait(copied, VIBE_QUEUE_HOST, &lab->err);
    move->pinned_free(be, host);
    move->event_destroy(copied);
    return rc;
}

static void multiply(struct vibe_lab *lab, const struct split *p,
                     const struct vibe_tensor *y, const struct vibe_tensor *x,
                     const struct vibe_matrix *w)
{
    struct vibe_stream *s = &lab->s[VIBE_TESTED];

    if (p->T > 1)
        vibe_gemm(s, y, x, w, p->epilogue, NULL);
    else
        vibe_linear(s, y, x, w, p->epilogue, NULL);
}

/* Bytes of the largest piece of that many rows. */
static size_t largest_piece(const struct vibe_lab *lab, size_t N, size_t rows)
{
    size_t most = 0;

    for (size_t first = 0; first < N; first += rows) {
        const size_t left = N - first;
        const size_t bytes = vibe_matrix_piece_bytes(
            lab->be[VIBE_TESTED], vibe_lab_source(lab), first,
            left < rows ? left : rows);

        most = bytes > most ? bytes : most;
    }
    return most;
}

/* Piece by piece of that many rows, all through the same memory. */
static void multiply_pieces(struct vibe_lab *lab, const struct split *p,
                            const struct vibe_tensor *y,
                            const struct vibe_tensor *x, size_t rows)
{
    const struct vibe_matrix_source *src = vibe_lab_source(lab);
    struct vibe_backend *be = lab->be[VIBE_TESTED];
    const size_t halves = p->w.is_pair ? 2 : 1;
    struct vibe_matrix small = {0};
    void *room = be->transfer->device_alloc(be,
                                            largest_piece(lab, p->w.N, rows));

    if (!room)
        vibe_fail(&lab->err, VIBE_E_NOMEM, "%s: no memory for a piece",
                  be->name);
    if (!lab->err.code)
        vibe_matrix_load_small(&small, be, src, &lab->err);
    for (size_t first = 0; first < p->w.N && !lab->err.code; first += rows) {
        const size_t left = p->w.N - first;
        const size_t n = left < rows ? left : rows;
        const struct vibe_matrix piece = vibe_matrix_piece(&small, room, first,
                                                           n);
        const struct vibe_tensor part = vibe_tensor_channels(y, first / halves,
                                                             n / halves);

        if (bring(lab, room, src, first, n) != VIBE_OK)
            break;
        multiply(lab, p, &part, x, &piece);
        vibe_stream_check(&lab->s[VIBE_TESTED], &lab->err);
    }
    vibe_matrix_release(&small, be);
    be->transfer->device_free(be, room);
}

static void run_split(struct vibe_lab *lab, const struct split *p, size_t rows)
{
    const size_t C = p->w.is_pair ? p->w.N / 2 : p->w.N;
    struct vibe_tensor x[VIBE_SIDES], y[VIBE_SIDES], whole[VIBE_SIDES];
    struct vibe_matrix *w[VIBE_SIDES];

    vibe_lab_tensor(lab, x, VIBE_FILL_RANDOM, p->B, p->T, p->w.K);
    vibe_lab_tensor(lab, y, VIBE_FILL_RANDOM, p->B, p->T, C);
    vibe_lab_tensor(lab, whole, VIBE_FILL_POISON, p->B, p->T, C);
    vibe_lab_matrix(lab, w, &p->w);
    if (!lab->err.code) {
        vibe_copy(&lab->s[VIBE_TESTED], &whole[VIBE_TESTED], &y[VIBE_TESTED]);
        multiply(lab, p, &whole[VIBE_TESTED], &x[VIBE_TESTED], w[VIBE_TESTED]);
        multiply_pieces(lab, p, &y[VIBE_TESTED], &x[VIBE_TESTED], rows);
    }
    vibe_lab_same(lab, p->T > 1 ? "gemm" : "linear", &y[VIBE_TESTED],
                  &whole[VIBE_TESTED],
                  "pieces of %zu rows, %s M=%zux%zu N=%zu K=%zu", rows,
                  vibe_dtype_name(p->w.dtype), p->B, p->T, p->w.N, p->w.K);
    vibe_lab_clear(lab);
}

static void pieces(struct vibe_lab *lab)
{
    static const enum vibe_dtype dtypes[] = {
        VIBE_F32, VIBE_BF16, VIBE_F8_E4M3, VIBE_I4, VIBE_BF16_PACKED,
    };
    static const struct split cases[] = {
        {2,
         1,
         VIBE_STORE,
         {.N = 200, .K = 96, .n_parts = 3, .n_scales = 2, .has_bias = 1}},
        {2,
         1,
         VIBE_SWIGLU,
         {.N = 320,
          .K = 520,
          .n_parts = 2,
          .is_pair = 1,
          .n_scales = 2,
          .has_bias = 1}},
        {3, 1, VIBE_ADD, {.N = 450, .K = 1040, .n_parts = 1, .has_gamma = 1}},
        {1,
         33,
         VIBE_STORE,
         {.N = 200, .K = 96, .n_parts = 3, .n_scales = 1, .has_bias = 1}},
        {1,
         70,
         VIBE_SWIGLU,
         {.N = 256, .K = 520, .n_parts = 2, .is_pair = 1, .has_bias = 1}},
        /* for tiles and for cuBLASLt, where there are such */
        {1, 70, VIBE_ADD, {.N = 1088, .K = 1024, .n_parts = 1}},
        {1,
         130,
         VIBE_SWIGLU,
         {.N = 1280, .K = 1040, .n_parts = 2, .is_pair = 1}},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        for (size_t d = 0; d < sizeof(dtypes) / sizeof(*dtypes); d++) {
            struct split p = cases[i];
            const int is_large = p.w.N * p.w.K > 1 << 20;

            if (is_large && dtypes[d] != VIBE_BF16)
                continue; /* nothing that others do not show */
            if (dtypes[d] == VIBE_BF16_PACKED && p.w.n_parts == 3)
                continue; /* parts of whole blocks only have such pieces */
            p.w.dtype = dtypes[d];
            p.w.is_wild = dtypes[d] == VIBE_BF16_PACKED && i % 2;
            if (dtypes[d] == VIBE_I4)
                p.w.K = vibe_size_round(p.w.K, 64);
            if (dtypes[d] == VIBE_F8_E4M3)
                vibe_lab_whole(&p.w);
            for (size_t rows = 64; rows <= 192 && !lab->err.code; rows += 128)
                run_split(lab, &p, rows);
        }
}

vibe_parity_case *const vibe_parity_pieces[] = {pieces, NULL};
