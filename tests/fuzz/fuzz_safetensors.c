/*
 * Any bytes as a .safetensors file: it opens and every tensor lies inside it,
 * or it is refused with a sentence.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/format/names.h"
#include "engine/format/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Crash where what must hold does not, also without assertions. */
static void must(int fact)
{
    if (!fact)
        abort();
}

static void check_tensor(const struct vibe_safetensors *st,
                         const struct vibe_st_tensor *t, const uint8_t *data,
                         size_t size)
{
    const uint8_t *at = t->data;
    char name[128];

    must(at >= data + 8 && at <= data + size);
    must(t->n_bytes <= size - (size_t)(at - data));
    must(t->n_dims <= VIBE_ST_MAX_DIMS);
    must(!t->is_known || t->n * vibe_dtype_size(t->dtype) == t->n_bytes);
    must(vibe_safetensors_find(st, t->name) == t);
    if (vibe_names_original(name, sizeof(name), t->name) == 0)
        must(strlen(name) < sizeof(name));
}

static void try_file(const uint8_t *data, size_t size)
{
    struct vibe_safetensors *st;
    struct vibe_error err = {0};
    int rc = vibe_safetensors_parse(&st, data, size, "fuzz", &err);

    must((rc == VIBE_OK) == (st != NULL));
    must((rc == VIBE_OK) == (err.msg[0] == '\0'));
    if (!st)
        return;
    for (size_t i = 0; i < vibe_safetensors_count(st); i++)
        check_tensor(st, vibe_safetensors_get(st, i), data, size);
    vibe_safetensors_free(st);
}

/*
 * Once as it is, and once with the length set to where the last '}' is: few
 * mutations of a header keep its length right.
 */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *last = memrchr(data, '}', size);
    uint8_t *fixed = NULL;

    try_file(data, size);
    if (!last || last < data + 8)
        return 0;
    fixed = malloc(size);
    must(fixed != NULL);
    memcpy(fixed, data, size);
    for (size_t i = 0; i < 8; i++)
        fixed[i] = (uint8_t)((size_t)(last - data - 7) >> (8 * i));
    try_file(fixed, size);
    free(fixed);
    return 0;
}
