/*
 * wide_pair.cuh - how two blocks of threads of wide_block_async.cu share what
 * they have: before their products normed rows, behind them sums.
 */
#ifndef VIBE_CUDA_WIDE_PAIR_CUH
#define VIBE_CUDA_WIDE_PAIR_CUH

#include "engine/backend/cuda/block.cuh"
#include "engine/backend/cuda/boxes.cuh"
#include "engine/backend/cuda/products.cuh"

enum {
    C = 256,
    GROUP = 128,         /* threads that multiply together */
    THREADS = 2 * GROUP, /* of a block */
    CLUSTER = 2,
    WIDTH = C / 4, /* threads that mix a row */
    WARPS_OF_ROW = WIDTH / 32,
    RUN = 7, /* rows that they mix */
    ROWS = RUN * THREADS / WIDTH,
    COLUMNS = RUN + PAST,
    STRIP = CLUSTER * ROWS, /* columns of products */
    ROUNDS = 2,             /* of C hidden channels, of a block of threads */
    STEPS = C / 16,
    STEP_UNITS = C / UNITS, /* of a round */
    SLICE_UNITS = 4,        /* of a slice of W2 */
    LEAD_UNITS = 3,         /* that the first group begins with */
    HALVES = 2,             /* 64 outputs of a group, one after the other */
    AHEAD = 2,              /* units whose weights are in registers */
    EIGHT_ROWS = 16,        /* bytes of 8 channels of a row, or of 8 rows */
    HALF_STEP = STRIP * EIGHT_ROWS, /* bytes of 8 channels */
    NORMED = HALF_STEP + 16, /* of normed rows: lanes write to other banks */
    NORMED_BYTES = 4 * STEPS * NORMED,
    HIDDEN_BYTES = 4 * STEPS * HALF_STEP,
    MIXED_ROW = 4 * C + 16, /* bytes: lanes read other banks */
    MIXED_BYTES = ROWS * MIXED_ROW,
    SUMS = STRIP / 2, /* of a lane, of 64 outputs */
    EIGHTS = 4,       /* of columns, of which those of a strip are */
    SENT = HALVES * EIGHTS * THREADS * 16, /* bytes of a sum that are sent */
    /* of shared memory: gates, rows mixed, hidden channels, and normed rows,
     * whose place is then that of what the other block sends */
    MIXED_AT = 128,
    HIDDEN_AT = MIXED_AT + MIXED_BYTES,
    NORMED_AT = HIDDEN_AT + ROUNDS * HIDDEN_BYTES,
    SHARED = NORMED_AT + (NORMED_BYTES > 2 * SENT ? NORMED_BYTES : 2 * SENT),
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

__device__ static inline float4 four_of(const float *v)
{
    return make_float4(v[0], v[1], v[2], v[3]);
}

/* A block of threads and the other of its cluster, which has other hidden
 * channels of the rows of both. */
struct pair {
    unsigned char *bytes; /* shared memory */
    unsigned memory, rank;

    /* Gates: that the other's normed rows are there, what it sends, and that it
     * may be sent. */
    __device__ inline unsigned theirs(void) const
    {
        return memory;
    }

    __device__ inline unsigned mail(unsigned nth) const
    {
        return memory + 8 + nth * 8;
    }

    __device__ inline unsigned may_send(void) const
    {
        return memory + 24;
    }

    /* Where the normed rows of a block's strip are, as the first of a step. */
    __device__ inline unsigned normed(unsigned of) const
    {
        return memory + NORMED_AT + of * ROWS * EIGHT_ROWS;
    }

    __device__ inline void open(unsigned char *shared)
    {
        bytes = shared;
        memory = shared_address(shared);
        rank = blockIdx.x % CLUSTER;
        if (threadIdx.x == 0) {
            open_gate(theirs(), 1);
            open_gate(mail(0), 1);
            open_gate(mail(1), 1);
            open_gate(may_send(), THREADS / GROUP);
            show_gates();
            expect(theirs(), 4 * STEPS * ROWS * EIGHT_ROWS);
            expect(mail(0), SENT);
            expect(mail(1), SENT);
        }
        __syncthreads();
        reach_cluster();
    }

    /* Have all normed rows in both blocks, after the own are there. */
    __device__ inline void share_normed(void) const
    {
        show_stores();
        __syncthreads();
        join_cluster();
        if (threadIdx.x < 4 * STEPS)
            copy_across(normed(rank) + threadIdx.x * NORMED, ROWS * EIGHT_ROWS,
                        theirs(), rank ^ 1);
        wait_at(theirs(), 0);
        __syncwarp();
    }

    /* Where this thread finds an eight of the nth sum of the other's. */
    __device__ inline float4 *inbox(unsigned half, unsigned eight,
                                    unsigned nth) const
    {
        return (float4 *)(bytes + NORMED_AT + nth * SENT) +
               (half * EIGHTS + eight) * THREADS + threadIdx.x;
    }

    /* Send eights FIRST on of a sum. */
    template <unsigned FIRST>
    __device__ inline void send_sum(const float (&v)[HALVES][SUMS],
                                    unsigned nth) const
    {
        wait_at(may_send(), 0);
#pragma unroll
        for (unsigned half = 0; half < HALVES; half++)
#pragma unroll
            for (unsigned i = 0; i < EIGHTS; i++)
                send(inbox(half, i, nth), mail(nth), rank ^ 1,
                     four_of(v[half] + (FIRST + i) * 4));
    }

    __device__ inline void receive(void) const
    {
        wait_at(mail(0), 0);
        if (rank == 0)
            wait_at(mail(1), 0);
    }
};

#endif

#endif /* VIBE_CUDA_WIDE_PAIR_CUH */
