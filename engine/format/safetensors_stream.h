/*
 * safetensors_stream.h - a .safetensors file written tensor by tensor.
 *
 * What a header says is known only at the end, so room is left for it.  The
 * file is written under a temporary name and gets its own when it is whole.
 */
#ifndef VIBE_FORMAT_SAFETENSORS_STREAM_H
#define VIBE_FORMAT_SAFETENSORS_STREAM_H

#include <stddef.h>

#include "engine/format/safetensors_write.h"

struct vibe_error;
struct vibe_safetensors_stream;

/*
 * Begin a file.
 *
 *   out        set to the stream, or to NULL on error; end it with _finish or
 *              _abandon
 *   max_items  tensors that will be added, at most, and
 *   max_names  bytes of their names together
 *
 * Errors: VIBE_E_IO, VIBE_E_NOMEM
 */
int vibe_safetensors_stream_open(struct vibe_safetensors_stream **out,
                                 const char *path, size_t max_items,
                                 size_t max_names, struct vibe_error *err);

/* Append a tensor of item->n_dims axes; Errors: VIBE_E_IO, VIBE_E_NOMEM. */
int vibe_safetensors_stream_add(struct vibe_safetensors_stream *s,
                                const struct vibe_safetensors_item *item,
                                struct vibe_error *err);

/*
 * Write the header and give the file its name.  Ends the stream in any case.
 *
 *   note   what the file's __metadata__ says under "vibevoice"
 *
 * Errors: VIBE_E_IO, VIBE_E_NOMEM; nothing is left behind
 */
int vibe_safetensors_stream_finish(struct vibe_safetensors_stream *s,
                                   const char *note, struct vibe_error *err);

/* End the stream and remove what was written; NULL is allowed. */
void vibe_safetensors_stream_abandon(struct vibe_safetensors_stream *s);

#endif /* VIBE_FORMAT_SAFETENSORS_STREAM_H */
