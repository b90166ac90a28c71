#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/error.h"
#include "engine/text/pretokenize.h"
#include "engine/text/read_file.h"
#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_build.h"

enum {
    MAX_FILE = 64 << 20, /* bytes; the published tokenizer.json has 7 MB */
    N_QWEN = 151643,     /* entries of the Qwen2.5 base vocabulary */
};

/* Added tokens of Qwen2.5 in the order of their ids, from N_QWEN. */
static const char *const qwen_added[] = {
    "<|endoftext|>",        "<|im_start|>",       "<|im_end|>",
    "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>",          "<|quad_start|>",     "<|quad_end|>",
    "<|vision_start|>",     "<|vision_end|>",     "<|vision_pad|>",
    "<|image_pad|>",        "<|video_pad|>",      "<tool_call>",
    "</tool_call>",         "<|fim_prefix|>",     "<|fim_middle|>",
    "<|fim_suffix|>",       "<|fim_pad|>",        "<|repo_name|>",
    "<|file_sep|>",
};

enum { N_QWEN_ADDED = sizeof(qwen_added) / sizeof(*qwen_added) };

/* Parsed files, which source borrows from. */
struct loader {
    struct vibe_tokenizer_source source;
    struct vibe_added_token *added; /* owned */
    json_t *root;                   /* owned; tokenizer.json or vocab.json */
    json_t *config;                 /* owned; tokenizer_config.json */
    struct vibe_error *err;
};

static int parse_json(json_t **out, const struct vibe_text_file *file,
                      struct vibe_error *err)
{
    json_error_t why;

    *out = json_loadb(file->data, file->n, JSON_REJECT_DUPLICATES, &why);
    if (!*out)
        return vibe_fail(err, VIBE_E_FORMAT, "%s:%d:%d: %s", file->name,
                         why.line, why.column, why.text);
    if (!json_is_object(*out))
        return vibe_fail(err, VIBE_E_FORMAT, "%s: not a JSON object",
                         file->name);
    return VIBE_OK;
}

/* Take over one added token; its id comes from a value or from a key. */
static int take_added(struct loader *l, const json_t *entry, json_int_t id)
{
    static const char *const unsupported[] = {"single_word", "lstrip",
                                              "rstrip"};
    const json_t *content = json_object_get(entry, "content");
    const char *name = l->source.added_name;

    if (!json_is_string(content) || json_string_length(content) == 0)
        return vibe_fail(l->err, VIBE_E_FORMAT,
                         "%s: an added token has no \"content\"", name);
    if (id < 0 || id >= VIBE_TOKENIZER_MAX_IDS)
        return vibe_fail(
            l->err, VIBE_E_FORMAT,
            "%s: the id of added token \"%.60s\" is not from 0 to %d", name,
            json_string_value(content), VIBE_TOKENIZER_MAX_IDS - 1);
    for (size_t i = 0; i < sizeof(unsupported) / sizeof(*unsupported); i++)
        if (json_is_true(json_object_get(entry, unsupported[i])))
            return vibe_fail(l->err, VIBE_E_UNSUPPORTED,
                             "%s: added token \"%.60s\" asks for %s", name,
                             json_string_value(content), unsupported[i]);

    l->added[l->source.n_added++] = (struct vibe_added_token){
        .text = json_string_value(content),
        .n = json_string_length(content),
        .id = (int32_t)id,
    };
    return VIBE_OK;
}

/* "added_tokens" of tokenizer.json: [{"id": 5, "content": "<s>"}]. */
static int take_added_list(struct loader *l, const json_t *list)
{
    size_t i;
    json_t *entry;

    json_array_foreach(list, i, entry)
    {
        const json_t *id = json_object_get(entry, "id");
        int rc = take_added(l, entry,
                            json_is_integer(id) ? json_integer_value(id) : -1);

        if (rc)
            return rc;
    }
    return VIBE_OK;
}

/* "added_tokens_decoder" of the config: {"5": {"content": "<s>"}}. */
static int take_added_map(struct loader *l, json_t *map)
{
    const char *key;
    json_t *entry;

    json_object_foreach(map, key, entry)
    {
        char *end;
        long id = strtol(key, &end, 10);
        int is_number = key[0] >= '0' && key[0] <= '9' && !*end;
        int rc = take_added(l, entry, is_number ? id : -1);

        if (rc)
            return rc;
    }
    return VIBE_OK;
}

static void take_qwen_added(struct loader *l)
{
    for (size_t i = 0; i < N_QWEN_ADDED; i++)
        l->added[i] = (struct vibe_added_token){
            .text = qwen_added[i],
            .n = strlen(qwen_added[i]),
            .id = N_QWEN + (int32_t)i,
        };
    l->source.n_added = N_QWEN_ADDED;
}

/* Collect the added tokens from where they are listed, an array or a map. */
static int take_all_added(struct loader *l, json_t *listed)
{
    size_t n = json_array_size(listed) + json_object_size(listed);

    l->added = calloc(n + N_QWEN_ADDED, sizeof(*l->added));
    if (!l->added)
        return vibe_fail(l->err, VIBE_E_NOMEM, "no memory for %zu tokens", n);
    l->source.added = l->added;
    if (json_is_array(listed))
        return take_added_list(l, listed);
    if (json_is_object(listed))
        return take_added_map(l, listed);
    if (listed && !json_is_null(listed))
        return vibe_fail(l->err, VIBE_E_FORMAT,
                         "%s: the added tokens are no list",
                         l->source.added_name);
    if (json_object_size(l->source.vocab) == N_QWEN)
        take_qwen_added(l);
    return VIBE_OK;
}

/* Refuse a BPE model that merges by other rules than ours. */
static int check_model(const struct loader *l, const json_t *model)
{
    static const char *const flags[] = {"byte_fallback", "ignore_merges"};
    static const char *const affixes[] = {"continuing_subword_prefix",
                                          "end_of_word_suffix"};
    const json_t *type = json_object_get(model, "type");
    const json_t *dropout = json_object_get(model, "dropout");
    const char *name = l->source.vocab_name;

    if (type &&
        (!json_is_string(type) || strcmp(json_string_value(type), "BPE") != 0))
        return vibe_fail(l->err, VIBE_E_UNSUPPORTED,
                         "%s: the model is not of type \"BPE\"", name);
    for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++)
        if (json_is_true(json_object_get(model, flags[i])))
            return vibe_fail(l->err, VIBE_E_UNSUPPORTED,
                             "%s: the model asks for %s", name, flags[i]);
    for (size_t i = 0; i < sizeof(affixes) / sizeof(*affixes); i++)
        if (json_string_length(json_object_get(model, affixes[i])) > 0)
            return vibe_fail(l->err, VIBE_E_UNSUPPORTED,
                             "%s: the model has a %s", name, affixes[i]);
    if (dropout && json_number_value(dropout) != 0.0)
        return vibe_fail(l->err, VIBE_E_UNSUPPORTED,
                         "%s: the model asks for dropout", name);
    return VIBE_OK;
}

static bool has_type(const json_t *object, const char *type)
{
    const char *has = json_string_value(json_object_get(object, "type"));

    return has && strcmp(has, type) == 0;
}

/* Refuse another pattern than the one that pretokenize.c knows. */
static int check_pre_tokenizer(const struct loader *l, const json_t *pre)
{
    const json_t *steps = json_object_get(pre, "pretokenizers");
    const json_t *split = json_array_get(steps, 0);
    const json_t *bytes = json_array_get(steps, 1);
    const json_t *pattern = json_object_get(split, "pattern");
    const char *regex = json_string_value(json_object_get(pattern, "Regex"));

    if (!pre)
        return VIBE_OK;
    if (has_type(split, "Split") && regex &&
        strcmp(regex, vibe_pretokenize_pattern) == 0 &&
        !json_is_true(json_object_get(split, "invert")) &&
        has_type(bytes, "ByteLevel") &&
        !json_is_true(json_object_get(bytes, "add_prefix_space")) &&
        json_is_false(json_object_get(bytes, "use_regex")) &&
        json_array_size(steps) == 2)
        return VIBE_OK;
    return vibe_fail(l->err, VIBE_E_UNSUPPORTED,
                     "%s: the pre-tokenizer is not that of Qwen2.5",
                     l->source.vocab_name);
}

/* An explicit null means no normalisation; saying nothing, the usual one. */
static int check_normalizer(struct loader *l, const json_t *normalizer)
{
    l->source.is_nfc = !json_is_null(normalizer);
    if (!normalizer || json_is_null(normalizer) || has_type(normalizer, "NFC"))
        return VIBE_OK;
    return vibe_fail(l->err, VIBE_E_UNSUPPORTED,
                     "%s: the normalizer is not of type \"NFC\"",
                     l->source.vocab_name);
}

static int load_tokenizer_json(struct loader *l,
                               const struct vibe_text_file *file)
{
    struct vibe_tokenizer_source *source = &l->source;
    const json_t *model;
    int rc;

    source->vocab_name = file->name;
    source->merges_name = file->name;
    source->added_name = file->name;
    rc = parse_json(&l->root, file, l->err);
    if (rc)
        return rc;

    model = json_object_get(l->root, "model");
    source->vocab = json_object_get(model, "vocab");
    source->merge_list = json_object_get(model, "merges");
    if (!json_is_object(source->vocab) || !json_is_array(source->merge_list))
        return vibe_fail(l->err, VIBE_E_FORMAT,
                         "%s: no \"model\" with \"vocab\" and \"merges\"",
                         file->name);

    rc = check_model(l, model);
    if (!rc)
        rc = check_pre_tokenizer(l, json_object_get(l->root, "pre_tokenizer"));
    if (!rc)
        rc = check_normalizer(l, json_object_get(l->root, "normalizer"));
    if (!rc)
        rc = take_all_added(l, json_object_get(l->root, "added_tokens"));
    return rc;
}

static int load_pair(struct loader *l, const struct vibe_tokenizer_files *files)
{
    int rc;

    l->source.vocab_name = files->vocab.name;
    l->source.merges_name = files->merges.name;
    l->source.merge_text = files->merges;
    l->source.added_name = files->config.name;
    l->source.is_nfc = true;

    rc = parse_json(&l->root, &files->vocab, l->err);
    if (!rc && files->config.data)
        rc = parse_json(&l->config, &files->config, l->err);
    if (rc)
        return rc;
    l->source.vocab = l->root;
    return take_all_added(l,
                          json_object_get(l->config, "added_tokens_decoder"));
}

int vibe_tokenizer_parse(struct vibe_tokenizer **out,
                         const struct vibe_tokenizer_files *files,
                         struct vibe_error *err)
{
    struct loader l = {.err = err};
    struct vibe_tokenizer *tokenizer = NULL;
    int rc;

    *out = NULL;
    if (files->tokenizer.data)
        rc = load_tokenizer_json(&l, &files->tokenizer);
    else
        rc = load_pair(&l, files);
    if (rc)
        goto out;

    tokenizer = calloc(1, sizeof(*tokenizer));
    if (!tokenizer) {
        rc = vibe_fail(err, VIBE_E_NOMEM, "no memory for a tokenizer");
        goto out;
    }
    rc = vibe_tokenizer_build(tokenizer, &l.source, err);
    if (rc)
        goto out;
    *out = tokenizer;
    tokenizer = NULL; /* now owned by the caller */

out:
    vibe_tokenizer_free(tokenizer);
    free(l.added);
    json_decref(l.root);
    json_decref(l.config);
    return rc;
}

enum part { TOKENIZER, VOCAB, MERGES, CONFIG, N_PARTS };

static const char *const part_names[N_PARTS] = {
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
};

/* Files of one tokenizer; data is NULL for those that were not read. */
struct contents {
    char *path[N_PARTS]; /* owned */
    char *data[N_PARTS]; /* owned */
    size_t n[N_PARTS];
};

static void contents_release(struct contents *c)
{
    for (int i = 0; i < N_PARTS; i++) {
        free(c->path[i]);
        free(c->data[i]);
    }
}

/* Name the files of a directory, or the single file that path is. */
static int name_parts(struct contents *c, const char *path,
                      struct vibe_error *err)
{
    struct stat st;

    if (stat(path, &st))
        return vibe_fail(err, VIBE_E_IO, "%s: %s", path, strerror(errno));
    if (!S_ISDIR(st.st_mode)) {
        c->path[TOKENIZER] = strdup(path);
        return c->path[TOKENIZER]
                   ? VIBE_OK
                   : vibe_fail(err, VIBE_E_NOMEM, "%s: no memory", path);
    }
    for (int i = 0; i < N_PARTS; i++) {
        if (asprintf(&c->path[i], "%s/%s", path, part_names[i]) < 0) {
            c->path[i] = NULL;
            return vibe_fail(err, VIBE_E_NOMEM, "%s: no memory", path);
        }
    }
    return VIBE_OK;
}

static bool is_there(const struct contents *c, enum part part)
{
    return c->path[part] && access(c->path[part], F_OK) == 0;
}

static int read_part(struct contents *c, enum part part, struct vibe_error *err)
{
    char *data;
    size_t n;
    int rc = vibe_read_file(&data, &n, c->path[part], MAX_FILE, err);

    c->data[part] = data;
    c->n[part] = n;
    return rc;
}

static int read_parts(struct contents *c, const char *path,
                      struct vibe_error *err)
{
    int rc;

    if (is_there(c, TOKENIZER))
        return read_part(c, TOKENIZER, err);
    if (!is_there(c, VOCAB) || !is_there(c, MERGES))
        return vibe_fail(
            err, VIBE_E_IO,
            "%s: neither tokenizer.json nor vocab.json with merges.txt", path);
    rc = read_part(c, VOCAB, err);
    if (!rc)
        rc = read_part(c, MERGES, err);
    if (!rc && is_there(c, CONFIG))
        rc = read_part(c, CONFIG, err);
    return rc;
}

static struct vibe_text_file text_file(const struct contents *c, enum part part)
{
    return (struct vibe_text_file){
        .name = c->path[part],
        .data = c->data[part],
        .n = c->n[part],
    };
}

int vibe_tokenizer_open(struct vibe_tokenizer **out, const char *path,
                        struct vibe_error *err)
{
    struct contents c = {0};
    struct vibe_tokenizer_files files;
    int rc;

    *out = NULL;
    rc = name_parts(&c, path, err);
    if (!rc)
        rc = read_parts(&c, path, err);
    if (rc)
        goto out;
    files = (struct vibe_tokenizer_files){
        .tokenizer = text_file(&c, TOKENIZER),
        .vocab = text_file(&c, VOCAB),
        .merges = text_file(&c, MERGES),
        .config = text_file(&c, CONFIG),
    };
    rc = vibe_tokenizer_parse(out, &files, err);

out:
    contents_release(&c);
    return rc;
}
