/*
 * async_feed.cuh - how weights and x of gemv_async.cu come to their warps.
 *
 * A team has four warps for every 64 outputs, which multiply, and one whose
 * first lane has tiles of woven x (split.cuh) and of weights copied to stages.
 * They wait for each other at gates, two for each stage.
 */
#ifndef VIBE_CUDA_ASYNC_FEED_CUH
#define VIBE_CUDA_ASYNC_FEED_CUH

#include "engine/backend/cuda/async.cuh"
#include "engine/backend/cuda/boxes.cuh"
#include "engine/backend/cuda/shared.cuh"
#include "engine/backend/cuda/walk.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* Where a thread is in its team: first come all that multiply, then those that
 * fetch. */
struct seat {
    unsigned team, thread;
    bool fetches;

    __device__ inline void open(const decode &a)
    {
        const unsigned first = __shfl_sync(0xFFFFFFFFu, threadIdx.x, 0);
        const unsigned n_multiply = 2 * a.outputs * a.teams;
        unsigned i = first, of_team = 2 * a.outputs;

        fetches = first >= n_multiply;
        if (fetches) {
            i -= n_multiply;
            of_team = 32;
        }
        team = i / of_team;
        thread = i - team * of_team + threadIdx.x % 32;
    }
};

/* Where a row of y lies, and of its gates. */
struct place {
    size_t y, gate;
};

/* A team's share of shared memory: stages, each x and then weights, where they
 * begin and how large they are; and a gate for each that is filled, behind
 * those one for each that is free. */
struct desk {
    unsigned stages, stage_bytes, gates;
    unsigned mail;           /* the gate for what others send */
    float4 *shelves, *inbox; /* of the block */
    place *places;           /* of its rows */

    __device__ inline void open(unsigned char *memory, const decode &a,
                                unsigned team)
    {
        const unsigned tables = a.teams * table_bytes(a.outputs);
        const unsigned sums = a.outputs * SUM_BYTES;
        unsigned char *all = memory + ATOM_BYTES;
        unsigned of_team;

        stage_bytes = stage_bytes_of(a.outputs);
        of_team = a.depth * stage_bytes;
        stages = shared_address(all + team * of_team);
        all += max(a.teams * of_team, tables);
        shelves = (float4 *)all;
        inbox = (float4 *)(all + a.teams * a.levels * sums);
        places = (place *)(memory + PLACES_AT);
        mail = shared_address(memory);
        gates = mail + 8 + team * 2 * GATES_BYTES;
    }

    /* By a thread for each row. */
    __device__ inline void find(const decode &a, unsigned i) const
    {
        const unsigned m = min(blockIdx.x * ASYNC_ROWS + i, a.n_rows - 1);

        places[i] = {row_at(a.e.y, a.e.T, m), row_at(a.e.gate, a.e.T, m)};
    }

    /* By one thread of the team.  Two have a stage filled. */
    __device__ inline void prepare(const decode &a, unsigned team) const
    {
        if (team == 0)
            open_gate(mail, 1);
        for (unsigned i = 0; i < a.depth; i++) {
            open_gate(gates + i * 8, 2);
            open_gate(gates + GATES_BYTES + i * 8, a.outputs / TILE_N);
        }
        show_gates();
    }
};

/* A stage, its gate, and the parity of that. */
struct turn {
    unsigned at, gate, parity;

    __device__ inline void open(const desk &of, unsigned first_parity)
    {
        at = of.stages;
        gate = of.gates;
        parity = first_parity;
    }

    __device__ inline void next(const desk &of, const decode &a)
    {
        at += of.stage_bytes;
        gate += 8;
        if (gate == of.gates + a.depth * 8)
            open(of, parity ^ 1);
    }
};

/* Tiles of a team on their way, by one thread. */
struct fetcher {
    const desk &of;
    const decode &a;
    const CUtensorMap *w, *x;
    unsigned first_n, first_m;

    __device__ inline void fetch_weights(const turn &to, unsigned tile) const
    {
        const unsigned rows = rows_of_go(a.outputs);

        expect(to.gate, a.outputs * TILE_K);
        for (unsigned n = 0; n < a.outputs; n += rows)
            copy_box(to.at + X_STAGE_BYTES + n * TILE_K, w, tile * BAND_WORDS,
                     (first_n + n) / TILE_N, to.gate);
    }

    __device__ inline void fetch_x(const turn &to, unsigned tile) const
    {
        expect(to.gate, X_STAGE_BYTES);
        copy_box(to.at, x, 0, first_m, 2 * tile, to.gate);
    }

    /* Weights of the first stages, before x is there. */
    __device__ inline void begin(unsigned team) const
    {
        walk way;
        turn to;

        way.open(a, team);
        to.open(of, 1);
        for (unsigned i = 0; i < a.depth && way.is_in(); i++) {
            fetch_weights(to, way.tile);
            way.next(a);
            to.next(of, a);
        }
    }

    /* All the rest; x was written another way. */
    __device__ inline void run(unsigned team) const
    {
        walk way;
        turn to;

        asm volatile("fence.proxy.async.global;" ::: "memory");
        way.open(a, team);
        to.open(of, 1);
        for (unsigned i = 0; way.is_in(); i++) {
            wait_at(to.gate + GATES_BYTES, to.parity);
            fetch_x(to, way.tile);
            if (i >= a.depth)
                fetch_weights(to, way.tile);
            way.next(a);
            to.next(of, a);
        }
    }
};

/* A lane's weights of a stage: those of its output, and of 8 outputs on. */
struct raw_weights {
    unsigned low[4], high[4];

    __device__ inline void read(unsigned at)
    {
        read_shared(low, at);
        read_shared(high, at + TILE_N / 2 * TILE_K);
    }

    /* As the rows of four products. */
    template <int dtype>
    __device__ inline void widen(unsigned pairs[4][4]) const
    {
#pragma unroll
        for (unsigned i = 0; i < 4; i++) {
            unsigned u[2], v[2];

            format<dtype>::expand4_small(u, low[i]);
            format<dtype>::expand4_small(v, high[i]);
            pairs[i][0] = u[0];
            pairs[i][1] = v[0];
            pairs[i][2] = u[1];
            pairs[i][3] = v[1];
        }
    }
};

#endif

#endif /* VIBE_CUDA_ASYNC_FEED_CUH */
