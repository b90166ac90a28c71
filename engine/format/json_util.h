/*
 * json_util.h - JSON objects out of untrusted files.
 *
 * Strict: UTF-8, no duplicate keys, nothing behind the object, and integers
 * that fit 64 bits.  What is found wrong is said with line and column.
 */
#ifndef VIBE_FORMAT_JSON_UTIL_H
#define VIBE_FORMAT_JSON_UTIL_H

#include <stddef.h>

struct json_t;
struct vibe_error;

/*
 * Parse an object.
 *
 *   out    set to the object, or to NULL on error; free with json_decref
 *   path   for messages
 *
 * Errors: VIBE_E_FORMAT
 */
int vibe_json_parse(struct json_t **out, const char *bytes, size_t n,
                    const char *path, struct vibe_error *err);

/*
 * Read and parse a file of at most 64 MiB.
 *
 * Errors: VIBE_E_IO, VIBE_E_NOMEM, VIBE_E_FORMAT; out is then NULL
 */
int vibe_json_read(struct json_t **out, const char *path,
                   struct vibe_error *err);

/* The value at a dotted path below root, or NULL; "" is root itself. */
const struct json_t *vibe_json_find(const struct json_t *root,
                                    const char *dotted);

/*
 * Describe a value for a message: short JSON without control characters,
 * or "nothing" for NULL.
 */
void vibe_json_describe(char *out, size_t size, const struct json_t *value);

#endif /* VIBE_FORMAT_JSON_UTIL_H */
