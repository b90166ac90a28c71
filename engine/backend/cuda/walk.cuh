/*
 * walk.cuh - the way of a team through the tiles of wide products.
 *
 * gemv_wide.cu and gemv_async.cu give a row the same bits because both go this
 * way: the order of slices is the order of sums.
 */
#ifndef VIBE_CUDA_WALK_CUH
#define VIBE_CUDA_WALK_CUH

#include "engine/backend/cuda/decode.cuh"

#if __CUDA_ARCH__ >= 800

/* The tiles of a team: those of its slices, one slice after the other in the
 * order in which each can be added to what is there.  Teams, parts and slices
 * are powers of two. */
struct walk {
    unsigned first, stride, n_visits; /* slices */
    unsigned visit, tile;

    __device__ inline void open(const decode &a, unsigned team)
    {
        first = team * a.parts + blockIdx.y % a.parts;
        stride = a.teams * a.parts;
        n_visits = a.slices >> (__ffs(stride) - 1);
        tile = first;
        visit = tile < a.n_tiles ? 0 : n_visits;
    }

    __device__ inline bool is_in(void) const
    {
        return visit < n_visits;
    }

    /* Tiles that the first team of the block has more. */
    __device__ inline unsigned lag(const decode &a, unsigned team) const
    {
        const unsigned rest = a.n_tiles & (a.slices - 1);
        unsigned n = 0;

        for (unsigned s = first; s < first + a.slices; s += stride)
            n += s >= rest && s - team * a.parts < rest;
        return n;
    }

    /* Tiles of the slice, from this one on. */
    __device__ inline unsigned left(const decode &a) const
    {
        return (a.n_tiles - tile + a.slices - 1) >> (__ffs(a.slices) - 1);
    }

    /* Returns whether a slice has ended. */
    __device__ inline bool next(const decode &a)
    {
        tile += a.slices;
        if (tile < a.n_tiles)
            return false;
        visit++;
        tile = first + stride * (__brev(visit) >> 1 >> __clz(n_visits));
        return true;
    }
};

#endif

#endif /* VIBE_CUDA_WALK_CUH */
