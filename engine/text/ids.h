/*
 * ids.h - a growing list of token ids.
 *
 * An all-zero struct is an empty list.
 */
#ifndef VIBE_TEXT_IDS_H
#define VIBE_TEXT_IDS_H

#include <stddef.h>
#include <stdint.h>

struct vibe_error;

struct vibe_ids {
    int32_t *ids; /* owned */
    size_t n;
    size_t cap;
};

/*
 * Make room for n more ids.
 *
 * Errors: VIBE_E_NOMEM; the list is as before.
 */
int vibe_ids_reserve(struct vibe_ids *list, size_t n, struct vibe_error *err);

/*
 * Append one id.
 *
 * Errors: VIBE_E_NOMEM; the list is as before.
 */
int vibe_ids_push(struct vibe_ids *list, int32_t id, struct vibe_error *err);

/* Free the memory; the list is then empty and may be used again. */
void vibe_ids_release(struct vibe_ids *list);

#endif /* VIBE_TEXT_IDS_H */
