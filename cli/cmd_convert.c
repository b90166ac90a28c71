#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/json.h"
#include "cli/signals.h"
#include "engine/vibevoice.h"

static int is_about(const struct vibe_error *err, const char *path)
{
    return strncmp(err->msg, path, strlen(path)) == 0;
}

static void print_json(const char *model, const char *out)
{
    json_t *object = json_object();

    vibe_json_text(object, "file", out);
    vibe_json_text(object, "model", model);
    vibe_json_print(object);
}

/* May weights that are to be kept so become others? */
static int changes(enum vibe_weight_dtype as)
{
    return as != VIBE_WEIGHTS_AUTO && as != VIBE_WEIGHTS_F32;
}

enum vibe_exit vibe_cmd_convert(struct vibe_cli *cli, struct vibe_failure *why)
{
    const struct vibe_options *o = cli->options;
    const struct vibe_precision precision = vibe_cli_precision(o);
    const char *model = vibe_cli_model(o);
    int rc;

    if (!model)
        return vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                             "no model: use --model PATH or VIBEVOICE_MODEL");
    if (!changes(precision.lm) && !changes(precision.head) &&
        !changes(precision.codec))
        return vibe_cli_fail(why, VIBE_EXIT_USAGE, NULL,
                             "--convert needs --dtype, --head-dtype or "
                             "--codec-dtype: into what?%s",
                             precision.lm == VIBE_WEIGHTS_F32
                                 ? " (float32 leaves weights as they are)"
                                 : "");
    vibe_signals_arm();
    rc = vibe_convert(model, o->convert, &precision, vibe_signals_pending,
                      &why->err);
    if (rc != VIBE_OK)
        return vibe_cli_fail_by(why,
                                is_about(&why->err, o->convert)
                                    ? VIBE_EXIT_OUTPUT
                                    : VIBE_EXIT_INPUT,
                                model);
    if (o->is_json)
        print_json(model, o->convert);
    else if (!o->is_quiet)
        puts(o->convert);
    return VIBE_EXIT_OK;
}
