#include "cli/json.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct json_t *vibe_json_string(const char *text)
{
    json_t *value = json_string(text);
    char *copy;

    if (value || !text)
        return value ? value : json_null();
    copy = strdup(text);
    for (char *c = copy; c && *c; c++)
        if ((unsigned char)*c >= 0x80)
            *c = '?';
    value = json_string(copy);
    free(copy);
    return value;
}

void vibe_json_text(struct json_t *object, const char *key, const char *text)
{
    json_object_set_new(object, key, vibe_json_string(text));
}

/* Bytes in hexadecimal digits; owned, NULL without memory. */
static char *to_digits(const char *bytes)
{
    const size_t n = strlen(bytes);
    char *digits = malloc(2 * n + 1);

    for (size_t i = 0; digits && i < n; i++)
        snprintf(digits + 2 * i, 3, "%02x", (unsigned)(unsigned char)bytes[i]);
    return digits;
}

/* Bytes of hexadecimal digits; owned, NULL if they are none. */
static char *to_bytes(const char *digits)
{
    const size_t n = strlen(digits) / 2;
    char *bytes = calloc(n + 1, 1);

    for (size_t i = 0; bytes && i < n; i++) {
        const char pair[] = {digits[2 * i], digits[2 * i + 1], '\0'};
        char *end;

        bytes[i] = (char)strtoul(pair, &end, 16);
        if (end != pair + 2) {
            free(bytes);
            return NULL;
        }
    }
    return bytes;
}

void vibe_json_set_file(struct json_t *object, const char *path)
{
    json_t *text = json_string(path);
    char *digits = text ? NULL : to_digits(path);

    vibe_json_text(object, "file", path);
    if (digits)
        vibe_json_text(object, "file_bytes", digits);
    free(digits);
    json_decref(text);
}

char *vibe_json_file(const struct json_t *object)
{
    const char *text = json_string_value(json_object_get(object, "file"));
    const char *digits = json_string_value(
        json_object_get(object, "file_bytes"));

    if (digits)
        return to_bytes(digits);
    return text ? strdup(text) : NULL;
}

void vibe_json_number(struct json_t *object, const char *key, double value)
{
    json_object_set_new(object, key,
                        isfinite(value) ? json_real(value) : json_null());
}

void vibe_json_count(struct json_t *object, const char *key, size_t value)
{
    json_object_set_new(object, key, json_integer((json_int_t)value));
}

void vibe_json_bool(struct json_t *object, const char *key, int value)
{
    json_object_set_new(object, key, json_boolean(value));
}

void vibe_json_print(struct json_t *object)
{
    json_dumpf(object, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    fputc('\n', stdout);
    fflush(stdout);
    json_decref(object);
}
