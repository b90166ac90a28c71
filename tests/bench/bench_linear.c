/*
 * bench_linear - how near vibe_linear comes to the speed of memory.
 *
 * Runs the matrices of one decoder layer of the 1.5B and 7B models over
 * 640 MB of weights in pages of 4 KB, as a mapped file has them, and prints
 * weight bytes per second beside what a plain reading loop gets.
 *
 *   bench_linear [threads]
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "engine/backend/cpu/cpu.h"
#include "engine/backend/ops.h"
#include "engine/base/clock.h"
#include "engine/format/pack.h"

enum { PASSES = 3 };

static const size_t pool_bytes = (size_t)640 << 20;

/* Mapped weights: pseudo-random bytes that are finite in every dtype. */
static char *make_pool(void)
{
    char *pool = mmap(NULL, pool_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t r = 1;

    if (pool == MAP_FAILED)
        return NULL;
    madvise(pool, pool_bytes, MADV_NOHUGEPAGE);
    for (size_t i = 0; i < pool_bytes; i += 8) {
        r = r * 6364136223846793005u + 1442695040888963407u;
        *(uint64_t *)(void *)(pool + i) = r & 0xBFBFBFBFBFBFBFBFu;
    }
    return pool;
}

enum { GROUP = 64, MOST_ROWS = 37888, MOST_K = 18944 };

/* Scales for every group of the largest matrix. */
static float group_scales[(size_t)MOST_ROWS * 3584 / GROUP];
static uint64_t blocks[MOST_ROWS / VIBE_PACK_BLOCK + 1];

/* Fill the pool with one packed block again and again: weights whose exponents
 * fall off by halves, of which one in 128 is an escape. */
static void lay_packed(char *pool, size_t K)
{
    static uint16_t weights[(size_t)VIBE_PACK_BLOCK * MOST_K];
    const void *row[VIBE_PACK_BLOCK];
    size_t bytes;

    for (size_t r = 0; r < VIBE_PACK_BLOCK; r++)
        row[r] = weights + r * K;
    for (size_t i = 0; i < VIBE_PACK_BLOCK * K; i++) {
        uint64_t r = (i + 1) * 0x9E3779B97F4A7C15u;

        weights[i] = (uint16_t)((0x3C00u -
                                 ((unsigned)__builtin_ctzll(r >> 20) << 7)) |
                                (r >> 57) | (r >> 5 & 0x8000));
    }
    bytes = vibe_pack_block_bytes(row, VIBE_PACK_BLOCK, K);
    for (size_t i = 0; i < sizeof(blocks) / sizeof(*blocks); i++)
        blocks[i] = i * bytes;
    for (size_t at = 0; at + bytes <= pool_bytes; at += bytes)
        vibe_pack_block(pool + at, row, VIBE_PACK_BLOCK, K);
}

static struct vibe_matrix matrix_at(const char *data, enum vibe_dtype dtype,
                                    size_t N, size_t K)
{
    struct vibe_matrix w = {
        .N = N,
        .K = K,
        .n_parts = 1,
        .part = {{.data = data,
                  .dtype = dtype,
                  .n = N,
                  .group = GROUP,
                  .group_scale = group_scales,
                  .blocks = blocks}},
    };

    w.bytes = vibe_matrix_part_bytes(w.part, K, 0, N);
    return w;
}

/* Bytes per second over the pool, best of a few passes. */
static double measure(struct vibe_backend *be, char *pool,
                      enum vibe_dtype dtype, size_t M, size_t N, size_t K)
{
    struct vibe_stream s;
    struct vibe_tensor x, y;
    double best = 0.0;

    if (vibe_stream_init(&s, be, NULL) ||
        vibe_tensor_init(&x, be, VIBE_F32, M, 1, K, NULL) ||
        vibe_tensor_init(&y, be, VIBE_F32, M, 1, N, NULL))
        exit(1);
    if (dtype == VIBE_BF16_PACKED)
        lay_packed(pool, K);
    for (int pass = 0; pass < PASSES; pass++) {
        struct vibe_matrix w = matrix_at(pool, dtype, N, K);
        double start = vibe_clock_s();
        size_t at = 0;

        for (; at + w.bytes <= pool_bytes; at += w.bytes) {
            w.part[0].data = pool + at;
            vibe_linear(&s, &y, &x, &w, VIBE_STORE, NULL);
        }
        start = (double)at / (vibe_clock_s() - start);
        best = start > best ? start : best;
    }
    vibe_tensor_release(&x, be);
    vibe_tensor_release(&y, be);
    vibe_stream_release(&s);
    return best;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        size_t N, K;
    } shapes[] = {
        {"1.5B qkv", 2048, 1536},  {"1.5B up", 17920, 1536},
        {"1.5B down", 1536, 8960}, {"7B up", 37888, 3584},
        {"7B down", 3584, 18944},
    };
    static const size_t rows[] = {1, 2, 4, 8, 20};
    struct vibe_backend_options options = {
        .threads = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 0,
    };
    struct vibe_error err;
    struct vibe_backend *be = NULL;
    char *pool = make_pool();
    double memory;

    if (!pool || vibe_backend_open(&be, &options, &err)) {
        fprintf(stderr, "bench_linear: %s\n", pool ? err.msg : "no memory");
        return 1;
    }
    memory = vibe_cpu_probe_bandwidth(options.threads ? options.threads
                                                      : vibe_cpu_threads());
    printf("%s; memory reads %.1f GB/s\n", be->name, memory / 1e9);
    for (enum vibe_dtype d = VIBE_F32; d <= VIBE_BF16_PACKED; d++)
        for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
            printf("%-8s %-10s", vibe_dtype_name(d), shapes[i].name);
            for (size_t r = 0; r < sizeof(rows) / sizeof(*rows); r++) {
                double rate = measure(be, pool, d, rows[r], shapes[i].N,
                                      shapes[i].K);

                printf("  M=%-2zu %5.1f GB/s %3.0f%%", rows[r], rate / 1e9,
                       100.0 * rate / memory);
                fflush(stdout);
            }
            printf("\n");
        }
    vibe_backend_free(be);
    munmap(pool, pool_bytes);
    return 0;
}
