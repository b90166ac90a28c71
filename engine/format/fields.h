/*
 * fields.h - numbers and choices out of a JSON document, by dotted path.
 *
 * The first thing found wrong latches: later calls do nothing and return 0,
 * so a schema reads as a list and is checked once at its end.  Messages name
 * the file, the path, what was found and what was expected.
 *
 * A key that is absent or null is missing; its fallback is taken, and where
 * the fallback is 0 the key is required.
 */
#ifndef VIBE_FORMAT_FIELDS_H
#define VIBE_FORMAT_FIELDS_H

#include <stddef.h>

struct json_t;
struct vibe_error;

struct vibe_fields {
    const struct json_t *root; /* borrowed */
    const char *path;          /* of the file; borrowed */
    struct vibe_error *err;    /* may be NULL */
    int rc;                    /* VIBE_OK, or what latched */
};

/* Bounds, both included. */
struct vibe_size_range {
    size_t lo, hi;
};
struct vibe_real_range {
    double lo, hi;
};

/* Is there a value that is not null?  section may be "" or dotted. */
int vibe_fields_has(const struct vibe_fields *f, const char *section,
                    const char *key);

/* Latch "path: section.key: found X, expected Y" with a code. */
void vibe_fields_refuse(struct vibe_fields *f, int code, const char *section,
                        const char *key, const char *expected);

/* Require an object. */
void vibe_fields_section(struct vibe_fields *f, const char *section);

/* A whole number; a fractional one is refused even if it is 3.0. */
size_t vibe_fields_size(struct vibe_fields *f, const char *section,
                        const char *key, struct vibe_size_range range,
                        size_t fallback);

double vibe_fields_real(struct vibe_fields *f, const char *section,
                        const char *key, struct vibe_real_range range,
                        double fallback);

int vibe_fields_bool(struct vibe_fields *f, const char *section,
                     const char *key, int fallback);

/*
 * Read a list of whole numbers, or a string of them joined by dashes.
 * Returns their count, at most max; 0 if the key is missing.
 */
size_t vibe_fields_list(struct vibe_fields *f, const char *section,
                        const char *key, struct vibe_size_range range,
                        size_t *out, size_t max);

/*
 * Refuse, as VIBE_E_UNSUPPORTED, any value but the one that the model code
 * computes; a missing key is that one.
 */
void vibe_fields_only_bool(struct vibe_fields *f, const char *section,
                           const char *key, int only);
void vibe_fields_only_real(struct vibe_fields *f, const char *section,
                           const char *key, double only);
/* Up to two spellings; b may be NULL. */
void vibe_fields_only_text(struct vibe_fields *f, const char *section,
                           const char *key, const char *a, const char *b);

#endif /* VIBE_FORMAT_FIELDS_H */
