#include "engine/format/fields.h"

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/format/json_util.h"

/* The value of section.key, or NULL if it is absent or null. */
static const json_t *find(const struct vibe_fields *f, const char *section,
                          const char *key)
{
    const json_t *object = vibe_json_find(f->root, section);
    const json_t *value = json_object_get(object, key);

    return json_is_null(value) ? NULL : value;
}

int vibe_fields_has(const struct vibe_fields *f, const char *section,
                    const char *key)
{
    return find(f, section, key) != NULL;
}

void vibe_fields_refuse(struct vibe_fields *f, int code, const char *section,
                        const char *key, const char *expected)
{
    char found[48];

    if (f->rc != VIBE_OK)
        return;
    vibe_json_describe(found, sizeof(found), find(f, section, key));
    f->rc = vibe_fail(f->err, code, "%s: %s%s%s: found %s, expected %s",
                      f->path, section, *section ? "." : "", key, found,
                      expected);
}

void vibe_fields_section(struct vibe_fields *f, const char *section)
{
    if (f->rc == VIBE_OK && !json_is_object(vibe_json_find(f->root, section)))
        vibe_fields_refuse(f, VIBE_E_FORMAT, "", section, "an object");
}

static void refuse_size(struct vibe_fields *f, const char *section,
                        const char *key, struct vibe_size_range range,
                        const char *what)
{
    char expected[96];

    snprintf(expected, sizeof(expected), "%s from %zu to %zu", what, range.lo,
             range.hi);
    vibe_fields_refuse(f, VIBE_E_FORMAT, section, key, expected);
}

static int is_size(const json_t *value, struct vibe_size_range range)
{
    json_int_t i = json_integer_value(value); /* 0 for any other type */

    return json_is_integer(value) && i >= 0 && (size_t)i >= range.lo &&
           (size_t)i <= range.hi;
}

size_t vibe_fields_size(struct vibe_fields *f, const char *section,
                        const char *key, struct vibe_size_range range,
                        size_t fallback)
{
    const json_t *value = find(f, section, key);

    if (f->rc != VIBE_OK)
        return 0;
    if (!value && fallback)
        return fallback;
    if (!is_size(value, range)) {
        refuse_size(f, section, key, range, "a whole number");
        return 0;
    }
    return (size_t)json_integer_value(value);
}

double vibe_fields_real(struct vibe_fields *f, const char *section,
                        const char *key, struct vibe_real_range range,
                        double fallback)
{
    const json_t *value = find(f, section, key);
    double x = json_number_value(value); /* of 5 as of 5.0 */
    char expected[96];

    if (f->rc != VIBE_OK)
        return 0;
    if (!value && fallback != 0)
        return fallback;
    /* JSON has no NaN, and jansson refuses what overflows. */
    if (json_is_number(value) && x >= range.lo && x <= range.hi)
        return x;
    snprintf(expected, sizeof(expected), "a number from %g to %g", range.lo,
             range.hi);
    vibe_fields_refuse(f, VIBE_E_FORMAT, section, key, expected);
    return 0;
}

int vibe_fields_bool(struct vibe_fields *f, const char *section,
                     const char *key, int fallback)
{
    const json_t *value = find(f, section, key);

    if (f->rc != VIBE_OK)
        return 0;
    if (!value)
        return fallback;
    if (!json_is_boolean(value))
        vibe_fields_refuse(f, VIBE_E_FORMAT, section, key, "true or false");
    return json_is_true(value);
}

/* "3-3-8" -> out[]; the count, or 0 if it is none. */
static size_t split_dashes(const char *text, struct vibe_size_range range,
                           size_t *out, size_t max)
{
    size_t n = 0;

    for (;;) {
        char *end;
        unsigned long x = 0;

        if (n == max || *text < '0' || *text > '9')
            return 0;
        x = strtoul(text, &end, 10); /* ULONG_MAX if too large: out of range */
        if (x < range.lo || x > range.hi)
            return 0;
        out[n++] = x;
        if (*end == '\0')
            return n;
        if (*end != '-')
            return 0;
        text = end + 1;
    }
}

size_t vibe_fields_list(struct vibe_fields *f, const char *section,
                        const char *key, struct vibe_size_range range,
                        size_t *out, size_t max)
{
    const json_t *value = find(f, section, key);
    char what[64];
    size_t n = 0;

    if (f->rc != VIBE_OK || !value)
        return 0;
    if (json_is_string(value))
        n = split_dashes(json_string_value(value), range, out, max);
    else if (json_array_size(value) <= max)
        for (n = 0; n < json_array_size(value); n++) {
            if (!is_size(json_array_get(value, n), range)) {
                n = 0;
                break;
            }
            out[n] = (size_t)json_integer_value(json_array_get(value, n));
        }
    if (n == 0) {
        snprintf(what, sizeof(what), "1 to %zu whole numbers", max);
        refuse_size(f, section, key, range, what);
    }
    return n;
}

void vibe_fields_only_bool(struct vibe_fields *f, const char *section,
                           const char *key, int only)
{
    if (vibe_fields_bool(f, section, key, only) != only)
        vibe_fields_refuse(f, VIBE_E_UNSUPPORTED, section, key,
                           only ? "true" : "false");
}

void vibe_fields_only_real(struct vibe_fields *f, const char *section,
                           const char *key, double only)
{
    const json_t *value = find(f, section, key);
    char expected[32];

    /* The numbers compared here are small integers: exact in a double. */
    if (!value || (json_is_number(value) && json_number_value(value) == only))
        return;
    snprintf(expected, sizeof(expected), "%g", only);
    vibe_fields_refuse(f, VIBE_E_UNSUPPORTED, section, key, expected);
}

void vibe_fields_only_text(struct vibe_fields *f, const char *section,
                           const char *key, const char *a, const char *b)
{
    const json_t *value = find(f, section, key);
    const char *text = json_string_value(value);
    char expected[80];

    if (!value || (text && (strcmp(text, a) == 0 || (b && !strcmp(text, b)))))
        return;
    snprintf(expected, sizeof(expected), "\"%s\"%s%s%s", a, b ? " or \"" : "",
             b ? b : "", b ? "\"" : "");
    vibe_fields_refuse(f, VIBE_E_UNSUPPORTED, section, key, expected);
}
