/*
 * attend_parts.cuh - a past in parts, and how their sums become one.
 *
 * A past is cut by its length alone, into parts of equal length.  Each is the
 * work of a block, which posts a letter of what it found.  Then the first parts
 * put all letters together, some quads of channels each: nobody waits for a
 * last one, and the others have ended, so that the next kernel's weights come
 * to where their tiles were.
 *
 * Progress.  A block waits for the other parts of its past.  All blocks of a
 * launch fit the device at once, whatever order they start in (launch_step);
 * parts of one past go to different blocks, for they are no more than blocks
 * and numbered one after another; and a block takes its parts in the order of
 * their numbers.  So the parts of the first past that is not finished have all
 * been begun or are next, and each posts before it waits.
 *
 * Races.  All that blocks tell each other are 32-bit words, of which each says
 * for itself whether it has arrived: a word is BLANK or what its only writer
 * has stored, so no order among words is asked for.  Stores and loads are
 * relaxed ones of gpu scope, which do not race.  Only one warp reads what
 * letters say of a group of quads, and it makes that blank again after all of
 * it has arrived, that is after its stores; the next launch posts after it has
 * waited for all kernels ahead of it, which orders its stores and loads behind
 * the blanks.
 */
#ifndef VIBE_CUDA_ATTEND_PARTS_CUH
#define VIBE_CUDA_ATTEND_PARTS_CUH

#include "engine/backend/cuda/attend_row.cuh"
#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/mail.cuh"

enum {
    TILE = 16,            /* positions */
    FEW = 32,             /* tiles that are not worth more than one part */
    LEAST = 8,            /* tiles of a part otherwise */
    ENOUGH = 8,           /* parts, more of which had better be longer */
    LONG = 16,            /* tiles of those */
    READERS = 32 / GROUP, /* of a quad; lanes side by side read a group */
    LETTERS = 4,          /* that a reader reads, at most */
    MAX_PARTS = READERS * LETTERS, /* of a past */
    GROUPS = 2,      /* that a part finishes, or none, where it can */
    TILE_GROUPS = 4, /* of 64 channels, of which digits are made together */
};

/* What a part has to say: of each quad, and of groups of them, which are of one
 * head.  A word that is BLANK has not arrived. */
template <unsigned HD> struct letter {
    float4 sums[HEADS * HD / 4];
    float4 scores[HEADS * HD / 4 / GROUP]; /* top, weight */
};

/* Four channels of a head: weighted sums, and the weights' top and sum. */
struct quad {
    float4 sum;
    float top, weight;
};

#if __CUDA_ARCH__ >= 800

/* Parts of a past of so many tiles.  One dialogue has multiprocessors for more;
 * where there are many, blocks take parts in turn, each of which costs them as
 * much as its tiles or more. */
__device__ static inline unsigned parts_for(unsigned n_tiles, unsigned most)
{
    const unsigned n = max(min(n_tiles / LEAST, (unsigned)ENOUGH),
                           n_tiles / LONG);

    return n_tiles <= FEW ? 1 : min(most, n);
}

/* Part i of those that there are: those of one past are side by side, the last
 * row's before others.  Returns whether there is one.  Lets the next kernel
 * start where all pasts are short. */
template <unsigned HD, bool IN_DIGITS>
__device__ static inline bool find_part(struct part &p, const struct step &a,
                                        unsigned i)
{
    const unsigned lane = threadIdx.x % 32;
    const unsigned n_groups = a.group * HD / 4 / GROUP;

#pragma unroll 1
    for (unsigned first = 0; first < a.n_rows; first += 32) {
        const bool is_row = first + lane < a.n_rows;
        const unsigned row = a.n_rows - 1 - (is_row ? first + lane : first);
        const unsigned pos = (unsigned)load_kept(&a.pos[row]);
        const int seq = load_kept(&a.seq[row]);
        const unsigned n = parts_for(pos / TILE + 1, a.most_parts);
        const unsigned parts = is_row ? n * a.cache.n_kv_heads : 0;
        unsigned end = parts; /* of this row and those before */
        unsigned at, groups;

        if (__all_sync(0xFFFFFFFFu, n == 1))
            let_next_start(); /* there is little to read ahead of it */
#pragma unroll
        for (unsigned offset = 1; offset < 32; offset *= 2) {
            const unsigned other = __shfl_up_sync(0xFFFFFFFFu, end, offset);

            end += lane >= offset ? other : 0;
        }
        at = __popc(__ballot_sync(0xFFFFFFFFu, end <= i));
        if (at < 32) {
            i -= __shfl_sync(0xFFFFFFFFu, end - parts, at);
            p.row = __shfl_sync(0xFFFFFFFFu, row, at);
            p.pos = __shfl_sync(0xFFFFFFFFu, pos, at);
            p.n = __shfl_sync(0xFFFFFFFFu, n, at);
            p.seq = __shfl_sync(0xFFFFFFFFu, seq, at);
            p.head = i / p.n;
            p.i = i % p.n;
            p.n_all = a.n_rows <= 32 ? __shfl_sync(0xFFFFFFFFu, end, 31) : ~0u;
            p.first = p.i * (p.pos / TILE + 1) / p.n;
            p.end = (p.i + 1) * (p.pos / TILE + 1) / p.n;
            groups = max((unsigned)GROUPS, (n_groups + p.n - 1) / p.n);
            if (IN_DIGITS)
                groups = (groups + TILE_GROUPS - 1) / TILE_GROUPS * TILE_GROUPS;
            p.first_group = min(p.i * groups, n_groups);
            p.end_group = min((p.i + 1) * groups, n_groups);
            return true;
        }
        i -= __shfl_sync(0xFFFFFFFFu, end, 31);
    }
    return false;
}

/* The letter of part i of the past of a part. */
template <unsigned HD>
__device__ static inline letter<HD> *letter_of(const struct part &p,
                                               const struct step &a, unsigned i)
{
    const size_t past = (size_t)p.row * a.cache.n_kv_heads + p.head;

    return (letter<HD> *)a.mail + past * a.most_parts + i;
}

/* Add up what is relative to other tops. */
__device__ static inline void append(quad &to, float4 sum, float top,
                                     float weight)
{
    const float f = power_of_2(top - to.top); /* 0 for nothing */

    to.weight = fmaf(weight, f, to.weight);
    to.sum.x = fmaf(sum.x, f, to.sum.x);
    to.sum.y = fmaf(sum.y, f, to.sum.y);
    to.sum.z = fmaf(sum.z, f, to.sum.z);
    to.sum.w = fmaf(sum.w, f, to.sum.w);
}

/* In pairs, as more than one of them is looked at. */
__device__ static inline unsigned largest_word(float4 v)
{
    return max(max(__float_as_uint(v.x), __float_as_uint(v.y)),
               max(__float_as_uint(v.z), __float_as_uint(v.w)));
}

/* Read what up to LETTERS letters, READERS apart, say of a quad and its group
 * as soon as all of it is there, and leave blanks; what there is not, from n
 * letters on, is nothing.  The whole warp takes part.  It looks at all letters
 * at once, and again: to ask which are missing takes longer. */
template <unsigned HD>
__device__ static inline void read_letters(float4 (&sum)[LETTERS],
                                           float4 (&scores)[LETTERS],
                                           letter<HD> *first, unsigned n,
                                           unsigned quad)
{
    const float blank = __uint_as_float(BLANK);
    const float4 blanks = make_float4(blank, blank, blank, blank);
    unsigned words;

#pragma unroll
    for (unsigned i = 0; i < LETTERS; i++) {
        sum[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        scores[i] = make_float4(-INFINITY, 0.0f, 0.0f, 0.0f);
    }
    do {
        words = 0;
#pragma unroll
        for (unsigned i = 0; i < LETTERS; i++) {
            const letter<HD> *from = &first[i * READERS];
            const bool is_there = i * READERS < n;

            look(sum[i], &from->sums[quad], is_there);
            look(scores[i], &from->scores[quad / GROUP], is_there);
        }
#pragma unroll
        for (unsigned i = 0; i < LETTERS; i++)
            words = max(words,
                        max(largest_word(sum[i]), largest_word(scores[i])));
    } while (__any_sync(0xFFFFFFFFu, words == BLANK));
#pragma unroll
    for (unsigned i = 0; i < LETTERS; i++)
        if (i * READERS < n) {
            send(&first[i * READERS].sums[quad], blanks);
            if (quad % GROUP == 0)
                send(&first[i * READERS].scores[quad / GROUP], blanks);
        }
}

/* The sum over a quad's readers. */
__device__ static inline float sum_of_readers(float v)
{
#pragma unroll
    for (unsigned offset = GROUP; offset < 32; offset *= 2)
        v += __shfl_xor_sync(0xFFFFFFFFu, v, offset);
    return v;
}

/* What n parts say of quad lane % GROUP of a group, put together by a warp. */
template <unsigned HD>
__device__ static inline quad collect(letter<HD> *first, unsigned n,
                                      unsigned group)
{
    const unsigned reader = threadIdx.x % 32 / GROUP;
    float4 sum[LETTERS], scores[LETTERS];
    quad q = {make_float4(0.0f, 0.0f, 0.0f, 0.0f), -INFINITY, 0.0f};

    read_letters<HD>(sum, scores, first + reader, n - min(n, reader),
                     group * GROUP + threadIdx.x % GROUP);
#pragma unroll
    for (unsigned i = 0; i < LETTERS; i++)
        q.top = fmaxf(q.top, scores[i].x);
#pragma unroll
    for (unsigned offset = GROUP; offset < 32; offset *= 2)
        q.top = fmaxf(q.top, __shfl_xor_sync(0xFFFFFFFFu, q.top, offset));
#pragma unroll
    for (unsigned i = 0; i < LETTERS; i++)
        append(q, sum[i], scores[i].x, scores[i].y);
    q.sum.x = sum_of_readers(q.sum.x);
    q.sum.y = sum_of_readers(q.sum.y);
    q.sum.z = sum_of_readers(q.sum.z);
    q.sum.w = sum_of_readers(q.sum.w);
    q.weight = sum_of_readers(q.weight);
    return q;
}

#endif

#endif /* VIBE_CUDA_ATTEND_PARTS_CUH */
