#include "engine/text/ids.h"

#include <stdlib.h>

#include "engine/base/error.h"
#include "engine/base/size.h"

enum { FIRST_CAP = 64 };

int vibe_ids_reserve(struct vibe_ids *list, size_t n, struct vibe_error *err)
{
    size_t cap = 2 * list->cap;
    size_t need, bytes;
    int32_t *grown;

    if (n <= list->cap - list->n)
        return VIBE_OK;
    if (vibe_size_add(&need, list->n, n))
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for %zu token ids", n);
    if (cap < FIRST_CAP)
        cap = FIRST_CAP;
    if (cap < need)
        cap = need;
    if (vibe_size_mul(&bytes, cap, sizeof(*grown)))
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for %zu token ids", n);
    grown = realloc(list->ids, bytes);
    if (!grown)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for %zu token ids", n);

    list->ids = grown;
    list->cap = cap;
    return VIBE_OK;
}

int vibe_ids_push(struct vibe_ids *list, int32_t id, struct vibe_error *err)
{
    int rc = vibe_ids_reserve(list, 1, err);

    if (rc)
        return rc;
    list->ids[list->n++] = id;
    return VIBE_OK;
}

void vibe_ids_release(struct vibe_ids *list)
{
    free(list->ids);
    *list = (struct vibe_ids){0};
}
