/*
 * gemv.cu - products with one to four rows on the tensor cores, bound by
 * reading the weights once.
 *
 * A block makes 16 outputs at a time; each of its warps does a slice of K
 * (decode.cuh).  A warp keeps a ring of tiles of its own filled, also from
 * one group of outputs to the next, and from before the kernel ahead has
 * ended: weights never change.  x comes through the ring beside them; that of
 * int4 becomes digits (digits.cuh) a tile ahead, or at first, for all groups
 * that a block makes, unless it is in digits already.  Two such teams of warps
 * may be one block, for which x comes once.
 */
#include <assert.h>

#include "engine/backend/cuda/gemv_feed.cuh"

/* Rounds whose sums of slices are kept, and the rows of each: two take turns,
 * but two teams have room for one each. */
__host__ __device__ static constexpr unsigned sides_of(unsigned teams)
{
    return teams == 1 ? 2 : 1;
}
__host__ __device__ static constexpr unsigned rows_of_sums(unsigned teams)
{
    return teams == 1 ? (unsigned)ROWS : (unsigned)TEAM_ROWS;
}

#if __CUDA_ARCH__ >= 800

/* What becomes of output r of those of a block, for row m. */
struct target {
    size_t y_at, gate_at;
    unsigned r, m;
    bool is_there;
};

__device__ static inline target target_of(const decode &a, unsigned n_outputs)
{
    target t;

    t.r = threadIdx.x % n_outputs;
    t.m = threadIdx.x / n_outputs;
    t.is_there = t.m < a.n_rows && t.r < a.outputs;
    t.y_at = t.gate_at = 0;
    if (STARTS_EARLY || t.is_there) {
        t.y_at = row_of(a, a.e.y, t.m);
        t.gate_at = row_of(a, a.e.gate, t.m);
    }
    return t;
}

/* What sums of x and weights lack, as both were made for the products. */
template <int dtype> __device__ static inline float growth_of(const decode &a)
{
    return is_byte<dtype> && a.x.is_woven ? growth<dtype>::OF_WOVEN
                                          : growth<dtype>::OF_SUMS;
}

/* Add up the slices of a team's outputs, finish and store. */
template <int dtype, int WARPS, int N_ROWS, int OUTPUTS>
__device__ static inline void finish_outputs(
    const float (&parts)[WARPS][N_ROWS][OUTPUTS], const decode &a,
    const target &t, const struct operands &o, unsigned n)
{
    const keeping how = {a.e.y.is_split, a.e.y.is_woven};
    float *y = a.e.y.data + t.y_at;
    float sums[WARPS];
    float z, up;

#pragma unroll
    for (unsigned s = 0; s < WARPS; s++)
        sums[s] = parts[s][t.m][t.r];
    add_halves<WARPS>(sums);
    z = sums[0] * (o.scale * growth_of<dtype>(a)) + o.bias;
    up = __shfl_xor_sync(0xFFFFFFFFu, z, 1);
    if (!t.is_there || n >= a.e.N)
        return;
    if (a.e.kind != VIBE_SWIGLU)
        keep_at(y, n, finished(a.e.kind, o, z), how);
    else if (n % 2 == 0)
        keep_at(y, n / 2, silu(z) * up, how);
}

/* What there is to know of a round's groups, asked for ahead: where it is two
 * rounds ahead, what it is one. */
template <int dtype, int HEIGHT> struct groups_ahead {
    __device__ inline void find(const decode &, unsigned) {}
    __device__ inline void look(const decode &) {}
    __device__ inline void open(group_of<dtype> (&)[HEIGHT]) const {}
};
template <> struct groups_ahead<VIBE_BF16_PACKED, 1> : packed_ahead {
    typedef group_of<VIBE_BF16_PACKED> group;

    __device__ inline void find(const decode &a, unsigned i)
    {
        packed_ahead::find(a.list, group::of_matrix(a, i));
    }
    __device__ inline void look(const decode &a)
    {
        packed_ahead::look(a.list);
    }
    __device__ inline void open(group (&groups)[1]) const
    {
        packed_ahead::open(groups[0]);
    }
};

/* The sums of a fold: of this warp's tiles from the first one to the end. */
template <int dtype, int HEIGHT, int KEEPS>
__device__ static inline void add_fold(float2 sums[HEIGHT],
                                       feeder<dtype, HEIGHT, KEEPS> &tiles,
                                       const group_of<dtype> groups[HEIGHT],
                                       unsigned n, unsigned first, unsigned end,
                                       const decode &a)
{
    float c[HEIGHT][4] = {};

    if constexpr (dtype == VIBE_I4 && KEEPS == GIVEN && HEIGHT < 3)
        if (tiles.holds_all(a)) {
            tiles.add_all_digits(c, a);
            first = end;
        }
    for (unsigned tile = first; tile < end; tile += a.slices) {
        if constexpr (dtype == VIBE_I4) {
            tiles.add_digits(c, a);
        } else {
            held_tile<dtype, HEIGHT> w[HEIGHT];
            unsigned x[8], rows[4];

            tiles.take(w, x, a, groups, n, tile);
#pragma unroll
            for (int j = 0; j < 4 * HEIGHT; j++) {
                w[j % HEIGHT].expand(rows, j / HEIGHT);
                multiply(c[j % HEIGHT], rows, x + 2 * (j / HEIGHT));
            }
            tiles.refill(a);
        }
    }
#pragma unroll
    for (int h = 0; h < HEIGHT; h++)
        sums[h] = dtype == VIBE_I4
                      ? make_float2(c[h][0], c[h][2])
                      : make_float2(c[h][0] + c[h][1], c[h][2] + c[h][3]);
}

/* A warp's sums of a round, whose groups begin with n: outputs lane / 4 and 8
 * more of each tile, of x's row lane % 4. */
template <int dtype, int HEIGHT, int KEEPS>
__device__ static inline void add_slice(float2 sums[HEIGHT],
                                        feeder<dtype, HEIGHT, KEEPS> &tiles,
                                        const group_of<dtype> groups[HEIGHT],
                                        unsigned n, const decode &a)
{
    const unsigned fold = a.fold * a.slices;

#pragma unroll
    for (int h = 0; h < HEIGHT; h++)
        sums[h] = make_float2(0.0f, 0.0f);
    tiles.begin_round();
    for (unsigned first = threadIdx.x / 32; first < a.n_tiles; first += fold) {
        float2 c[HEIGHT];

        add_fold(c, tiles, groups, n, first, min(first + fold, a.n_tiles), a);
#pragma unroll
        for (int h = 0; h < HEIGHT; h++) {
            sums[h].x += c[h].x;
            sums[h].y += c[h].y;
        }
    }
}

/* The warps of a team wait for each other. */
template <int TEAMS, int WARPS> __device__ static inline void meet_team(void)
{
    if (TEAMS == 1)
        __syncthreads();
    else
        asm volatile("bar.sync %0, %1;" ::"r"(1 + threadIdx.y), "n"(32 * WARPS)
                     : "memory");
}
#endif

/* bytes: the weights once; x comes from the caches. */
template <int dtype, int WARPS, int HEIGHT, int KEEPS>
__global__ void __launch_bounds__(32 * WARPS * teams_of(KEEPS),
                                  BUSY_WARPS / WARPS / teams_of(KEEPS))
    gemv_kernel(const __grid_constant__ struct decode a)
{
#if __CUDA_ARCH__ >= 800
    enum {
        OUTPUTS = HEIGHT * TILE_N,
        TEAMS = teams_of(KEEPS),
        SIDES = sides_of(TEAMS),
    };

    extern __shared__ uint4 memory[];
    __shared__ float all_parts[TEAMS][SIDES][WARPS][rows_of_sums(TEAMS)]
                              [OUTPUTS];
    auto &parts = all_parts[TEAMS == 1 ? 0 : threadIdx.y];
    const unsigned warp = threadIdx.x / 32;
    const unsigned lane = threadIdx.x % 32;
    const target t = target_of(a, OUTPUTS);
    feeder<dtype, HEIGHT, KEEPS> tiles;
    groups_ahead<dtype, HEIGHT> first, ahead;
    group_of<dtype> groups[HEIGHT];
    unsigned side = 0;

    first.find(a, this_team<TEAMS>());
    ahead.find(a, this_team<TEAMS>() + n_teams<TEAMS>());
    tiles.open(a, (unsigned char *)memory);
    tiles.fill(a, first);
    first.open(groups);
    for (unsigned i = this_team<TEAMS>(); i < a.n_rounds;
         i += n_teams<TEAMS>(), side ^= SIDES - 1) {
        const unsigned n = i * a.outputs + t.r;
        struct operands o = {};
        float2 sums[HEIGHT];

        if (t.is_there && n < a.e.N)
            o = read_operands(a.e, t.y_at, t.gate_at, n);
        ahead.look(a);
        ahead.find(a, i + 2 * n_teams<TEAMS>());
        add_slice(sums, tiles, groups, i * HEIGHT, a);
        ahead.open(groups);
        if (SIDES == 1) /* sums of the round before have been added up */
            meet_team<TEAMS, WARPS>();
        if (lane % 4 < a.n_rows)
#pragma unroll
            for (unsigned h = 0; h < HEIGHT; h++) {
                float *to = &parts[side][warp][lane % 4][h * TILE_N + lane / 4];

                to[0] = sums[h].x;
                to[8] = sums[h].y;
            }
        meet_team<TEAMS, WARPS>();
        if (warp * 32 < a.n_rows * OUTPUTS)
            finish_outputs<dtype>(parts[side], a, t, o, n);
    }
    copies_wait<0>();
#endif
}

/* How the work is shared out. */
struct shares {
    size_t slot_bytes;             /* of a warp's ring */
    size_t kept;                   /* bytes of x, for each warp */
    unsigned warps, depth, height; /* warps: of a team */
    unsigned keeps; /* tiles of x that become digits at once, if all are kept,
                       or in which other way */
};

static size_t shared_bytes(const struct shares *s)
{
    return teams_of(s->keeps) * s->warps * (s->depth * s->slot_bytes + s->kept);
}

/* Besides, and a little more. */
static size_t static_bytes(const struct shares *s)
{
    const unsigned teams = teams_of(s->keeps);

    return teams * sides_of(teams) * s->warps * rows_of_sums(teams) *
               s->height * TILE_N * sizeof(float) +
           1024;
}

/* Blocks that keep a multiprocessor busy. */
static unsigned busy_blocks(const struct shares *s)
{
    return BUSY_WARPS / s->warps / teams_of(s->keeps);
}

/* Whether these fit a multiprocessor together. */
static bool is_busy(const struct vibe_cuda *cuda, const struct shares *s)
{
    return shared_bytes(s) + static_bytes(s) <=
           shared_limit(cuda) / busy_blocks(s);
}

static size_t room_of(const struct vibe_cuda *cuda, const struct shares *s)
{
    return shared_limit(cuda) - static_bytes(s);
}

/* Whether the next kernel's blocks begin to copy where these end. */
static bool is_followed(void)
{
    return vibe_cuda_compiled_for() >= 90;
}

/* Turns of so many blocks that make height tiles of outputs at a time. */
static size_t turns_of(const struct vibe_matrix *w, size_t height,
                       size_t n_blocks)
{
    const size_t of_turn = height * TILE_N * n_blocks;

    return (w->N + of_turn - 1) / of_turn;
}

/* Whether turns of three tiles are so much fewer than those of two that they
 * are less work: no block may have as many tiles in all, or not many more where
 * none is followed. */
static bool is_less_by_threes(const struct vibe_matrix *w, size_t n_blocks)
{
    const size_t twos = turns_of(w, 2, n_blocks);
    const size_t threes = turns_of(w, 3, n_blocks);

    if (w->K > LONG_K || twos == 1)
        return false;
    return is_followed() ? 3 * threes < 2 * twos : 4 * threes < 3 * twos;
}

/* Two tiles at once are less work where weights are a byte or less and so come
 * faster; as long as every multiprocessor has some.  Three are, where that
 * takes fewer turns, where short rows would take more than two turns of two, or
 * where some multiprocessors would have two blocks and none is followed. */
static unsigned height_of(const struct vibe_cuda *cuda,
                          const struct vibe_matrix *w)
{
    const size_t n_sm = (size_t)cuda->n_sm;
    const size_t n_blocks = n_sm * BUSY_WARPS / SLICES;

    if (tile_bytes(w->part[0].dtype) > format<VIBE_F8_E4M3>::TILE_BYTES)
        return 1;
    if (is_less_by_threes(w, n_blocks) ||
        (w->K <= SHORT_K && w->N > 2 * 2 * TILE_N * n_blocks))
        return 3;
    if (!is_followed() && w->K <= LONG_K && w->N > 2 * TILE_N * n_sm &&
        w->N <= 3 * TILE_N * n_sm)
        return 3;
    return 2 * w->N >= (size_t)(3 * TILE_N * cuda->n_sm) ? 2 : 1;
}

/* Have slots for all of a block's tiles, where those are few and there is room:
 * the next kernel's weights then have none and do not come before these.  Where
 * that one does not start early the first tile had better wait for no other. */
static void take_all(const struct vibe_cuda *cuda, const struct vibe_matrix *w,
                     struct shares *s)
{
    const size_t n_tiles = (w->K + TILE_K - 1) / TILE_K;
    struct shares all = *s;

    all.depth = (unsigned)((n_tiles + s->warps - 1) / s->warps);
    if (w->N <= (size_t)cuda->n_sm * s->height * TILE_N &&
        all.depth > s->depth && all.depth <= MOST_SLOTS &&
        shared_bytes(&all) <= room_of(cuda, &all))
        *s = all;
}

/*
 * Have two teams in a block, and x once beside their rings, which so are
 * deeper, for few rows and bytes that blocks take turns at.  Teams that take a
 * turn more than others are together, and where the others end there is room
 * for a large block of the next kernel.
 */
static bool pair_teams(const struct vibe_cuda *cuda,
                       const struct vibe_matrix *w, size_t n_rows,
                       struct shares *s)
{
    const size_t n_tiles = w->K / TILE_K;
    const size_t n_teams = (size_t)cuda->n_sm * BUSY_WARPS / SLICES;

    if (!is_followed() || !vibe_cuda_is_banded(w) || s->warps != SLICES ||
        s->height != 2 || n_rows > TEAM_ROWS || w->K % TILE_K ||
        turns_of(w, s->height, n_teams) == 1)
        return false;
    s->keeps = FOR_TWO;
    s->kept = TEAM_ROWS * X_BYTES * n_tiles / BUSY_WARPS;
    s->depth = slots_of(w->part[0].dtype, s->slot_bytes, FOR_TWO, true);
    return shared_bytes(s) <= room_of(cuda, s);
}

/* Have room for all of x that a warp needs, which is given in digits: it comes
 * at once. */
static bool keep_given(const struct vibe_cuda *cuda,
                       const struct vibe_matrix *w, size_t n_rows,
                       struct shares *s)
{
    const unsigned n_tiles = (unsigned)(w->K / TILE_K);
    const unsigned of_warp = (n_tiles + s->warps - 1) / s->warps;

    s->keeps = s->warps == SLICES ? GIVEN : GIVEN_MANY;
    s->kept = kept_bytes(s->keeps, (unsigned)n_rows, n_tiles, s->warps);
    s->depth = slots_of(VIBE_I4, s->slot_bytes, s->keeps, is_followed());
    return w->K % TILE_K == 0 && of_warp * PIECES <= 16 * s->keeps &&
           shared_bytes(s) <= room_of(cuda, s);
}

/* Have room for all of x that a warp needs in digits, if there is, beside a
 * ring for that; or for digits of two tiles.  Where nothing starts early those
 * of long rows had better be made beside products, or these come late. */
static bool keep_digits(const struct vibe_cuda *cuda,
                        const struct vibe_matrix *w, size_t n_rows,
                        struct shares *s)
{
    const unsigned n_tiles = (unsigned)((w->K + TILE_K - 1) / TILE_K);

    s->keeps = w->K > SHORT_K && w->K <= LONG_K ? MORE : SOME;
    s->kept = kept_bytes(s->keeps, (unsigned)n_rows, n_tiles, s->warps);
    s->depth = slots_of(VIBE_I4, s->slot_bytes, s->keeps, is_followed());
    if ((s->warps == SLICES || is_followed()) &&
        shared_bytes(s) <= room_of(cuda, s))
        return true;
    s->keeps = 0;
    s->kept = kept_bytes(0, (unsigned)n_rows, n_tiles, s->warps);
    return false;
}

/* What x has no part in. */
static struct shares shares_of_weights(const struct vibe_cuda *cuda,
                                       const struct vibe_matrix *w)
{
    const size_t tile = tile_bytes(w->part[0].dtype);
    struct shares s = {};

    s.warps = slices_of(w->K);
    s.height = height_of(cuda, w);
    s.slot_bytes = w->part[0].dtype == VIBE_I4
                       ? (s.height * tile + LINE - 1) / LINE * LINE
                       : s.height * tile;
    return s;
}

static struct shares shares_of(const struct vibe_cuda *cuda,
                               const struct vibe_matrix *w, size_t n_rows,
                               bool is_in_digits)
{
    struct shares s = shares_of_weights(cuda, w), pair = s;

    if (is_in_digits && keep_given(cuda, w, n_rows, &s))
        return s;
    assert(!is_in_digits);
    if (w->part[0].dtype == VIBE_I4 && keep_digits(cuda, w, n_rows, &s))
        return s;
    if (pair_teams(cuda, w, n_rows, &pair))
        return pair;
    s.depth = slots_of(w->part[0].dtype, s.slot_bytes, 0, is_followed());
    s.slot_bytes += even(n_rows) * X_BYTES;
    if (w->part[0].dtype != VIBE_I4 && s.depth > SHORT && !is_busy(cuda, &s))
        s.depth--; /* another block is worth more than a slot */
    if (is_followed() && vibe_cuda_is_banded(w))
        take_all(cuda, w, &s);
    if (shared_bytes(&s) > room_of(cuda, &s))
        s.depth = SHORT;
    return s;
}

/* Outputs of a block, where so many turns of n_blocks take about as many. */
static unsigned even_outputs(const struct vibe_matrix *w, size_t n_turns,
                             size_t n_blocks)
{
    return (unsigned)even((w->N + n_turns * n_blocks - 1) /
                          (n_turns * n_blocks));
}

/*
 * Outputs of a block at a time: as many as there is room for.  Where that takes
 * some blocks a turn more than others and rows can be shared out freely, those
 * of bf16, all take as many turns with fewer outputs.  But with long rows, or
 * one more turn of a few, blocks had better end early, where those of the next
 * kernel begin to copy: after q|k|v of the 7B it is attention, with all of a
 * long past.  Where none is followed it helps nobody to end early.
 */
static unsigned outputs_of(const struct shares *s, const struct vibe_matrix *w,
                           unsigned n_blocks)
{
    const size_t room = (size_t)s->height * TILE_N;
    const size_t n_turns = (w->N + room * n_blocks - 1) / (room * n_blocks);
    const bool is_long = s->warps > SLICES;

    if (w->part[0].dtype != VIBE_BF16)
        return (unsigned)room;
    if (n_turns == 1 || (is_followed() && (is_long || n_turns <= FEW_TURNS)))
        return (unsigned)room;
    return even_outputs(w, n_turns, n_blocks);
}

/* Whether what rings begin with stays in the second cache for the next pass
 * over the same weights: blocks then have it sooner.  For all such matrices
 * together that must be little of it: of the 7B's head it is 17 MB. */
static bool first_stays(const struct vibe_cuda *cuda,
                        const struct vibe_matrix *w, const struct shares *s,
                        size_t n_blocks)
{
    const size_t bytes = n_blocks * s->warps * s->height *
                         tile_bytes(w->part[0].dtype);
    const size_t room = attribute_of(cuda, cudaDevAttrL2CacheSize) / 8 * 3;

    return w->n_again > 0 && w->n_again * bytes <= room;
}

/*
 * When to let the next kernel start, whose copies get in the way of x.  Blocks
 * of int4 make digits of all of x before their first product, and those with
 * long rows of bytes read much of it; where all of these have one round, little
 * is left to wait for but x.  Small matrices had better be followed at once.
 */
static enum next_start next_start_of(const struct vibe_cuda *cuda,
                                     const struct shares *s,
                                     const struct vibe_matrix *w,
                                     unsigned n_rounds, unsigned n_blocks)
{
    const enum vibe_dtype dtype = w->part[0].dtype;

    if (n_rounds > n_blocks || w->K <= SHORT_K || w->N <= SHORT_K)
        return BEFORE_X;
    if (dtype == VIBE_I4)
        return s->keeps && n_rounds > (unsigned)cuda->n_sm ? AFTER_X : WITH_X;
    return vibe_cuda_is_banded(w) && w->K > LONG_K ? WITH_X : BEFORE_X;
}

template <int dtype, int HEIGHT, int KEEPS = 0>
static const void *kernel_of(const struct shares *s)
{
    enum {
        OF_MANY = KEEPS == MORE    ? (int)SOME
                  : KEEPS == GIVEN ? (int)GIVEN_MANY
                                   : KEEPS
    };

    if (KEEPS == MORE || s->warps == SLICES)
        return (const void *)gemv_kernel<dtype, SLICES, HEIGHT, KEEPS>;
    return (const void *)gemv_kernel<dtype, MANY_SLICES, HEIGHT, OF_MANY>;
}

/* Of weights of a byte or less. */
template <int dtype, int KEEPS = 0>
static const void *narrow_kernel_of(const struct shares *s)
{
    if (s->height == 3)
        return (const void *)gemv_kernel<dtype, SLICES, 3, KEEPS>;
    return s->height == 1 ? kernel_of<dtype, 1, KEEPS>(s)
                          : kernel_of<dtype, 2, KEEPS>(s);
}

static const void *i4_kernel_of(const struct shares *s)
{
    return is_given(s->keeps) ? narrow_kernel_of<VIBE_I4, GIVEN>(s)
           : s->keeps == MORE ? narrow_kernel_of<VIBE_I4, MORE>(s)
           : s->keeps == SOME ? narrow_kernel_of<VIBE_I4, SOME>(s)
                              : narrow_kernel_of<VIBE_I4>(s);
}

static const void *kernel_for_two(enum vibe_dtype dtype)
{
    return dtype == VIBE_I8
               ? (const void *)gemv_kernel<VIBE_I8, SLICES, 2, FOR_TWO>
               : (const void *)gemv_kernel<VIBE_F8_E4M3, SLICES, 2, FOR_TWO>;
}

static const void *kernel_for(enum vibe_dtype dtype, const struct shares *s)
{
    if (s->keeps == FOR_TWO)
        return kernel_for_two(dtype);
    if (dtype == VIBE_BF16)
        return kernel_of<VIBE_BF16, 1>(s);
    if (dtype == VIBE_BF16_PACKED)
        return kernel_of<VIBE_BF16_PACKED, 1>(s);
    if (dtype == VIBE_I4)
        return i4_kernel_of(s);
    return dtype == VIBE_I8 ? narrow_kernel_of<VIBE_I8>(s)
                            : narrow_kernel_of<VIBE_F8_E4M3>(s);
}

int vibe_cuda_gemv_takes_digits(const struct vibe_cuda *cuda,
                                const struct vibe_matrix *w, size_t n_rows)
{
    struct shares s = shares_of_weights(cuda, w);

    return keep_given(cuda, w, n_rows, &s);
}

cudaError_t vibe_cuda_gemv(const struct vibe_cuda *cuda,
                           const struct vibe_cuda_product *p, size_t first,
                           size_t n_rows)
{
    const struct shares s = shares_of(cuda, p->w, n_rows,
                                      p->x->form == VIBE_FORM_DIGITS);
    const size_t shared = shared_bytes(&s);
    const void *kernel = kernel_for(p->w->part[0].dtype, &s);
    const unsigned most = (unsigned)cuda->n_sm * teams_of(s.keeps) *
                          blocks_that_fit(cuda, shared + static_bytes(&s),
                                          busy_blocks(&s));
    const dim3 threads(32 * s.warps, teams_of(s.keeps));
    struct decode a = decode_of(p, first, n_rows);
    unsigned n_teams;
    cudaError_t rc;

    if (shared > room_of(cuda, &s) && n_rows > 2) {
        rc = vibe_cuda_gemv(cuda, p, first, 2);
        return rc == cudaSuccess
                   ? vibe_cuda_gemv(cuda, p, first + 2, n_rows - 2)
                   : rc;
    }
    a.depth = s.depth;
    a.outputs = outputs_of(&s, p->w, most);
    a.n_rounds = (a.e.N + a.outputs - 1) / a.outputs;
    n_teams = a.n_rounds < most ? a.n_rounds : most;
    a.first_stays = first_stays(cuda, p->w, &s, n_teams);
    a.next_start = next_start_of(cuda, &s, p->w, a.n_rounds, n_teams);
    return launch_large(cuda, kernel, n_teams / threads.y, threads, shared, &a);
}
