#include "engine/golden.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/format/safetensors.h"

/* The lines [[speaker, " text"], ...] as a text; owned, or NULL. */
static char *text_of(const json_t *lines)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    int ok = out && json_array_size(lines) > 0;

    for (size_t i = 0; ok && i < json_array_size(lines); i++) {
        const json_t *line = json_array_get(lines, i);
        const json_t *speaker = json_array_get(line, 0);
        const char *said = json_string_value(json_array_get(line, 1));

        ok = said && json_is_integer(speaker) &&
             fprintf(out, "Speaker %lld:%s\n",
                     (long long)json_integer_value(speaker), said) > 0;
    }
    if (out && fclose(out) != 0)
        ok = 0;
    if (!ok) {
        free(text);
        text = NULL;
    }
    return text;
}

/* The script of the record, parsed as a user's would be. */
static int read_script(struct vibe_script *out, const json_t *root,
                       const char *path, struct vibe_error *err)
{
    char *text = text_of(json_object_get(root, "lines"));
    int rc;

    if (!text)
        return vibe_fail(err, VIBE_E_FORMAT,
                         "%s: \"lines\" is not a list of [speaker, text]",
                         path);
    rc = vibe_script_parse_text(out, path, text, strlen(text), err);
    if (rc == VIBE_OK)
        out->lowest = 0; /* speakers are numbered as the model is told */
    free(text);
    return rc;
}

static int read_options(struct vibe_golden *g, const char *path,
                        struct vibe_error *err)
{
    json_error_t why;
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &why);
    json_int_t steps, max_new_tokens;
    double cfg_scale;
    int rc = VIBE_OK;

    if (!root)
        return vibe_fail(err, VIBE_E_FORMAT, "%s: %s", path, why.text);
    if (json_unpack_ex(root, &why, 0, "{s:F, s:I, s:I}", "cfg_scale",
                       &cfg_scale, "steps", &steps, "max_new_tokens",
                       &max_new_tokens))
        rc = vibe_fail(err, VIBE_E_FORMAT, "%s: %s", path, why.text);
    else if (steps < 1 || steps > 1000 || max_new_tokens < 0 ||
             max_new_tokens > 1 << 24)
        rc = vibe_fail(err, VIBE_E_FORMAT,
                       "%s: %lld steps or %lld tokens are out of range", path,
                       (long long)steps, (long long)max_new_tokens);
    if (rc == VIBE_OK)
        rc = read_script(&g->script, root, path, err);
    if (rc == VIBE_OK) {
        g->cfg_scale = (float)cfg_scale;
        g->steps = (size_t)steps;
        g->max_new_tokens = (size_t)max_new_tokens;
    }
    json_decref(root);
    return rc;
}

int vibe_golden_init(struct vibe_golden *out, const char *path,
                     struct vibe_error *err)
{
    const size_t n = strlen(path);
    static const char suffix[] = ".safetensors";
    const size_t stem = n > strlen(suffix) &&
                                !strcmp(path + n - strlen(suffix), suffix)
                            ? n - strlen(suffix)
                            : n;
    char *json = NULL;
    int rc;

    if (asprintf(&json, "%.*s.json", (int)stem, path) < 0)
        return vibe_fail(err, VIBE_E_NOMEM, "%s: no memory", path);
    rc = vibe_safetensors_open(&out->st, path, err);
    if (rc == VIBE_OK)
        rc = read_options(out, json, err);
    free(json);
    return rc;
}

void vibe_golden_release(struct vibe_golden *g)
{
    vibe_safetensors_free(g->st);
    vibe_script_release(&g->script);
    *g = (struct vibe_golden){0};
}

size_t vibe_golden_size(const struct vibe_golden *g, const char *name)
{
    const struct vibe_st_tensor *t = vibe_safetensors_find(g->st, name);

    return t ? t->n : 0;
}

/* A copy of a tensor of this type and size. */
static int copy(const struct vibe_golden *g, void **out, const char *name,
                enum vibe_dtype dtype, size_t n, struct vibe_error *err)
{
    const struct vibe_st_tensor *t = vibe_safetensors_find(g->st, name);
    const char *path = vibe_safetensors_path(g->st);

    *out = NULL;
    if (!t)
        return vibe_fail(err, VIBE_E_FORMAT, "%s: has no tensor %s", path,
                         name);
    if (!t->is_known || t->dtype != dtype || t->n != n)
        return vibe_fail(err, VIBE_E_FORMAT,
                         "%s: %s is %zu of %s, expected %zu of %s", path, name,
                         t->n, t->dtype_name, n, vibe_dtype_name(dtype));
    *out = malloc(t->n_bytes + 1);
    if (!*out)
        return vibe_fail(err, VIBE_E_NOMEM, "%s: no memory for %s", path, name);
    memcpy(*out, t->data, t->n_bytes);
    return VIBE_OK;
}

int vibe_golden_f32(const struct vibe_golden *g, float **out, const char *name,
                    size_t n, struct vibe_error *err)
{
    void *data;
    const int rc = copy(g, &data, name, VIBE_F32, n, err);

    *out = data;
    return rc;
}

int vibe_golden_i64(const struct vibe_golden *g, int64_t **out,
                    const char *name, size_t n, struct vibe_error *err)
{
    void *data;
    const int rc = copy(g, &data, name, VIBE_I64, n, err);

    *out = data;
    return rc;
}
