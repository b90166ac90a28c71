#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/json.h"
#include "engine/vibevoice.h"

/* What the visitors need to know. */
struct listing {
    int is_json;
    int has_header;
    int is_free; /* the free-running part has begun */
};

static void print_header(struct listing *listing)
{
    printf("%-28s %11s %11s %11s\n", "tensor", "max error", "max |ref|",
           "bound");
    listing->has_header = 1;
}

static void print_row_json(const struct vibe_verify_row *row)
{
    json_t *object = json_object();

    vibe_json_text(object, "tensor", row->name);
    vibe_json_number(object, "max_error", row->max_error);
    vibe_json_number(object, "max_ref", row->max_ref);
    vibe_json_number(object, "bound", row->is_free ? NAN : row->bound);
    vibe_json_bool(object, "free", row->is_free);
    vibe_json_bool(object, "ok", row->is_ok);
    vibe_json_print(object);
}

static void print_row(void *user, const struct vibe_verify_row *row)
{
    struct listing *listing = user;

    if (listing->is_json) {
        print_row_json(row);
        return;
    }
    if (row->is_free && !listing->is_free) {
        puts("\nfree-running (the error grows from frame to frame):");
        listing->is_free = 1;
        listing->has_header = 0;
    }
    if (!listing->has_header)
        print_header(listing);
    if (row->is_free)
        printf("%-28s %11.2e %11.2e\n", row->name, row->max_error,
               row->max_ref);
    else
        printf("%-28s %11.2e %11.2e %11.2e  %s\n", row->name, row->max_error,
               row->max_ref, row->bound, row->is_ok ? "ok" : "FAILED");
}

static void print_summary(const struct vibe_verify_summary *sum, int is_ok)
{
    printf("\ntokens: %zu of %zu equal, %zu generated:", sum->n_tokens_equal,
           sum->n_tokens, sum->n_tokens_got);
    for (size_t i = 0; i < sum->n_tokens_got; i++)
        printf(" %" PRId32, sum->tokens[i]);
    printf("\n%zu of %zu tensors within their bounds: %s\n",
           sum->n_compared - sum->n_failed, sum->n_compared,
           is_ok ? "all holds" : "FAILED");
}

static void print_summary_json(const struct vibe_verify_summary *sum, int is_ok)
{
    json_t *object = json_object(), *tokens = json_array();

    for (size_t i = 0; i < sum->n_tokens_got; i++)
        json_array_append_new(tokens, json_integer(sum->tokens[i]));
    vibe_json_count(object, "compared", sum->n_compared);
    vibe_json_count(object, "failed", sum->n_failed);
    vibe_json_count(object, "tokens_recorded", sum->n_tokens);
    vibe_json_count(object, "tokens_equal", sum->n_tokens_equal);
    json_object_set_new(object, "tokens", tokens);
    vibe_json_bool(object, "ok", is_ok);
    vibe_json_print(object);
}

static enum vibe_exit verify_model(struct vibe_cli *cli,
                                   struct vibe_failure *why)
{
    const struct vibe_options *o = cli->options;
    struct listing listing = {.is_json = o->is_json};
    struct vibe_verify_summary sum = {0};
    struct vibe_engine *engine = NULL;
    int is_ok;

    if (vibe_cli_open_engine(&engine, cli, VIBE_USE_VERIFY, why) !=
        VIBE_EXIT_OK)
        return why->status;
    if (vibe_engine_verify(engine, o->verify, print_row, &listing, &sum,
                           &why->err) != VIBE_OK) {
        vibe_engine_free(engine);
        return vibe_cli_fail_by(why, VIBE_EXIT_INPUT, o->verify);
    }
    is_ok = sum.n_failed == 0 && sum.n_compared > 0 &&
            sum.n_tokens_equal == sum.n_tokens &&
            sum.n_tokens_got == sum.n_tokens;
    if (o->is_json)
        print_summary_json(&sum, is_ok);
    else
        print_summary(&sum, is_ok);
    vibe_engine_free(engine);
    return is_ok ? VIBE_EXIT_OK : VIBE_EXIT_FAILED;
}

static void print_vector(void *user, size_t index, const char *text,
                         size_t first_difference)
{
    const struct listing *listing = user;

    if (listing->is_json) {
        json_t *object = json_object();

        vibe_json_count(object, "vector", index);
        vibe_json_text(object, "text", text);
        vibe_json_count(object, "first_difference", first_difference);
        vibe_json_print(object);
        return;
    }
    printf("vector %zu differs from id %zu: %s\n", index, first_difference,
           text);
}

static void print_vectors_json(size_t n, size_t n_equal, int is_ok)
{
    json_t *object = json_object();

    vibe_json_count(object, "vectors", n);
    vibe_json_count(object, "equal", n_equal);
    vibe_json_bool(object, "ok", is_ok);
    vibe_json_print(object);
}

static enum vibe_exit verify_tokenizer(struct vibe_cli *cli, const char *folder,
                                       struct vibe_failure *why)
{
    const struct vibe_options *o = cli->options;
    struct listing listing = {.is_json = o->is_json};
    size_t n = 0, n_equal = 0;
    int is_ok;

    if (vibe_tokenizer_verify_file(folder, o->verify, print_vector, &listing,
                                   &n, &n_equal, &why->err) != VIBE_OK)
        return vibe_cli_fail_by(why, VIBE_EXIT_INPUT, o->verify);
    is_ok = n > 0 && n_equal == n;
    if (o->is_json)
        print_vectors_json(n, n_equal, is_ok);
    else
        printf("%zu of %zu vectors equal: %s\n", n_equal, n,
               is_ok ? "all holds" : "FAILED");
    return is_ok ? VIBE_EXIT_OK : VIBE_EXIT_FAILED;
}

enum vibe_exit vibe_cmd_verify(struct vibe_cli *cli, struct vibe_failure *why)
{
    const struct vibe_options *o = cli->options;
    const char *dot = strrchr(o->verify, '.');
    const char *folder = o->tokenizer ? o->tokenizer : vibe_cli_model(o);

    if (!dot || strcmp(dot, ".json") != 0)
        return verify_model(cli, why);
    if (!folder)
        return vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                             "--verify: %s needs --tokenizer DIR", o->verify);
    return verify_tokenizer(cli, folder, why);
}
