/*
 * lt.c - cuBLASLt, looked for when it is first wanted.
 *
 * The program does not link it: a machine without the library runs the
 * kernels of gemm.cu instead.
 */
#include <cublasLt.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/backend/cuda/matrix.h"

enum { N_PLANS = 32 };

/* How the library multiplies one shape: as it would the whole matrix, without
 * sums split over K, so that a piece of it gets the same bits. */
struct lt_plan {
    size_t M, N, K, whole_N;
    cublasLtMatrixLayout_t w, x, y;
    cublasLtMatmulAlgo_t algo;
    int is_refused; /* there is no such algorithm */
};

struct vibe_cuda_lt {
    void *library; /* NULL where there is none */
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t product;
    cublasLtMatmulPreference_t preference;
    struct lt_plan plans[N_PLANS];
    size_t n_plans; /* ever made; plan i is plans[i % N_PLANS] */

    __typeof__(cublasLtCreate) *create;
    __typeof__(cublasLtDestroy) *destroy;
    __typeof__(cublasLtMatmulDescCreate) *desc_create;
    __typeof__(cublasLtMatmulDescDestroy) *desc_destroy;
    __typeof__(cublasLtMatmulDescSetAttribute) *desc_set;
    __typeof__(cublasLtMatmulPreferenceCreate) *preference_create;
    __typeof__(cublasLtMatmulPreferenceDestroy) *preference_destroy;
    __typeof__(cublasLtMatmulPreferenceSetAttribute) *preference_set;
    __typeof__(cublasLtMatrixLayoutCreate) *layout_create;
    __typeof__(cublasLtMatrixLayoutDestroy) *layout_destroy;
    __typeof__(cublasLtMatmulAlgoGetHeuristic) *find_algo;
    __typeof__(cublasLtMatmul) *matmul;
};

/* Set the function pointer at function; returns 1 where there is none. */
static int find(void *library, void *function, const char *name)
{
    void *symbol = dlsym(library, name);

    memcpy(function, &symbol, sizeof(symbol));
    return !symbol;
}

static int find_functions(struct vibe_cuda_lt *lt)
{
    void *so = lt->library;

    return find(so, &lt->create, "cublasLtCreate") ||
           find(so, &lt->destroy, "cublasLtDestroy") ||
           find(so, &lt->desc_create, "cublasLtMatmulDescCreate") ||
           find(so, &lt->desc_destroy, "cublasLtMatmulDescDestroy") ||
           find(so, &lt->desc_set, "cublasLtMatmulDescSetAttribute") ||
           find(so, &lt->preference_create, "cublasLtMatmulPreferenceCreate") ||
           find(so, &lt->preference_destroy,
                "cublasLtMatmulPreferenceDestroy") ||
           find(so, &lt->preference_set,
                "cublasLtMatmulPreferenceSetAttribute") ||
           find(so, &lt->layout_create, "cublasLtMatrixLayoutCreate") ||
           find(so, &lt->layout_destroy, "cublasLtMatrixLayoutDestroy") ||
           find(so, &lt->find_algo, "cublasLtMatmulAlgoGetHeuristic") ||
           find(so, &lt->matmul, "cublasLtMatmul");
}

/* A handle, and W transposed times x with float sums. */
static int make_handle(struct vibe_cuda_lt *lt)
{
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const uint64_t workspace = VIBE_CUDA_LT_WORKSPACE;
    const uint32_t unsplit = CUBLASLT_REDUCTION_SCHEME_NONE;

    return lt->create(&lt->handle) ||
           lt->desc_create(&lt->product, CUBLAS_COMPUTE_32F, CUDA_R_32F) ||
           lt->desc_set(lt->product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                        sizeof(transposed)) ||
           lt->preference_create(&lt->preference) ||
           lt->preference_set(lt->preference,
                              CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                              &workspace, sizeof(workspace)) ||
           lt->preference_set(lt->preference,
                              CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                              &unsplit, sizeof(unsplit));
}

static void close_library(struct vibe_cuda_lt *lt)
{
    if (lt->preference)
        lt->preference_destroy(lt->preference);
    if (lt->product)
        lt->desc_destroy(lt->product);
    if (lt->handle)
        lt->destroy(lt->handle);
    dlclose(lt->library);
    lt->library = NULL;
}

/* It was looked for once, so this is said once. */
static void tell_of_absence(const struct vibe_cuda *cuda, const char *what)
{
    char sentence[128];

    snprintf(sentence, sizeof(sentence),
             "libcublasLt.so.13 or .12: %s; prompts are read more slowly",
             what);
    if (cuda->notice.tell)
        cuda->notice.tell(cuda->notice.user, sentence);
}

int vibe_cuda_lt_is_there(struct vibe_cuda *cuda)
{
    static const char *const names[] = {"libcublasLt.so.13",
                                        "libcublasLt.so.12"};

    if (cuda->lt)
        return cuda->lt->library != NULL;
    cuda->lt = calloc(1, sizeof(*cuda->lt));
    if (!cuda->lt)
        return 0;
    for (size_t i = 0; i < 2 && !cuda->lt->library; i++)
        cuda->lt->library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!cuda->lt->library) {
        tell_of_absence(cuda, "not found");
        return 0;
    }
    if (!find_functions(cuda->lt) && !make_handle(cuda->lt))
        return 1;
    close_library(cuda->lt);
    tell_of_absence(cuda, "does not work");
    return 0;
}

static void release_layouts(const struct vibe_cuda_lt *lt, struct lt_plan *plan)
{
    if (plan->w)
        lt->layout_destroy(plan->w);
    if (plan->x)
        lt->layout_destroy(plan->x);
    if (plan->y)
        lt->layout_destroy(plan->y);
    plan->w = plan->x = plan->y = NULL;
}

void vibe_cuda_lt_free(struct vibe_cuda *cuda)
{
    struct vibe_cuda_lt *lt = cuda->lt;

    if (lt && lt->library) {
        for (size_t i = 0; i < N_PLANS; i++)
            release_layouts(lt, &lt->plans[i]);
        close_library(lt);
    }
    free(lt);
    cuda->lt = NULL;
}

/* The library counts columns first: y [N x M] = W [K x N]^T x [K x M]. */
static int make_layouts(const struct vibe_cuda_lt *lt, struct lt_plan *plan,
                        size_t N)
{
    int64_t K = (int64_t)plan->K;

    return lt->layout_create(&plan->w, CUDA_R_16BF, plan->K, N, K) ||
           lt->layout_create(&plan->x, CUDA_R_16BF, plan->K, plan->M, K) ||
           lt->layout_create(&plan->y, CUDA_R_32F, N, plan->M, (int64_t)N);
}

/* Choose as for the whole matrix. */
static int make_plan(struct vibe_cuda_lt *lt, struct lt_plan *plan)
{
    cublasLtMatmulHeuristicResult_t found;
    int n = 0;

    if (make_layouts(lt, plan, plan->whole_N) ||
        lt->find_algo(lt->handle, lt->product, plan->w, plan->x, plan->y,
                      plan->y, lt->preference, 1, &found, &n) ||
        n == 0)
        return 1;
    plan->algo = found.algo;
    if (plan->N == plan->whole_N)
        return 0;
    release_layouts(lt, plan);
    return make_layouts(lt, plan, plan->N);
}

static const struct lt_plan *plan_for(struct vibe_cuda_lt *lt, size_t M,
                                      const struct vibe_matrix *w)
{
    const size_t K = vibe_cuda_stride(w->K);
    struct lt_plan *plan;

    for (size_t i = 0; i < N_PLANS; i++) {
        plan = &lt->plans[i];
        if (plan->M == M && plan->N == w->N && plan->K == K &&
            plan->whole_N == w->whole_N)
            return plan;
    }
    plan = &lt->plans[lt->n_plans++ % N_PLANS];
    release_layouts(lt, plan);
    *plan = (struct lt_plan){
        .M = M,
        .N = w->N,
        .K = K,
        .whole_N = w->whole_N,
    };
    plan->is_refused = make_plan(lt, plan);
    return plan;
}

int vibe_cuda_lt_multiply(struct vibe_cuda *cuda, float *sums, const void *x,
                          size_t M, const struct vibe_matrix *w,
                          void *workspace)
{
    const float one = 1.0f;
    const float zero = 0.0f;
    struct vibe_cuda_lt *lt = cuda->lt;
    const struct lt_plan *plan = plan_for(lt, M, w);

    if (plan->is_refused)
        return 1;
    return lt->matmul(lt->handle, lt->product, &one, w->part[0].data, plan->w,
                      x, plan->x, &zero, sums, plan->y, sums, plan->y,
                      &plan->algo, workspace, VIBE_CUDA_LT_WORKSPACE,
                      cuda->compute) != CUBLAS_STATUS_SUCCESS;
}
