#include "engine/format/safetensors.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/error.h"
#include "engine/base/size.h"
#include "engine/format/json_util.h"

enum {
    LENGTH_BYTES = 8,             /* of the header's length, little-endian */
    MAX_HEADER_BYTES = 100000000, /* as the reference implementation */
};

struct vibe_safetensors {
    char *path;
    const uint8_t *bytes;
    size_t n_bytes;
    void *mapping;                  /* NULL: bytes are borrowed */
    json_t *header;                 /* owns the names */
    struct vibe_st_tensor *tensors; /* by offset */
    const struct vibe_st_tensor **by_name;
    size_t n;
};

/* What safetensors files may hold; is_known: what we compute with. */
static const struct element {
    const char *name;
    unsigned bits;
    int is_known;
    enum vibe_dtype dtype;
} elements[] = {
    {"BF16", 16, 1, VIBE_BF16},      {"F32", 32, 1, VIBE_F32},
    {"F16", 16, 1, VIBE_F16},        {"F8_E4M3", 8, 1, VIBE_F8_E4M3},
    {"I64", 64, 1, VIBE_I64},        {"BOOL", 8, 0, VIBE_F32},
    {"U8", 8, 1, VIBE_U8},           {"I8", 8, 1, VIBE_I8},
    {"I16", 16, 0, VIBE_F32},        {"U16", 16, 0, VIBE_F32},
    {"I32", 32, 0, VIBE_F32},        {"U32", 32, 0, VIBE_F32},
    {"U64", 64, 0, VIBE_F32},        {"F64", 64, 0, VIBE_F32},
    {"C64", 64, 0, VIBE_F32},        {"F8_E5M2", 8, 0, VIBE_F32},
    {"F8_E8M0", 8, 0, VIBE_F32},     {"F8_E4M3FNUZ", 8, 0, VIBE_F32},
    {"F8_E5M2FNUZ", 8, 0, VIBE_F32}, {"F6_E2M3", 6, 0, VIBE_F32},
    {"F6_E3M2", 6, 0, VIBE_F32},     {"F4", 4, 0, VIBE_F32},
};

static const struct element *find_element(const char *name)
{
    for (size_t i = 0; i < sizeof(elements) / sizeof(*elements); i++)
        if (strcmp(elements[i].name, name) == 0)
            return &elements[i];
    return NULL;
}

/*
 * Two sizes that differ, in the unit of the larger ("1.2 GiB" and "0.9 GiB");
 * in bytes where a rounded number would hide the fact.
 */
static void format_sizes(char a[32], char b[32], size_t n_a, size_t n_b)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
    const size_t n_max = n_a > n_b ? n_a : n_b;
    double unit = 1024;
    size_t u = 0;

    while ((double)n_max >= 1000 * unit && u < 4) {
        unit *= 1024;
        u++;
    }
    snprintf(a, 32, "%.1f %s", (double)n_a / unit, units[u]);
    snprintf(b, 32, "%.1f %s", (double)n_b / unit, units[u]);
    if (n_max < 100000 || strcmp(a, b) == 0) {
        snprintf(a, 32, "%zu bytes", n_a);
        snprintf(b, 32, "%zu bytes", n_b);
    }
}

/* Fail about one tensor; what is a format without arguments of its own. */
static int bad_tensor(const struct vibe_safetensors *st, const char *name,
                      const char *what, const json_t *found,
                      struct vibe_error *err)
{
    char text[64];

    vibe_json_describe(text, sizeof(text), found);
    return vibe_fail(err, VIBE_E_FORMAT, "%s: tensor %.80s: %s, found %s",
                     st->path, name, what, text);
}

/* A dimension or offset: JSON integers are signed, sizes are not. */
static int read_size(size_t *out, const json_t *value)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return 1;
    *out = (size_t)json_integer_value(value);
    return 0;
}

/* Fill t's shape, n and n_bytes. */
static int read_shape(const struct vibe_safetensors *st,
                      struct vibe_st_tensor *t, const json_t *shape,
                      unsigned bits, struct vibe_error *err)
{
    size_t n_bits;

    if (!json_is_array(shape))
        return bad_tensor(st, t->name, "shape must be a list", shape, err);
    t->n_dims = json_array_size(shape);
    if (t->n_dims > VIBE_ST_MAX_DIMS)
        return vibe_fail(err, VIBE_E_UNSUPPORTED,
                         "%s: tensor %.80s: has %zu dimensions, at most %d are "
                         "understood",
                         st->path, t->name, t->n_dims, VIBE_ST_MAX_DIMS);
    t->n = 1;
    for (size_t d = 0; d < t->n_dims; d++) {
        if (read_size(&t->shape[d], json_array_get(shape, d)))
            return bad_tensor(st, t->name,
                              "shape must hold whole numbers from 0", shape,
                              err);
        if (vibe_size_mul(&t->n, t->n, t->shape[d]))
            return bad_tensor(st, t->name, "shape is too large", shape, err);
    }
    if (vibe_size_mul(&n_bits, t->n, bits))
        return bad_tensor(st, t->name, "shape is too large", shape, err);
    if (n_bits % 8 != 0)
        return bad_tensor(st, t->name, "shape does not fill whole bytes", shape,
                          err);
    t->n_bytes = n_bits / 8;
    return VIBE_OK;
}

/*
 * Check one entry of the header.  Data are still an offset afterwards: where
 * they point is decided once the order of all is known.
 */
static int read_tensor(const struct vibe_safetensors *st,
                       struct vibe_st_tensor *t, size_t *begin,
                       const json_t *entry, struct vibe_error *err)
{
    const json_t *dtype = json_object_get(entry, "dtype");
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const struct element *e = NULL;
    size_t end;
    int rc;

    if (!json_is_object(entry))
        return bad_tensor(st, t->name, "expected an object", entry, err);
    if (!json_is_string(dtype))
        return bad_tensor(st, t->name, "dtype must be a string", dtype, err);
    e = find_element(json_string_value(dtype));
    if (!e)
        return vibe_fail(err, VIBE_E_UNSUPPORTED,
                         "%s: tensor %.80s: unknown dtype '%.20s'", st->path,
                         t->name, json_string_value(dtype));
    t->dtype_name = e->name;
    t->is_known = e->is_known;
    t->dtype = e->dtype;
    rc = read_shape(st, t, json_object_get(entry, "shape"), e->bits, err);
    if (rc != VIBE_OK)
        return rc;
    if (json_array_size(offsets) != 2 ||
        read_size(begin, json_array_get(offsets, 0)) ||
        read_size(&end, json_array_get(offsets, 1)) || *begin > end)
        return bad_tensor(st, t->name,
                          "data_offsets must be [begin, end] with "
                          "0 <= begin <= end",
                          offsets, err);
    if (end - *begin != t->n_bytes) {
        char shape[64];

        vibe_json_describe(shape, sizeof(shape),
                           json_object_get(entry, "shape"));
        return vibe_fail(err, VIBE_E_FORMAT,
                         "%s: tensor %.80s: %s of %s takes %zu bytes, "
                         "data_offsets give it %zu",
                         st->path, t->name, shape, e->name, t->n_bytes,
                         end - *begin);
    }
    return VIBE_OK;
}

static int read_metadata(const struct vibe_safetensors *st, json_t *metadata,
                         struct vibe_error *err)
{
    const char *key;
    json_t *value;

    if (!json_is_object(metadata))
        return vibe_fail(err, VIBE_E_FORMAT, "%s: __metadata__ is no object",
                         st->path);
    json_object_foreach(metadata, key, value)
    {
        if (!json_is_string(value))
            return vibe_fail(err, VIBE_E_FORMAT,
                             "%s: __metadata__.%.80s is no string", st->path,
                             key);
    }
    return VIBE_OK;
}

/* Names are shown to people: control characters could drive their terminal. */
static int is_printable(const char *name)
{
    for (; *name; name++)
        if ((unsigned char)*name < 0x20 || *name == 0x7F)
            return 0;
    return 1;
}

/* A tensor before its data is placed. */
struct placed {
    struct vibe_st_tensor t;
    size_t begin;
};

static int by_offset(const void *a, const void *b)
{
    const struct placed *x = a;
    const struct placed *y = b;

    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    /* An empty tensor comes before the one that starts where it lies. */
    if (x->t.n_bytes != y->t.n_bytes)
        return x->t.n_bytes < y->t.n_bytes ? -1 : 1;
    return strcmp(x->t.name, y->t.name);
}

static int by_name(const void *a, const void *b)
{
    const struct vibe_st_tensor *const *x = a;
    const struct vibe_st_tensor *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

/* Hold the sorted tensors to the format: no hole, no overlap, no rest. */
static int check_layout(const struct vibe_safetensors *st,
                        const struct placed *placed, size_t n, size_t data,
                        struct vibe_error *err)
{
    size_t end = 0; /* fits 63 bits, as JSON integers do */

    for (size_t i = 0; i < n; i++) {
        const struct placed *p = &placed[i];

        if (p->begin < end)
            return vibe_fail(err, VIBE_E_FORMAT,
                             "%s: tensor %.80s overlaps %.80s", st->path,
                             p->t.name, placed[i - 1].t.name);
        if (p->begin > end)
            return vibe_fail(err, VIBE_E_FORMAT,
                             "%s: %zu bytes before tensor %.80s belong to none",
                             st->path, p->begin - end, p->t.name);
        end = p->begin + p->t.n_bytes;
    }
    if (data + end != st->n_bytes) {
        char says[32];
        char has[32];

        format_sizes(says, has, data + end, st->n_bytes);
        return vibe_fail(
            err, VIBE_E_FORMAT, "%s: header says %s, file has %s%s", st->path,
            says, has,
            data + end > st->n_bytes ? " (incomplete download?)" : "");
    }
    return VIBE_OK;
}

/* Read every entry of the header into placed[n], sorted by offset. */
static int read_entries(struct vibe_safetensors *st, struct placed *placed,
                        struct vibe_error *err)
{
    const char *name;
    json_t *entry;
    int rc = VIBE_OK;

    json_object_foreach(st->header, name, entry)
    {
        struct placed *p = &placed[st->n];

        if (strcmp(name, "__metadata__") == 0) {
            rc = read_metadata(st, entry, err);
        } else if (!is_printable(name)) {
            rc = vibe_fail(err, VIBE_E_FORMAT,
                           "%s: a tensor's name holds a control character",
                           st->path);
        } else {
            p->t.name = name;
            rc = read_tensor(st, &p->t, &p->begin, entry, err);
            st->n++;
        }
        if (rc != VIBE_OK)
            return rc;
    }
    qsort(placed, st->n, sizeof(*placed), by_offset);
    return VIBE_OK;
}

/* Fill the table of tensors from the parsed header; data start at byte data. */
static int build_table(struct vibe_safetensors *st, size_t data,
                       struct vibe_error *err)
{
    size_t capacity = json_object_size(st->header) + 1; /* never calloc(0) */
    struct placed *placed = calloc(capacity, sizeof(*placed));
    int rc;

    st->tensors = calloc(capacity, sizeof(*st->tensors));
    st->by_name = calloc(capacity, sizeof(*st->by_name));
    if (!placed || !st->tensors || !st->by_name) {
        rc = vibe_fail(err, VIBE_E_NOMEM, "%s: no memory for %zu tensors",
                       st->path, capacity);
        goto out;
    }
    rc = read_entries(st, placed, err);
    if (rc == VIBE_OK)
        rc = check_layout(st, placed, st->n, data, err);
    if (rc != VIBE_OK)
        goto out;
    for (size_t i = 0; i < st->n; i++) {
        st->tensors[i] = placed[i].t;
        st->tensors[i].data = st->bytes + data + placed[i].begin;
        st->by_name[i] = &st->tensors[i];
    }
    qsort(st->by_name, st->n, sizeof(*st->by_name), by_name);

out:
    free(placed);
    return rc;
}

/* Read the length that the file begins with, and hold it to the file. */
static int read_length(const struct vibe_safetensors *st, size_t *out,
                       struct vibe_error *err)
{
    uint64_t length = 0;

    if (st->n_bytes < LENGTH_BYTES)
        return vibe_fail(err, VIBE_E_FORMAT,
                         "%s: %zu bytes, too short for a safetensors file",
                         st->path, st->n_bytes);
    for (size_t i = LENGTH_BYTES; i-- > 0;)
        length = length << 8 | st->bytes[i];
    if (length > MAX_HEADER_BYTES)
        return vibe_fail(err, VIBE_E_FORMAT,
                         "%s: header of %" PRIu64 " bytes, at most %d are "
                         "allowed (not a safetensors file?)",
                         st->path, length, MAX_HEADER_BYTES);
    if (length > st->n_bytes - LENGTH_BYTES)
        return vibe_fail(err, VIBE_E_FORMAT,
                         "%s: header of %" PRIu64 " bytes, file has %zu "
                         "(incomplete download?)",
                         st->path, length, st->n_bytes);
    if (length == 0 || st->bytes[LENGTH_BYTES] != '{')
        return vibe_fail(err, VIBE_E_FORMAT,
                         "%s: header does not begin with '{' (not a "
                         "safetensors file?)",
                         st->path);
    *out = (size_t)length;
    return VIBE_OK;
}

int vibe_safetensors_parse(struct vibe_safetensors **out, const void *bytes,
                           size_t n, const char *path, struct vibe_error *err)
{
    struct vibe_safetensors *st = calloc(1, sizeof(*st));
    size_t length = 0;
    int rc;

    *out = NULL;
    if (st)
        st->path = strdup(path);
    if (!st || !st->path) {
        rc = vibe_fail(err, VIBE_E_NOMEM, "%s: no memory", path);
        goto out;
    }
    st->bytes = bytes;
    st->n_bytes = n;
    rc = read_length(st, &length, err);
    if (rc != VIBE_OK)
        goto out;
    rc = vibe_json_parse(&st->header, (const char *)bytes + LENGTH_BYTES,
                         length, path, err);
    if (rc != VIBE_OK)
        goto out;
    rc = build_table(st, LENGTH_BYTES + length, err);
    if (rc != VIBE_OK)
        goto out;
    *out = st;
    st = NULL;

out:
    vibe_safetensors_free(st);
    return rc;
}

int vibe_safetensors_open(struct vibe_safetensors **out, const char *path,
                          struct vibe_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    void *mapping = MAP_FAILED;
    struct stat st;
    int rc;

    *out = NULL;
    if (fd < 0 || fstat(fd, &st)) {
        rc = vibe_fail(err, VIBE_E_IO, "%s: %s", path, strerror(errno));
        goto out;
    }
    if (!S_ISREG(st.st_mode)) {
        rc = vibe_fail(err, VIBE_E_IO, "%s: not a regular file", path);
        goto out;
    }
    if (st.st_size == 0) {
        rc = vibe_fail(err, VIBE_E_FORMAT,
                       "%s: is empty (incomplete download?)", path);
        goto out;
    }
    mapping = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (mapping == MAP_FAILED) {
        rc = vibe_fail(err, errno == ENOMEM ? VIBE_E_NOMEM : VIBE_E_IO,
                       "%s: cannot map %lld bytes: %s", path,
                       (long long)st.st_size, strerror(errno));
        goto out;
    }
    rc = vibe_safetensors_parse(out, mapping, (size_t)st.st_size, path, err);
    if (*out) {
        (*out)->mapping = mapping;
        mapping = MAP_FAILED;
    }

out:
    if (mapping != MAP_FAILED)
        munmap(mapping, (size_t)st.st_size);
    if (fd >= 0)
        close(fd);
    return rc;
}

void vibe_safetensors_free(struct vibe_safetensors *st)
{
    if (!st)
        return;
    if (st->mapping)
        munmap(st->mapping, st->n_bytes);
    json_decref(st->header);
    free(st->tensors);
    free(st->by_name);
    free(st->path);
    free(st);
}

const char *vibe_safetensors_path(const struct vibe_safetensors *st)
{
    return st->path;
}

size_t vibe_safetensors_count(const struct vibe_safetensors *st)
{
    return st->n;
}

const struct vibe_st_tensor *vibe_safetensors_get(
    const struct vibe_safetensors *st, size_t i)
{
    assert(i < st->n);
    return &st->tensors[i];
}

const struct vibe_st_tensor *vibe_safetensors_find(
    const struct vibe_safetensors *st, const char *name)
{
    const struct vibe_st_tensor key = {.name = name};
    const struct vibe_st_tensor *key_ptr = &key;
    const struct vibe_st_tensor *const *hit = bsearch(
        &key_ptr, st->by_name, st->n, sizeof(*st->by_name), by_name);

    return hit ? *hit : NULL;
}
