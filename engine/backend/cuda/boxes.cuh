/*
 * boxes.cuh - what comes to shared memory on its own on sm_90a: boxes of a
 * matrix, bytes, and what blocks of a cluster send each other.
 *
 * Who waits for it waits at a gate, which is open once so many have arrived and
 * all bytes that they expect are there.
 */
#ifndef VIBE_CUDA_BOXES_CUH
#define VIBE_CUDA_BOXES_CUH

#include <cudaTypedefs.h>

#include "engine/backend/cuda/shared.cuh"
#include "engine/backend/cuda/weights.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* By one thread, for n to arrive. */
__device__ static inline void open_gate(unsigned gate, unsigned n)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(gate), "r"(n)
                 : "memory");
}

/* By who has opened gates: all of a cluster may use them once they have met. */
__device__ static inline void show_gates(void)
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

/* By one lane for its warp. */
__device__ static inline void arrive_at(unsigned gate)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(gate)
                 : "memory");
}

__device__ static inline void wait_at(unsigned gate, unsigned parity)
{
    unsigned is_open;

    do
        asm volatile("{.reg .pred is_open; "
                     "mbarrier.try_wait.parity.shared::cta.b64 is_open, [%1], "
                     "%2; selp.u32 %0, 1, 0, is_open;}"
                     : "=r"(is_open)
                     : "r"(gate), "r"(parity)
                     : "memory");
    while (!is_open);
}

/* By one thread, which arrives: so many bytes are to come. */
__device__ static inline void expect(unsigned gate, unsigned bytes)
{
    asm volatile(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(gate),
        "r"(bytes)
        : "memory");
}

/* Copy a box of a map, which begins at column and row. */
__device__ static inline void copy_box(unsigned to, const CUtensorMap *map,
                                       unsigned column, unsigned row,
                                       unsigned gate)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile."
                 "mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], "
                 "[%4];" ::"r"(to),
                 "l"(map), "r"(column), "r"(row), "r"(gate)
                 : "memory");
}

/* The same of a map of three dimensions. */
__device__ static inline void copy_box(unsigned to, const CUtensorMap *map,
                                       unsigned column, unsigned row,
                                       unsigned slab, unsigned gate)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile."
                 "mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], "
                 "[%5];" ::"r"(to),
                 "l"(map), "r"(column), "r"(row), "r"(slab), "r"(gate)
                 : "memory");
}

/* Copy n bytes, a multiple of 16, to where another block of the cluster has
 * what this one has there, and count them at the gate there. */
__device__ static inline void copy_across(unsigned from, unsigned n,
                                          unsigned gate, unsigned block)
{
    asm volatile(
        "{.reg .u32 far, counts; mapa.shared::cluster.u32 far, %0, %3; "
        "mapa.shared::cluster.u32 counts, %2, %3; "
        "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::"
        "bytes [far], [%0], %1, [counts];}" ::"r"(from),
        "r"(n), "r"(gate), "r"(block)
        : "memory");
}

/* Copy n bytes, a multiple of 16, to both blocks of a cluster of two, and count
 * them at the gates of both. */
__device__ static inline void spread_bytes(unsigned to, const void *from,
                                           unsigned n, unsigned gate)
{
    const unsigned short both = 3;

    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes."
        "multicast::cluster [%0], [%1], %2, [%3], %4;" ::"r"(to),
        "l"(from), "r"(n), "r"(gate), "h"(both)
        : "memory");
}

/* Put v where another block has what this one has at p, likewise. */
__device__ static inline void send(const float4 *p, unsigned gate,
                                   unsigned block, const float4 &v)
{
    asm volatile(
        "{.reg .u32 far, counts; mapa.shared::cluster.u32 far, %4, %6; "
        "mapa.shared::cluster.u32 counts, %5, %6; "
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 "
        "[far], {%0, %1, %2, %3}, [counts];}" ::"f"(v.x),
        "f"(v.y), "f"(v.z), "f"(v.w), "r"(shared_address(p)), "r"(gate),
        "r"(block)
        : "memory");
}

/* Arrive at the gate of another block. */
__device__ static inline void arrive_across(unsigned gate, unsigned block)
{
    asm volatile(
        "{.reg .u32 far; mapa.shared::cluster.u32 far, %0, %1; "
        "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [far];}" ::"r"(
            gate),
        "r"(block)
        : "memory");
}

/* Let the cluster know that this block's gates are open; and wait until all
 * are. */
__device__ static inline void reach_cluster(void)
{
    asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}

__device__ static inline void join_cluster(void)
{
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

#endif

/* As launch_waiting, two blocks that follow each other as a cluster. */
static inline cudaError_t launch_pairs(const void *kernel, dim3 grid,
                                       unsigned threads, size_t shared,
                                       cudaStream_t stream, void *args)
{
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attributes[2] = {};
    void *list[] = {args};

    attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[0].val.programmaticStreamSerializationAllowed = 1;
    attributes[1].id = cudaLaunchAttributeClusterDimension;
    attributes[1].val.clusterDim.x = 2;
    attributes[1].val.clusterDim.y = attributes[1].val.clusterDim.z = 1;
    config.gridDim = grid;
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = shared;
    config.stream = stream;
    config.attrs = attributes;
    config.numAttrs = 2;
    return cudaLaunchKernelExC(&config, kernel, list);
}

/* The driver's cuTensorMapEncodeTiled, or NULL. */
static inline PFN_cuTensorMapEncodeTiled_v12000 encoder(void)
{
    void *found = NULL;
    enum cudaDriverEntryPointQueryResult status;

    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found,
                                         12000, cudaEnableDefault,
                                         &status) != cudaSuccess)
        return NULL;
    return (PFN_cuTensorMapEncodeTiled_v12000)found;
}

/* Elements in rank dimensions, bytes from one to the next of all but the first,
 * as boxes. */
static inline cudaError_t map_boxes(CUtensorMap *map, CUtensorMapDataType type,
                                    const void *data, unsigned rank,
                                    const cuuint64_t *sizes,
                                    const cuuint64_t *strides,
                                    const cuuint32_t *box,
                                    CUtensorMapSwizzle swizzle)
{
    const cuuint32_t steps[] = {1, 1, 1};
    const PFN_cuTensorMapEncodeTiled_v12000 encode = encoder();

    if (!encode || encode(map, type, rank, (void *)data, sizes, strides, box,
                          steps, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
                          CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                          CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) != CUDA_SUCCESS)
        return cudaErrorInvalidValue;
    return cudaSuccess;
}

#endif /* VIBE_CUDA_BOXES_CUH */
