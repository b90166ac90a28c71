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
#include "engine/base/size.h"

enum { N_PLANS = 32 };

/* How the library multiplies one shape: as it would the whole matrix, without
 * sums split over K, so that a piece of it gets the same bits. */
struct lt_plan {
    size_t M, N, K, whole_N, stride; /* of y */
    enum vibe_dtype dtype;           /* of y */
    int has_bias;
    cublasLtMatrixLayout_t w, x, y;
    cublasLtMatmulAlgo_t algo;
    int is_refused; /* there is no such algorithm */
};

struct vibe_cuda_lt {
    void *library; /* NULL where there is none */
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t product[2]; /* without and with a bias */
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

/* W transposed times x, in float. */
static int make_product(struct vibe_cuda_lt *lt, cublasLtMatmulDesc_t *product,
                        cublasLtEpilogue_t epilogue)
{
    const cublasOperation_t transposed = CUBLAS_OP_T;

    return lt->desc_create(product, CUBLAS_COMPUTE_32F, CUDA_R_32F) ||
           lt->desc_set(*product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                        sizeof(transposed)) ||
           lt->desc_set(*product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                        sizeof(epilogue));
}

static int prefer(struct vibe_cuda_lt *lt,
                  cublasLtMatmulPreferenceAttributes_t what, const void *value,
                  size_t size)
{
    return lt->preference_set(lt->preference, what, value, size);
}

static int make_preference(struct vibe_cuda_lt *lt)
{
    const uint64_t workspace = VIBE_CUDA_LT_WORKSPACE;
    const uint32_t unsplit = CUBLASLT_REDUCTION_SCHEME_NONE;
    const uint32_t alignment = VIBE_CUDA_LT_ALIGNMENT;

    return lt->preference_create(&lt->preference) ||
           prefer(lt, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                  sizeof(workspace)) ||
           prefer(lt, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &unsplit,
                  sizeof(unsplit)) ||
           prefer(lt, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &alignment,
                  sizeof(alignment)) ||
           prefer(lt, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &alignment,
                  sizeof(alignment));
}

static int make_handle(struct vibe_cuda_lt *lt)
{
    return lt->create(&lt->handle) ||
           make_product(lt, &lt->product[0], CUBLASLT_EPILOGUE_DEFAULT) ||
           make_product(lt, &lt->product[1], CUBLASLT_EPILOGUE_BIAS) ||
           make_preference(lt);
}

static void close_library(struct vibe_cuda_lt *lt)
{
    if (lt->preference)
        lt->preference_destroy(lt->preference);
    for (size_t i = 0; i < 2; i++)
        if (lt->product[i])
            lt->desc_destroy(lt->product[i]);
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
                        size_t N, size_t stride)
{
    const cudaDataType_t y = plan->dtype == VIBE_BF16 ? CUDA_R_16BF
                                                      : CUDA_R_32F;
    int64_t K = (int64_t)plan->K;

    return lt->layout_create(&plan->w, CUDA_R_16BF, plan->K, N, K) ||
           lt->layout_create(&plan->x, CUDA_R_16BF, plan->K, plan->M, K) ||
           lt->layout_create(&plan->y, y, N, plan->M, (int64_t)stride);
}

/* Choose as for the whole matrix. */
static int make_plan(struct vibe_cuda_lt *lt, struct lt_plan *plan)
{
    cublasLtMatmulHeuristicResult_t found;
    int n = 0;

    if (make_layouts(lt, plan, plan->whole_N,
                     vibe_size_round(plan->whole_N, 16)) ||
        lt->find_algo(lt->handle, lt->product[plan->has_bias], plan->w, plan->x,
                      plan->y, plan->y, lt->preference, 1, &found, &n) ||
        n == 0)
        return 1;
    plan->algo = found.algo;
    release_layouts(lt, plan);
    return make_layouts(lt, plan, plan->N, plan->stride);
}

static int is_plan_for(const struct lt_plan *plan, const struct lt_plan *wanted)
{
    return plan->M == wanted->M && plan->N == wanted->N &&
           plan->K == wanted->K && plan->whole_N == wanted->whole_N &&
           plan->stride == wanted->stride && plan->dtype == wanted->dtype &&
           plan->has_bias == wanted->has_bias;
}

static const struct lt_plan *plan_for(struct vibe_cuda_lt *lt,
                                      const struct lt_plan *wanted)
{
    struct lt_plan *plan;

    for (size_t i = 0; i < N_PLANS; i++)
        if (is_plan_for(&lt->plans[i], wanted))
            return &lt->plans[i];
    plan = &lt->plans[lt->n_plans++ % N_PLANS];
    release_layouts(lt, plan);
    *plan = *wanted;
    plan->is_refused = make_plan(lt, plan);
    return plan;
}

int vibe_cuda_lt_multiply(struct vibe_cuda *cuda,
                          const struct vibe_cuda_lt_output *y, const void *x,
                          size_t M, const struct vibe_matrix *w,
                          void *workspace)
{
    const float one = 1.0f;
    const float kept = y->is_added ? 1.0f : 0.0f;
    struct vibe_cuda_lt *lt = cuda->lt;
    const struct lt_plan wanted = {
        .M = M,
        .N = w->N,
        .K = vibe_cuda_stride(w->K),
        .whole_N = w->whole_N,
        .stride = y->stride,
        .dtype = y->dtype,
        .has_bias = y->bias != NULL,
    };
    const struct lt_plan *plan = plan_for(lt, &wanted);
    const cublasLtMatmulDesc_t product = lt->product[wanted.has_bias];

    if (plan->is_refused ||
        (y->bias && lt->desc_set(product, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                 &y->bias, sizeof(const void *))))
        return 1;
    return lt->matmul(lt->handle, product, &one, w->part[0].data, plan->w, x,
                      plan->x, &kept, y->data, plan->y, y->data, plan->y,
                      &plan->algo, workspace, VIBE_CUDA_LT_WORKSPACE,
                      cuda->compute) != CUBLAS_STATUS_SUCCESS;
}
