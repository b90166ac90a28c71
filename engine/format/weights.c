#include "engine/format/weights.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/error.h"
#include "engine/base/team.h"
#include "engine/format/index.h"
#include "engine/format/names.h"
#include "engine/format/pack.h"
#include "engine/format/quant.h"
#include "engine/format/recode.h"
#include "engine/format/safetensors.h"

enum { MAX_NAME = 512, MAX_DIMS = 4 };

/* A tensor of one of the files. */
struct entry {
    const char *name; /* original; owned only if it is not the tensor's */
    const struct vibe_st_tensor *tensor;
    const struct vibe_safetensors *file;
    size_t place;          /* in the order of the files */
    enum vibe_dtype dtype; /* what its bytes are */
    size_t n_dims, shape[VIBE_ST_MAX_DIMS], n;
    const void *data;
    float *scale; /* owned */
    size_t n_scales;
    float *group_scale; /* owned */
    size_t group;
    uint64_t *blocks;            /* owned */
    struct vibe_recoded recoded; /* data NULL: not yet */
};

/* What matrices of some names are asked to be kept as. */
struct rule {
    const char *prefix;
    enum vibe_weight_dtype as;
};

enum { MAX_RULES = 8 };

/* Those who share what was opened. */
struct owners {
    pthread_mutex_t lock; /* also of what is recoded */
    size_t n;
};

struct vibe_weights {
    char *path;
    struct vibe_safetensors **files;
    size_t n_files;
    struct entry *entries; /* by name */
    size_t n;
    struct entry **visited; /* in the order of the files */
    size_t n_visited;
    size_t bytes; /* of those visited */
    enum vibe_dtype dtype;
    struct rule rules[MAX_RULES];
    size_t n_rules;
    struct owners *owners; /* owned */
};

static int no_memory(const struct vibe_weights *w, struct vibe_error *err)
{
    return vibe_fail(err, VIBE_E_NOMEM, "%s: no memory for its tables",
                     w->path);
}

/* "[2,3]", for messages. */
static void format_shape(char *out, size_t size, const size_t *shape, size_t n)
{
    size_t at = (size_t)snprintf(out, size, "[");

    for (size_t i = 0; i < n && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, i ? ",%zu" : "%zu",
                               shape[i]);
    if (at < size)
        snprintf(out + at, size - at, "]");
}

static int is_float(const struct vibe_st_tensor *t)
{
    return t->is_known && t->dtype <= VIBE_F8_E4M3;
}

/* Can it be a weight, which I8 and U8 are with scales or a header only? */
static int is_weight(const struct entry *e)
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

static int ends_with(const char *text, const char *tail)
{
    size_t n = strlen(text);
    size_t m = strlen(tail);

    return n >= m && strcmp(text + n - m, tail) == 0;
}

static int by_name(const void *a, const void *b)
{
    const struct entry *x = a;
    const struct entry *y = b;

    return strcmp(x->name, y->name);
}

static struct entry *find(const struct vibe_weights *w, const char *name)
{
    const struct entry key = {.name = name};

    return bsearch(&key, w->entries, w->n, sizeof(key), by_name);
}

/*
 * Widen n values to f32.  Through a small buffer: data may lie at any address,
 * and vibe_dtype_to_f32 takes elements where they belong.
 */
static void widen(float *out, const struct vibe_st_tensor *t)
{
    const size_t size = vibe_dtype_size(t->dtype);
    const char *in = t->data;
    _Alignas(16) char chunk[8192];
    const size_t step = sizeof(chunk) / size;

    for (size_t i = 0; i < t->n; i += step) {
        size_t n = t->n - i < step ? t->n - i : step;

        memcpy(chunk, in + i * size, n * size);
        vibe_dtype_to_f32(out + i, chunk, t->dtype, n);
    }
}

/* Open one file and append it. */
static int add_file(struct vibe_weights *w, const char *path,
                    struct vibe_error *err)
{
    int rc = vibe_safetensors_open(&w->files[w->n_files], path, err);

    if (rc == VIBE_OK)
        w->n += vibe_safetensors_count(w->files[w->n_files++]);
    return rc;
}

/* Every tensor that the index lists must be in the shard it names. */
static int check_index(const struct vibe_weights *w,
                       const struct vibe_index *index, struct vibe_error *err)
{
    for (size_t i = 0; i < index->n_entries; i++) {
        const struct vibe_index_entry *e = &index->entries[i];

        if (!vibe_safetensors_find(w->files[e->shard], e->name))
            return vibe_fail(err, VIBE_E_FORMAT,
                             "%s: has no tensor %.80s, which the index says "
                             "is there",
                             vibe_safetensors_path(w->files[e->shard]),
                             e->name);
    }
    return VIBE_OK;
}

/* Open the shards of an index; dir is the folder they are in. */
static int open_shards(struct vibe_weights *w, const char *dir,
                       const char *index_path, struct vibe_error *err)
{
    struct vibe_index index = {0};
    char *path = NULL;
    int rc = vibe_index_read(&index, index_path, err);

    if (rc != VIBE_OK)
        return rc;
    w->files = calloc(index.n_shards, sizeof(struct vibe_safetensors *));
    if (!w->files) {
        rc = no_memory(w, err);
        goto out;
    }
    for (size_t i = 0; i < index.n_shards && rc == VIBE_OK; i++) {
        if (asprintf(&path, "%s/%s", dir, index.shards[i]) < 0) {
            rc = no_memory(w, err);
            goto out;
        }
        if (access(path, F_OK) != 0 && errno == ENOENT)
            rc = vibe_fail(err, VIBE_E_IO, "%s: missing shard", path);
        else
            rc = add_file(w, path, err);
        free(path);
    }
    if (rc == VIBE_OK)
        rc = check_index(w, &index, err);

out:
    vibe_index_release(&index);
    return rc;
}

static int open_single(struct vibe_weights *w, const char *path,
                       struct vibe_error *err)
{
    w->files = calloc(1, sizeof(struct vibe_safetensors *));
    return w->files ? add_file(w, path, err) : no_memory(w, err);
}

/* Open the files of a folder; the single one first, as transformers does. */
static int open_folder(struct vibe_weights *w, const char *dir,
                       struct vibe_error *err)
{
    char *single = NULL;
    char *index = NULL;
    int rc;

    if (asprintf(&single, "%s/model.safetensors", dir) < 0 ||
        asprintf(&index, "%s/model.safetensors.index.json", dir) < 0)
        rc = no_memory(w, err);
    else if (access(index, F_OK) == 0)
        rc = open_shards(w, dir, index, err);
    else if (access(single, F_OK) == 0)
        rc = open_single(w, single, err);
    else
        rc = vibe_fail(err, VIBE_E_IO,
                       "%s: no model.safetensors and no "
                       "model.safetensors.index.json",
                       dir);
    free(single);
    free(index);
    return rc;
}

static int open_files(struct vibe_weights *w, const char *path,
                      struct vibe_error *err)
{
    struct stat st;

    if (stat(path, &st))
        return vibe_fail(err, VIBE_E_IO, "%s: %s", path, strerror(errno));
    return S_ISDIR(st.st_mode) ? open_folder(w, path, err)
                               : open_single(w, path, err);
}

/* Point e at a tensor, under its original name. */
static int name_entry(struct entry *e, const struct vibe_st_tensor *t)
{
    char name[MAX_NAME];

    e->tensor = t;
    e->name = t->name;
    e->dtype = t->dtype;
    e->n_dims = t->n_dims;
    memcpy(e->shape, t->shape, sizeof(e->shape));
    e->n = t->n;
    e->data = t->data;
    /* What is too long to rename is nothing that we would ask for. */
    if (vibe_names_original(name, sizeof(name), t->name) == 0 &&
        strcmp(name, t->name) != 0)
        e->name = strdup(name);
    return e->name ? VIBE_OK : VIBE_E_NOMEM;
}

/* List the tensors of all files, sorted by name. */
static int build_entries(struct vibe_weights *w, struct vibe_error *err)
{
    struct entry *e;

    w->entries = calloc(w->n + 1, sizeof(*w->entries)); /* never calloc(0) */
    if (!w->entries)
        return no_memory(w, err);
    e = w->entries;
    for (size_t i = 0; i < w->n_files; i++)
        for (size_t k = 0; k < vibe_safetensors_count(w->files[i]); k++, e++) {
            e->file = w->files[i];
            e->place = (size_t)(e - w->entries);
            if (name_entry(e, vibe_safetensors_get(w->files[i], k)))
                return no_memory(w, err);
        }
    qsort(w->entries, w->n, sizeof(*w->entries), by_name);
    for (size_t i = 1; i < w->n; i++) {
        const struct entry *a = &w->entries[i - 1];

        e = &w->entries[i];
        if (strcmp(a->name, e->name) == 0)
            return vibe_fail(err, VIBE_E_FORMAT,
                             "%s: tensor %.60s is there twice, also as %.60s "
                             "in %s",
                             vibe_safetensors_path(e->file), e->tensor->name,
                             a->tensor->name, vibe_safetensors_path(a->file));
    }
    return VIBE_OK;
}

/* Widened scales; NULL with *rc set where there is no memory or one is not
 * finite. */
static float *read_scales(const struct vibe_weights *w,
                          const struct entry *from, int *rc,
                          struct vibe_error *err)
{
    const struct vibe_st_tensor *t = from->tensor;
    float *scale = malloc((t->n + 1) * sizeof(*scale)); /* n may be 0 */

    if (!scale) {
        *rc = no_memory(w, err);
        return NULL;
    }
    widen(scale, t);
    for (size_t i = 0; i < t->n; i++)
        if (!isfinite(scale[i])) {
            *rc = vibe_fail(err, VIBE_E_FORMAT,
                            "%s: %.80s holds %g, expected finite scales",
                            vibe_safetensors_path(from->file), t->name,
                            (double)scale[i]);
            free(scale);
            return NULL;
        }
    *rc = VIBE_OK;
    return scale;
}

/* Scales of groups make bytes a matrix of int4. */
static int attach_groups(struct vibe_weights *w, const struct entry *scale,
                         struct entry *e, struct vibe_error *err)
{
    const struct vibe_st_tensor *t = scale->tensor;
    const size_t K = 2 * e->shape[1];
    int rc;

    if (t->shape[1] && K % t->shape[1] == 0)
        e->group = K / t->shape[1];
    if (t->shape[0] != e->shape[0] || K % VIBE_QUANT_GROUP ||
        (e->group != VIBE_QUANT_GROUP && e->group != VIBE_QUANT_GROUP_LARGE))
        return vibe_fail(err, VIBE_E_FORMAT,
                         "%s: %.80s has shape [%zu,%zu], expected a scale for "
                         "every 64 or 128 of [%zu,%zu] int4",
                         vibe_safetensors_path(scale->file), t->name,
                         t->shape[0], t->shape[1], e->shape[0], K);
    e->group_scale = read_scales(w, scale, &rc, err);
    e->dtype = VIBE_I4;
    e->shape[1] = K;
    e->n *= 2;
    return rc;
}

/* Give the weight beside a scale_weight its scale; others have none. */
static int attach_scale(struct vibe_weights *w, const struct entry *scale,
                        struct vibe_error *err)
{
    const struct vibe_st_tensor *t = scale->tensor;
    const char *file = vibe_safetensors_path(scale->file);
    char name[MAX_NAME];
    struct entry *e = NULL;
    size_t rows;
    int rc;

    if (snprintf(name, sizeof(name), "%.*s.weight",
                 (int)(strlen(scale->name) - strlen(".scale_weight")),
                 scale->name) < (int)sizeof(name))
        e = find(w, name);
    if (!e)
        return VIBE_OK;
    rows = e->n_dims ? e->shape[0] : 1;
    if (e->tensor->is_known && e->dtype == VIBE_U8 && is_float(t) &&
        e->n_dims == 2 && t->n_dims == 2)
        return attach_groups(w, scale, e, err);
    if (!is_float(t))
        return vibe_fail(err, VIBE_E_UNSUPPORTED,
                         "%s: %.80s is %s, expected a float", file, t->name,
                         t->dtype_name);
    if (t->n != 1 && !(t->n == rows && t->n_dims && t->shape[0] == rows))
        return vibe_fail(err, VIBE_E_FORMAT,
                         "%s: %.80s has %zu values, expected 1 or [%zu]", file,
                         t->name, t->n, rows);
    e->n_scales = t->n;
    e->scale = read_scales(w, scale, &rc, err);
    return rc;
}

/* Bytes that begin as packed bf16 does must be that. */
static int attach_blocks(struct vibe_weights *w, struct entry *e,
                         struct vibe_error *err)
{
    const struct vibe_st_tensor *t = e->tensor;
    struct vibe_pack_header header = {0};
    size_t n_blocks;
    char name[MAX_NAME];
    int rc;

    if (!t->is_known || t->dtype != VIBE_U8 || t->n_dims != 1 ||
        t->n_bytes < sizeof(header) || !ends_with(e->name, ".weight"))
        return VIBE_OK;
    memcpy(&header, t->data, sizeof(header));
    if (header.magic != VIBE_PACK_MAGIC)
        return VIBE_OK;
    snprintf(name, sizeof(name), "%s: %.80s", vibe_safetensors_path(e->file),
             t->name);
    rc = vibe_pack_check(t->data, t->n_bytes, header.n_rows, header.n_columns,
                         name, err);
    if (rc != VIBE_OK)
        return rc;
    n_blocks = vibe_pack_n_blocks(header.n_rows);
    e->blocks = malloc((n_blocks + 1) * sizeof(*e->blocks));
    if (!e->blocks)
        return no_memory(w, err);
    memcpy(e->blocks, (const char *)t->data + sizeof(header),
           (n_blocks + 1) * sizeof(*e->blocks));
    e->dtype = VIBE_BF16_PACKED;
    e->n_dims = 2;
    e->shape[0] = header.n_rows;
    e->shape[1] = header.n_columns;
    e->n = e->shape[0] * e->shape[1]; /* fits: 11 bits of each do */
    e->data = vibe_pack_block_at(t->data, 0);
    return VIBE_OK;
}

static int attach_scales(struct vibe_weights *w, struct vibe_error *err)
{
    int rc = VIBE_OK;

    for (size_t i = 0; i < w->n && rc == VIBE_OK; i++)
        if (ends_with(w->entries[i].name, ".scale_weight"))
            rc = attach_scale(w, &w->entries[i], err);
        else
            rc = attach_blocks(w, &w->entries[i], err);
    return rc;
}

static int is_visited(const struct entry *e)
{
    return is_weight(e) && e->n_dims <= MAX_DIMS &&
           !ends_with(e->name, ".scale_weight");
}

static int by_place(const void *a, const void *b)
{
    const struct entry *x = *(struct entry *const *)a;
    const struct entry *y = *(struct entry *const *)b;

    return x->place < y->place ? -1 : x->place > y->place;
}

/* List what vibe_weights_get visits, and count its bytes. */
static int build_visited(struct vibe_weights *w, struct vibe_error *err)
{
    size_t bytes[VIBE_U8 + 1] = {0};

    w->visited = calloc(w->n + 1, sizeof(struct entry *));
    if (!w->visited)
        return no_memory(w, err);
    for (size_t i = 0; i < w->n; i++) {
        struct entry *e = &w->entries[i];

        if (!is_visited(e))
            continue;
        w->visited[w->n_visited++] = e;
        w->bytes += e->tensor->n_bytes; /* fits: the files do */
        bytes[e->dtype] += e->tensor->n_bytes;
    }
    if (w->n_visited == 0)
        return vibe_fail(err, VIBE_E_FORMAT, "%s: holds no weights", w->path);
    qsort(w->visited, w->n_visited, sizeof(struct entry *), by_place);
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
        struct entry *e = &w->entries[i];

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
static struct owners *make_owners(void)
{
    struct owners *owners = calloc(1, sizeof(*owners));

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
    rc = open_files(w, path, err);
    if (rc == VIBE_OK)
        rc = build_entries(w, err);
    if (rc == VIBE_OK)
        rc = attach_scales(w, err);
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
static void describe(struct vibe_weight *out, const struct entry *e)
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
    assert(w->n_rules < MAX_RULES);
    w->rules[w->n_rules++] = (struct rule){prefix, as};
}

enum vibe_weight_dtype vibe_weights_kept(const struct vibe_weights *w,
                                         const char *name)
{
    for (size_t i = w->n_rules; i > 0; i--) {
        const struct rule *rule = &w->rules[i - 1];

        if (strncmp(name, rule->prefix, strlen(rule->prefix)) == 0)
            return rule->as;
    }
    return VIBE_WEIGHTS_AUTO;
}

int vibe_weights_has(const struct vibe_weights *w, const char *name)
{
    return find(w, name) != NULL;
}

static int has_shape(const struct entry *e, const size_t *shape, size_t n_dims)
{
    if (e->n_dims != n_dims)
        return 0;
    for (size_t i = 0; i < n_dims; i++)
        if (e->shape[i] != shape[i])
            return 0;
    return 1;
}

/* Find a tensor and hold it to a shape; NULL, with *rc set, if it is not so. */
static const struct entry *need(const struct vibe_weights *w, const char *name,
                                const size_t *shape, size_t n_dims, int *rc,
                                struct vibe_error *err)
{
    const struct entry *e = find(w, name);
    const struct vibe_st_tensor *t = e ? e->tensor : NULL;
    char expected[112];
    char found[112];

    assert(n_dims <= MAX_DIMS);
    format_shape(expected, sizeof(expected), shape, n_dims);
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
        format_shape(found, sizeof(found), e->shape, e->n_dims);
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
    const struct entry *e = need(w, name, shape, n_dims, &rc, err);

    if (e)
        describe(out, e);
    return rc;
}

int vibe_weights_f32(const struct vibe_weights *w, float **out,
                     const char *name, const size_t *shape, size_t n_dims,
                     struct vibe_error *err)
{
    int rc;
    const struct entry *e = need(w, name, shape, n_dims, &rc, err);
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
    widen(x, e->tensor);
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
    const struct entry *e = find(w, name);
    size_t n_dims = e && e->tensor->n_dims == 1 ? 1 : 0;
    float x = 0.0f;
    int rc;

    e = need(w, name, one, n_dims, &rc, err);
    if (!e)
        return rc;
    widen(&x, e->tensor);
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
    struct entry *e = find(w, name);
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
    struct entry *e = find(w, name);

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
