/*
 * json.h - JSON objects for --json, a line each on standard output.
 *
 * Each setter checks its type, as json_pack() cannot.
 */
#ifndef VIBE_CLI_JSON_H
#define VIBE_CLI_JSON_H

#include <stddef.h>

struct json_t;

/* Set a member; text may be NULL (null), bytes not UTF-8 become '?'. */
void vibe_json_text(struct json_t *object, const char *key, const char *text);

/*
 * Set "file" to a path and, where that is not UTF-8, "file_bytes" to its bytes
 * in hexadecimal digits; the other finds the path again (owned, or NULL).
 */
void vibe_json_set_file(struct json_t *object, const char *path);
char *vibe_json_file(const struct json_t *object);

/* NaN and infinities become null: JSON has no word for them. */
void vibe_json_number(struct json_t *object, const char *key, double value);

void vibe_json_count(struct json_t *object, const char *key, size_t value);

void vibe_json_bool(struct json_t *object, const char *key, int value);

/* A string as a value of its own, as vibe_json_text would set it. */
struct json_t *vibe_json_string(const char *text);

/* Print an object on a line of standard output and release it. */
void vibe_json_print(struct json_t *object);

#endif /* VIBE_CLI_JSON_H */
