#include "engine/format/weights.h"

#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/base/error.h"
#include "engine/base/team.h"
#include "engine/format/quant.h"
#include "engine/format/recode.h"
#include "engine/format/safetensors.h"
#include "engine/format/weights_table.h"

enum { MAX_DIMS = 4 };

/* "[2,3]", for messages. */
void vibe_weights_say_shape(char out[VIBE_WEIGHTS_SHAPE_BYTES],
                            const size_t *shape, size_t n)
{
    const size_t size = VIBE_WEIGHTS_SHAPE_BYTES;
    size_t at = (size_t)snprintf(out, size, "[");

    for (size_t i = 0; i < n && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, i ? ",%zu" : "%zu",
                               shape[i]);
    if (at < size)
        snprintf(out + at, size - at, "]");
}

/* Can it be a weight, which I8 and U8 are with scales or a header only? */
static int is_weight(const struct vibe_weights_entry *e)
{
    switch (e->dtype) {
    case VIBE_F32:
    case VIBE_BF16:
    case VIBE_F16:
    case VIBE_F8_E4M3:
        return e->tensor->is_known;
    case VIBE_I8:
        return e->scale != NULL;
    case VIBE_I4:
    case VIBE_BF16_PACKED:
        return 1;
    case VIBE_I64:
    case VIBE_U8:
        return 0;
    }
    return 0;
}

static int is_visited(const struct vibe_weights_entry *e)
{
    return is_weight(e) && e->n_dims <= MAX_DIMS && !vibe_weights_is_scale(e);
}

static int by_place(const void *a, const void *b)
{
    const struct vibe_weights_entry *x = *(struct vibe_weights_entry *const *)a;
    const struct vibe_weights_entry *y = *(struct vibe_weights_entry *const *)b;

    return x->place < y->place ? -1 : x->place > y->place;
}

/* List what vibe_weights_get visits, and count its bytes. */
static int build_visited(struct vibe_weights *w, struct vibe_error *err)
{
    size_t bytes[VIBE_U8 + 1] = {0};

    w->visited = calloc(w->n + 1, sizeof(struct vibe_weights_entry *));
    if (!w->visited)
        return vibe_weights_no_memory(w, err);
    for (size_t i = 0; i < w->n; i++) {
        struct vibe_weights_entry *e = &w->entries[i];

        if (!is_visited(e))
            continue;
        w->visited[w->n_visited++] = e;
        w->bytes += e->tensor->n_bytes; /* fits: the files do */
        bytes[e->dtype] += e->tensor->n_bytes;
    }
    if (w->n_visited == 0)
        return vibe_fail(err, VIBE_E_FORMAT, "%s: holds no weights", w->path);
    qsort(w->visited, w->n_visited, sizeof(struct vibe_weights_entry *),
          by_place);
    for (size_t d = 0; d <= VIBE_U8; d++)
        if (bytes[d] > bytes[w->dtype])
            w->dtype = (enum vibe_dtype)d;
    return VIBE_OK;
}

/* As far as it was made. */
static void release(struct vibe_weights *w)
{
    if (!w)
        return;
    for (size_t i = 0; i < w->n && w->entries; i++) {
        struct vibe_weights_entry *e = &w->entries[i];

        if (e->tensor && e->name != e->tensor->name)
            free((void *)(uintptr_t)e->name);
        free(e->scale);
        free(e->group_scale);
        free(e->blocks);
        vibe_recoded_release(&e->recoded);
    }
    for (size_t i = 0; i < w->n_files; i++)
        vibe_safetensors_free(w->files[i]);
    free(w->files);
    free(w->entries);
    free(w->visited);
    free(w->path);
    if (w->owners)
        pthread_mutex_destroy(&w->owners->lock);
    free(w->owners);
    free(w);
}

/* Of one; NULL without memory. */
static struct vibe_weights_owners *make_owners(void)
{
    struct vibe_weights_owners *owners = calloc(1, sizeof(*owners));

    if (!owners)
        return NULL;
    pthread_mutex_init(&owners->lock, NULL);
    owners->n = 1;
    return owners;
}

int vibe_weights_open(struct vibe_weights **out, const char *path,
                      struct vibe_error *err)
{
    struct vibe_weights *w = calloc(1, sizeof(*w));
    int rc;

    *out = NULL;
    if (w)
        w->path = strdup(path);
    if (w)
        w->owners = make_owners();
    if (!w || !w->path || !w->owners) {
        rc = vibe_fail(err, VIBE_E_NOMEM, "%s: no memory", path);
        goto out;
    }
    rc = vibe_weights_open_files(w, path, err);
    if (rc == VIBE_OK)
        rc = vibe_weights_list(w, err);
    if (rc == VIBE_OK)
        rc = vibe_weights_attach_scales(w, err);
    if (rc == VIBE_OK)
        rc = build_visited(w, err);
    if (rc != VIBE_OK)
        goto out;
    *out = w;
    w = NULL;

out:
    release(w);
    return rc;
}

struct vibe_weights *vibe_weights_share(struct vibe_weights *w)
{
    pthread_mutex_lock(&w->owners->lock);
    w->owners->n++;
    pthread_mutex_unlock(&w->owners->lock);
    return w;
}

/* Returns how many are left. */
static size_t leave(struct vibe_weights *w)
{
    size_t n;

    pthread_mutex_lock(&w->owners->lock);
    n = --w->owners->n;
    pthread_mutex_unlock(&w->owners->lock);
    return n;
}

void vibe_weights_free(struct vibe_weights *w)
{
    if (w && leave(w) == 0)
        release(w);
}

/* Describe an entry that is visited. */
static void describe(struct vibe_weight *out,
                     const struct vibe_weights_entry *e)
{
    const struct vibe_st_tensor *t = e->tensor;

    *out = (struct vibe_weight){
        .data = e->data,
        .dtype = e->dtype,
        .n_dims = e->n_dims,
        .n = e->n,
        .scale = e->scale,
        .n_scales = e->n_scales,
        .group = e->group,
        .group_scale = e->group_scale,
        .blocks = e->blocks,
        .name = t->name,
        .file = vibe_safetensors_path(e->file),
    };
    memcpy(out->shape, e->shape, sizeof(out->shape));
}

void vibe_weights_keep(struct vibe_weights *w, const char *prefix,
                       enum vibe_weight_dtype as)
{
    for (size_t i = 0; i < w->n_rules; i++)
        if (strcmp(w->rules[i].prefix, prefix) == 0) {
            w->rules[i].as = as;
            return;
        }
    assert(w->n_rules < VIBE_WEIGHTS_RULES);
    w->rules[w->n_rules++] = (struct vibe_weights_rule){prefix, as};
}

enum vibe_weight_dtype vibe_weights_kept(const struct vibe_weights *w,
                                         const char *name)
{
    for (size_t i = w->n_rules; i > 0; i--) {
        const struct vibe_weights_rule *rule = &w->rules[i - 1];

        if (strncmp(name, rule->prefix, strlen(rule->prefix)) == 0)
            return rule->as;
    }
    return VIBE_WEIGHTS_AUTO;
}

int vibe_weights_has(const struct vibe_weights *w, const char *name)
{
    return vibe_weights_find(w, name) != NULL;
}

static int has_shape(const struct vibe_weights_entry *e, const size_t *shape,
                     size_t n_dims)
{
    if (e->n_dims != n_dims)
        return 0;
    for (size_t i = 0; i < n_dims; i++)
        if (e->shape[i] != shape[i])
            return 0;
    return 1;
}

/* Find a tensor and hold it to a shape; NULL, with *rc set, if it is not so. */
static const struct vibe_weights_entry *need(const struct vibe_weights *w,
                                             const char *name,
                                             const size_t *shape, size_t n_dims,
                                             int *rc, struct vibe_error *err)
{
    const struct vibe_weights_entry *e = vibe_weights_find(w, name);
    const struct vibe_st_tensor *t = e ? e->tensor : NULL;
    char expected[VIBE_WEIGHTS_SHAPE_BYTES];
    char found[VIBE_WEIGHTS_SHAPE_BYTES];

    assert(n_dims <= MAX_DIMS);
    vibe_weights_say_shape(expected, shape, n_dims);
    if (!e) {
        *rc = vibe_fail(err, VIBE_E_FORMAT,
                        "%s: no tensor %s, expected one of shape %s", w->path,
                        name, expected);
        return NULL;
    }
    if (!is_weight(e)) {
        *rc = vibe_fail(err, VIBE_E_UNSUPPORTED,
                        "%s: tensor %s is %s, expected F32, BF16, F16, F8_E4M3 "
                        "or a kind with scales",
                        vibe_safetensors_path(e->file), t->name, t->dtype_name);
        return NULL;
    }
    if (!has_shape(e, shape, n_dims)) {
        vibe_weights_say_shape(found, e->shape, e->n_dims);
        *rc = vibe_fail(
            err, VIBE_E_FORMAT, "%s: tensor %s has shape %s, expected %s",
            vibe_safetensors_path(e->file), t->name, found, expected);
        return NULL;
    }
    *rc = VIBE_OK;
    return e;
}

int vibe_weights_need(const struct vibe_weights *w, struct vibe_weight *out,
                      const char *name, const size_t *shape, size_t n_dims,
                      struct vibe_error *err)
{
    int rc;
    const struct vibe_weights_entry *e = need(w, name, shape, n_dims, &rc, err);

    if (e)
        describe(out, e);
    return rc;
}

int vibe_weights_f32(const struct vibe_weights *w, float **out,
                     const char *name, const size_t *shape, size_t n_dims,
                     struct vibe_error *err)
{
    int rc;
    const struct vibe_weights_entry *e = need(w, name, shape, n_dims, &rc, err);
    float *x = NULL;
    size_t row;

    *out = NULL;
    if (!e)
        return rc;
    if (e->dtype == VIBE_I4 || e->dtype == VIBE_BF16_PACKED)
        return vibe_fail(err, VIBE_E_UNSUPPORTED,
                         "%s: tensor %s is %s, expected plain numbers",
                         vibe_safetensors_path(e->file), e->tensor->name,
                         vibe_dtype_name(e->dtype));
    if (e->tensor->n < SIZE_MAX / sizeof(*x))
        x = malloc((e->tensor->n + 1) * sizeof(*x)); /* n may be 0 */
    if (!x)
        return vibe_fail(err, VIBE_E_NOMEM, "%s: no memory for %s in f32",
                         vibe_safetensors_path(e->file), e->tensor->name);
    vibe_weights_widen(x, e->tensor);
    row = e->n_scales ? e->tensor->n / e->n_scales : 0;
    for (size_t i = 0; i < e->n_scales; i++)
        for (size_t k = 0; k < row; k++)
            x[i * row + k] *= e->scale[i];
    *out = x;
    return VIBE_OK;
}

int vibe_weights_scalar(const struct vibe_weights *w, const char *name,
                        float *out, struct vibe_error *err)
{
    const size_t one[] = {1};
    const struct vibe_weights_entry *e = vibe_weights_find(w, name);
    size_t n_dims = e && e->tensor->n_dims == 1 ? 1 : 0;
    float x = 0.0f;
    int rc;

    e = need(w, name, one, n_dims, &rc, err);
    if (!e)
        return rc;
    vibe_weights_widen(&x, e->tensor);
    if (!isfinite(x))
        return vibe_fail(err, VIBE_E_FORMAT,
                         "%s: tensor %s is %s, expected a finite number "
                         "(unfinished training?)",
                         vibe_safetensors_path(e->file), e->tensor->name,
                         isnan(x) ? "NaN" : "infinite");
    *out = x;
    return VIBE_OK;
}

int vibe_weights_recode(const struct vibe_weights *w,
                        struct vibe_weight *weight, const char *name,
                        enum vibe_dtype to, struct vibe_error *err)
{
    struct vibe_weights_entry *e = vibe_weights_find(w, name);
    struct vibe_recoded *r;
    int rc = VIBE_OK;

    assert(e);
    r = &e->recoded;
    pthread_mutex_lock(&w->owners->lock);
    if (!r->data || r->dtype != to) {
        vibe_recoded_release(r);
        rc = vibe_recode(r, weight, to, VIBE_QUANT_GROUP, vibe_team_size(),
                         err);
    }
    if (rc != VIBE_OK)
        vibe_recoded_release(r);
    pthread_mutex_unlock(&w->owners->lock);
    if (rc != VIBE_OK)
        return rc;
    weight->data = r->blocks ? (const char *)r->data + r->blocks[0]
                             : (const char *)r->data;
    weight->dtype = to;
    weight->scale = r->scale;
    weight->n_scales = r->scale ? weight->shape[0] : 0;
    weight->group = r->group;
    weight->group_scale = r->group_scale;
    weight->blocks = r->blocks;
    return VIBE_OK;
}

void vibe_weights_drop(const struct vibe_weights *w, const char *name)
{
    struct vibe_weights_entry *e = vibe_weights_find(w, name);

    pthread_mutex_lock(&w->owners->lock);
    if (e && w->owners->n == 1)
        vibe_recoded_release(&e->recoded);
    pthread_mutex_unlock(&w->owners->lock);
}

size_t vibe_weights_count(const struct vibe_weights *w)
{
    return w->n_visited;
}

void vibe_weights_get(const struct vibe_weights *w, size_t i,
                      struct vibe_weight *out)
{
    assert(i < w->n_visited);
    describe(out, w->visited[i]);
}

size_t vibe_weights_bytes(const struct vibe_weights *w)
{
    return w->bytes;
}

enum vibe_dtype vibe_weights_dtype(const struct vibe_weights *w)
{
    return w->dtype;
}

void vibe_weights_forget(const struct vibe_weights *w, const char *prefix)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const size_t n = strlen(prefix);

    for (size_t i = 0; i < w->n; i++) {
        const struct vibe_st_tensor *t = w->entries[i].tensor;
        uintptr_t begin = (uintptr_t)t->data / page * page;

        /* A neighbour that shares the first or last page reads it again from
         * the page cache: the mapping is private and never written. */
        if (t->n_bytes && strncmp(w->entries[i].name, prefix, n) == 0)
            madvise((void *)begin, (uintptr_t)t->data + t->n_bytes - begin,
                    MADV_DONTNEED);
    }
}
