/*
 * fuzz_options.c - any command line and options file is taken or refused, with
 * a sentence, and nothing is lost.
 *
 * The input is a command line of one word per line, then a line of a single
 * '%', then an options file.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cli/options.h"
#include "engine/base/error.h"

enum { MAX_WORDS = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A failure must have a sentence; what passed must be within its range. */
static void check(const struct vibe_options *got, int rc,
                  const struct vibe_error *err)
{
    if ((rc != VIBE_OK) != (err->msg[0] != '\0'))
        abort();
    if (rc == VIBE_OK &&
        (got->steps < 1 || got->steps > 1000 || got->seed < -1 ||
         !(got->cfg_scale >= 0 && got->cfg_scale <= 10) ||
         !(got->top_p > 0 && got->top_p <= 1)))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vibe_options got;
    struct vibe_error err = {0};
    const char *words[MAX_WORDS];
    char *text = calloc(size + 1, 1), *file = NULL, *rest = NULL;
    size_t n = 0;
    int rc;

    if (!text)
        return 0;
    memcpy(text, data, size);
    file = strstr(text, "\n%\n");
    if (file)
        *file = '\0';
    for (char *word = strtok_r(text, "\n", &rest); word && n < MAX_WORDS;
         word = strtok_r(NULL, "\n", &rest))
        words[n++] = word;

    rc = vibe_options_init(&got, &err);
    if (rc == VIBE_OK)
        rc = vibe_options_apply_argv(&got, n, words, NULL, &err);
    if (rc == VIBE_OK && file)
        rc = vibe_options_apply_text(&got, "file", file + 3,
                                     size - (size_t)(file + 3 - text), &err);
    check(&got, rc, &err);
    vibe_options_release(&got);
    free(text);
    return 0;
}
