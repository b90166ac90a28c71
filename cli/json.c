#include "cli/json.h"

#include <jansson.h>
#include <math.h>
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
