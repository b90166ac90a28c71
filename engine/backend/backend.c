/* Opening and closing, memory, streams and views; ops are in ops.c. */
#include "engine/backend/backend.h"

#include <assert.h>
#include <stdlib.h>

#include "engine/backend/cpu/cpu.h"
#include "engine/backend/cuda.h"
#include "engine/backend/ops.h"
#include "engine/base/size.h"

int vibe_backend_open(struct vibe_backend **out,
                      const struct vibe_backend_options *options,
                      struct vibe_error *err)
{
    *out = NULL;
    if (options->want_cuda)
        return vibe_cuda_open(out, options, err);
    return vibe_cpu_open(out, options, err);
}

void vibe_backend_free(struct vibe_backend *be)
{
    if (be)
        be->ops->close(be);
}

int vibe_stream_init(struct vibe_stream *s, struct vibe_backend *be,
                     struct vibe_error *err)
{
    *s = (struct vibe_stream){.be = be};
    return be->ops->stream_init(s, err);
}

void vibe_stream_release(struct vibe_stream *s)
{
    if (s->be)
        s->be->ops->stream_release(s);
    *s = (struct vibe_stream){0};
}

int vibe_stream_check(struct vibe_stream *s, struct vibe_error *err)
{
    int code;

    s->be->ops->sync(s);
    code = s->err.code;
    if (code && err)
        *err = s->err;
    s->err = (struct vibe_error){0};
    return code;
}

int vibe_tensor_init(struct vibe_tensor *t, struct vibe_backend *be,
                     enum vibe_dtype dtype, size_t B, size_t T, size_t C,
                     struct vibe_error *err)
{
    size_t bytes = vibe_dtype_size(dtype);

    *t = (struct vibe_tensor){
        .dtype = dtype,
        .B = B,
        .T = T,
        .C = C,
        .stride_b = T * C,
        .stride_t = C,
    };
    if (!vibe_size_mul(&bytes, bytes, B) && !vibe_size_mul(&bytes, bytes, T) &&
        !vibe_size_mul(&bytes, bytes, C))
        t->data = be->ops->alloc(be, bytes ? bytes : 1);
    if (!t->data)
        return vibe_fail(err, VIBE_E_NOMEM,
                         "%s: no memory for a tensor of %zu x %zu x %zu %s",
                         be->name, B, T, C, vibe_dtype_name(dtype));
    return VIBE_OK;
}

void vibe_tensor_release(struct vibe_tensor *t, struct vibe_backend *be)
{
    if (t->data)
        be->ops->free(be, t->data);
    *t = (struct vibe_tensor){0};
}

/* The part of t that starts at an element. */
static struct vibe_tensor view(const struct vibe_tensor *t, size_t element)
{
    struct vibe_tensor v = *t;

    v.data = (char *)t->data + element * vibe_dtype_size(t->dtype);
    return v;
}

struct vibe_tensor vibe_tensor_rows(const struct vibe_tensor *t, size_t first,
                                    size_t T)
{
    struct vibe_tensor v = view(t, first * t->stride_t);

    assert(first + T <= t->T);
    v.T = T;
    return v;
}

struct vibe_tensor vibe_tensor_batch(const struct vibe_tensor *t, size_t first,
                                     size_t B)
{
    struct vibe_tensor v = view(t, first * t->stride_b);

    assert(first + B <= t->B);
    v.B = B;
    return v;
}

struct vibe_tensor vibe_tensor_channels(const struct vibe_tensor *t,
                                        size_t first, size_t C)
{
    struct vibe_tensor v = view(t, first);

    assert(first + C <= t->C);
    v.C = C;
    return v;
}

struct vibe_tensor vibe_tensor_broadcast(const struct vibe_tensor *t, size_t B)
{
    struct vibe_tensor v = *t;

    assert(t->B == 1);
    v.B = B;
    v.stride_b = 0;
    return v;
}

int vibe_matrix_load(struct vibe_matrix *m, struct vibe_backend *be,
                     const struct vibe_matrix_source *src,
                     struct vibe_error *err)
{
    size_t rows = 0;

    assert(src->n_parts >= 1 && src->n_parts <= VIBE_MATRIX_PARTS);
    assert(src->layout == VIBE_LAYOUT_LINEAR || src->n_parts == 1);
    assert(!src->is_pair || (src->n_parts == 2 && src->N % 2 == 0));
    if (src->layout == VIBE_LAYOUT_CONV)
        assert(src->in && src->K % src->in == 0);
    if (src->layout == VIBE_LAYOUT_CONV_TRANSPOSE)
        assert(src->K == 2 * src->in && src->out && src->N % src->out == 0);
    for (int i = 0; i < src->n_parts; i++)
        rows += src->part[i].n;
    assert(src->layout == VIBE_LAYOUT_CONV_TRANSPOSE || rows == src->N);
    (void)rows;

    *m = (struct vibe_matrix){0};
    return be->ops->matrix_load(m, be, src, err);
}

void vibe_matrix_release(struct vibe_matrix *m, struct vibe_backend *be)
{
    if (m->N)
        be->ops->matrix_release(m, be);
    *m = (struct vibe_matrix){0};
}
