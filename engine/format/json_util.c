#include "engine/format/json_util.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/base/error.h"

enum { MAX_FILE_BYTES = 64 << 20 };

int vibe_json_parse(json_t **out, const char *bytes, size_t n, const char *path,
                    struct vibe_error *err)
{
    json_error_t why;
    json_t *root = json_loadb(bytes, n, JSON_REJECT_DUPLICATES, &why);

    *out = NULL;
    if (!root)
        return vibe_fail(err, VIBE_E_FORMAT,
                         "%s: not valid JSON at line %d, column %d: %s", path,
                         why.line, why.column, why.text);
    if (!json_is_object(root)) {
        json_decref(root);
        return vibe_fail(err, VIBE_E_FORMAT, "%s: not a JSON object", path);
    }
    *out = root;
    return VIBE_OK;
}

int vibe_json_read(json_t **out, const char *path, struct vibe_error *err)
{
    FILE *file = NULL;
    char *bytes = NULL;
    struct stat st;
    size_t n = 0;
    int rc = VIBE_OK;

    *out = NULL;
    file = fopen(path, "rb");
    if (!file || fstat(fileno(file), &st)) {
        rc = vibe_fail(err, VIBE_E_IO, "%s: %s", path, strerror(errno));
        goto out;
    }
    if (!S_ISREG(st.st_mode) || st.st_size > MAX_FILE_BYTES) {
        rc = vibe_fail(err, VIBE_E_FORMAT,
                       "%s: not a JSON file of at most 64 MiB", path);
        goto out;
    }
    n = (size_t)st.st_size;
    bytes = malloc(n + 1);
    if (!bytes) {
        rc = vibe_fail(err, VIBE_E_NOMEM, "%s: no memory for %zu bytes", path,
                       n);
        goto out;
    }
    /* A file that shrank meanwhile is parsed as far as it goes. */
    n = fread(bytes, 1, n, file);
    if (ferror(file)) {
        rc = vibe_fail(err, VIBE_E_IO, "%s: %s", path, strerror(errno));
        goto out;
    }
    rc = vibe_json_parse(out, bytes, n, path, err);

out:
    free(bytes);
    if (file)
        fclose(file);
    return rc;
}

const json_t *vibe_json_find(const json_t *root, const char *dotted)
{
    const json_t *value = root;

    while (value && *dotted) {
        size_t n = strcspn(dotted, ".");
        char key[64];

        if (n >= sizeof(key))
            return NULL;
        memcpy(key, dotted, n);
        key[n] = '\0';
        value = json_object_get(value, key);
        dotted += dotted[n] == '.' ? n + 1 : n;
    }
    return value;
}

void vibe_json_describe(char *out, size_t size, const json_t *value)
{
    /* Numbers as a person would type them, not with 17 digits. */
    if (json_is_real(value)) {
        snprintf(out, size, "%.9g", json_real_value(value));
        return;
    }
    char *text = value ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT |
                                               JSON_ENSURE_ASCII)
                       : NULL;

    if (snprintf(out, size, "%s", text ? text : "nothing") >= (int)size)
        memcpy(out + size - 4, "...", 4);
    free(text);
}
