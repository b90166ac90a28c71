/*
 * attend_tiles.cuh - tiles of keys and values on the tensor cores.
 *
 * A tile is rows of head_dim bf16 or e4m3, one position each, whose 16-byte
 * pieces lie in an order that keeps 8 rows in different banks.  Keys and values
 * are used as they are stored; queries and weights are two bf16, high and low,
 * so 2^-17 of each product is lost.  Scores are to the base 2.
 *
 * The bits of an e4m3 in those of a bf16 are 2^-120 of it, and its scale
 * belongs to the whole row: UNIT, which queries and weights are multiplied by,
 * takes half of what is missing, and the scale with UNIT again the rest.
 */
#ifndef VIBE_CUDA_ATTEND_TILES_CUH
#define VIBE_CUDA_ATTEND_TILES_CUH

#include "engine/backend/cuda/cache.cuh"
#include "engine/backend/cuda/tensor.cuh"

enum { UNIT_EXPONENT = 60 };

template <typename T>
constexpr float UNIT = is_f8<T> ? float(1ull << UNIT_EXPONENT) : 1.0f;

/* What scales rows of e4m3. */
template <typename T, unsigned ROWS> struct scales {
};
template <unsigned ROWS> struct scales<e4m3, ROWS> {
    alignas(16) unsigned char exponents[2][ROWS];
};

/* Lines of 128 bytes, on which copies of a warp are quickest. */
template <typename T, unsigned HD, unsigned ROWS>
struct alignas(128) tile : scales<T, ROWS> {
    alignas(128) T rows[2][ROWS * HD]; /* keys, values */
};

#if __CUDA_ARCH__ >= 800

/* 2^x; 0 below 2^-126, which adds nothing to a sum that has a 1. */
__device__ static inline float power_of_2(float x)
{
    float y;

    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* What the places of a row's pieces are exchanged by.  Of fewer than 8 rows
 * that share a line of banks have it in common. */
template <typename T, unsigned HD>
__device__ static constexpr unsigned order(unsigned row)
{
    return HD * sizeof(T) / 16 >= 8 ? row & 7 : row / 2 & 3;
}

/* Where piece i of a row of a tile is. */
template <typename T, unsigned HD>
__device__ static inline T *piece(T *rows, unsigned row, unsigned i)
{
    return rows + row * HD + (i ^ order<T, HD>(row)) * (16 / sizeof(T));
}

/* Load what is read again and again, between streams of weights that would push
 * it out of the cache. */
template <typename T> __device__ static inline T load_kept(const T *from)
{
    unsigned long long v;

    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a word or two");
    if constexpr (sizeof(T) == 4)
        asm volatile("{.reg .b64 last;\n"
                     "createpolicy.fractional.L2::evict_last.b64 last, 1.0;\n"
                     "ld.global.L2::cache_hint.b32 %0, [%1], last;}"
                     : "=r"(*(unsigned *)&v)
                     : "l"(from));
    else
        asm volatile("{.reg .b64 last;\n"
                     "createpolicy.fractional.L2::evict_last.b64 last, 1.0;\n"
                     "ld.global.L2::cache_hint.b64 %0, [%1], last;}"
                     : "=l"(v)
                     : "l"(from));
    return *(T *)&v;
}

/* Bring the line of p near, to stay there. */
__device__ static inline void prefetch_kept(const void *p)
{
    asm volatile("prefetch.global.L2::evict_last [%0];" ::"l"(p));
}

/* The keys of a head in the block of position pos, values behind; blocks have a
 * power of two of positions. */
__device__ static inline char *keys_at(const struct cache &c, int seq,
                                       unsigned pos, unsigned head)
{
    const unsigned block = pos >> c.block_log;

    return (char *)load_kept(&c.table[(size_t)seq * c.max_blocks + block]) +
           ((size_t)c.layer * 2 * c.n_kv_heads + head) * c.head_bytes;
}

/* Start copying n_there of ROWS rows of keys (part 0) or values (1) from
 * position pos on, and zeros after them, by n threads of which this is i. */
template <typename T, unsigned HD, unsigned ROWS>
__device__ static inline void fetch_part(struct tile<T, HD, ROWS> *to,
                                         const struct cache &c,
                                         const char *keys, unsigned pos,
                                         int n_there, unsigned part, unsigned i,
                                         unsigned n)
{
    constexpr unsigned channels = 16 / sizeof(T);
    constexpr unsigned pieces = HD / channels;
    const size_t values = c.n_kv_heads * c.head_bytes; /* behind keys */
    const unsigned at = pos & (c.block_tokens - 1);
    const T *rows = (const T *)(keys + part * values) + at * HD;

#pragma unroll 2
    for (unsigned j = i; j < ROWS * pieces; j += n) {
        const unsigned row = j / pieces;
        const unsigned k = j % pieces;
        const bool is_there = (int)row < n_there;

        copy_async<16>(piece<T, HD>(to->rows[part], row, k),
                       rows + (is_there ? row * HD + k * channels : 0),
                       is_there);
    }
    if constexpr (is_f8<T>)
        if (i < ROWS / 16)
            copy_async<16>(
                to->exponents[part] + i * 16,
                keys + part * values + c.block_tokens * HD + at + i * 16, true);
}

template <typename T, unsigned HD, unsigned ROWS>
__device__ static inline void fetch_tile(struct tile<T, HD, ROWS> *to,
                                         const struct cache &c,
                                         const char *keys, unsigned pos,
                                         int n_there, unsigned i, unsigned n)
{
    for (unsigned part = 0; part < 2; part++)
        fetch_part(to, c, keys, pos, n_there, part, i, n);
}

/* What a score or weight of row i is multiplied by, for its key (part 0) or
 * value (1). */
template <typename T, unsigned HD, unsigned ROWS>
__device__ static inline float scale_of(const struct tile<T, HD, ROWS> *tile,
                                        unsigned part, unsigned i)
{
    if constexpr (is_f8<T>)
        return power_of_two(tile->exponents[part][i] + UNIT_EXPONENT);
    return 1.0f;
}

/* Four 8 by 8 matrices whose rows this warp's lanes point to, 8 lanes each. */
__device__ static inline void load_matrices(unsigned (&m)[4], const void *row)
{
    const unsigned at = (unsigned)__cvta_generic_to_shared(row);

    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, "
                 "[%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(at)
                 : "memory");
}

__device__ static inline void load_transposed(unsigned (&m)[4], const void *row)
{
    const unsigned at = (unsigned)__cvta_generic_to_shared(row);

    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 "
                 "{%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(at)
                 : "memory");
}

/* Of four e4m3, the first and third as bf16 and the other two, 2^-120 as
 * large. */
__device__ static inline void expand(unsigned &even, unsigned &odd, unsigned v)
{
    even = (v << 8 & 0x80008000u) | (v << 4 & 0x07F007F0u);
    odd = (v & 0x80008000u) | (v >> 4 & 0x07F007F0u);
}

/*
 * Rows of a tile as operands of two products that follow each other, 32
 * channels with piece `at`: each lane points to the piece of one row, as four
 * matrices of 8 rows, of which those of one row are `side` pieces apart.  Of
 * rows as they are, a product takes 16 channels (see channel); of transposed
 * ones, 16 positions.
 *
 *   sides_last   lanes 16 .. 31 have side 1; else lanes 8 .. 15 and 24 .. 31
 */
template <unsigned HD, bool is_transposed, bool sides_last>
__device__ static inline void load_pair(unsigned (&m)[2][4],
                                        __nv_bfloat16 *rows, unsigned row,
                                        unsigned k, unsigned side)
{
#pragma unroll
    for (unsigned i = 0; i < 2; i++) {
        const void *from = piece<__nv_bfloat16, HD>(rows, row,
                                                    4 * k + 2 * i + side);

        if (is_transposed)
            load_transposed(m[i], from);
        else
            load_matrices(m[i], from);
    }
}

template <unsigned HD, bool is_transposed, bool sides_last>
__device__ static inline void load_pair(unsigned (&m)[2][4], e4m3 *rows,
                                        unsigned row, unsigned k, unsigned side)
{
    const void *from = piece<e4m3, HD>(rows, row, 2 * k + side);
    unsigned raw[4];

    if (is_transposed)
        load_transposed(raw, from);
    else
        load_matrices(raw, from);
#pragma unroll
    for (unsigned i = 0; i < 2; i++)
        if (sides_last) {
            expand(m[i][0], m[i][2], raw[2 * i]);
            expand(m[i][1], m[i][3], raw[2 * i + 1]);
        } else {
            expand(m[i][0], m[i][1], raw[i]);
            expand(m[i][2], m[i][3], raw[i + 2]);
        }
}

/* Which channel of 16 a lane's number e of pair i is, in an operand that meets
 * rows of a tile. */
template <typename T>
__device__ static inline unsigned channel(unsigned i, unsigned e)
{
    const unsigned lane = threadIdx.x % 4;

    return is_f8<T> ? lane * 4 + 2 * e + i : i * 8 + lane * 2 + e;
}

/* The other way round: which of an operand's 16 a channel is. */
template <typename T>
__device__ static inline unsigned operand_of_channel(unsigned c)
{
    return is_f8<T> ? c % 2 * 8 + c / 4 * 2 + c / 2 % 2 : c;
}

/* Which channel of 16 row i of a product with transposed rows is. */
template <typename T>
__device__ static inline unsigned channel_of_row(unsigned i)
{
    return is_f8<T> ? i % 8 * 2 + i / 8 : i;
}

#endif

#endif /* VIBE_CUDA_ATTEND_TILES_CUH */
