/*
 * fuzz_script.c - any bytes as a text script and as a JSON script.
 *
 * What is accepted must be what the header promises, and must read the same
 * when its turns are written down and read again.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/text/script.h"
#include "engine/text/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(int holds)
{
    if (!holds)
        abort();
}

static void check_turn(const struct vibe_script *script, size_t i)
{
    const struct vibe_turn *turn = &script->turns[i];
    size_t n = strlen(turn->text);

    expect(turn->speaker >= script->lowest);
    expect(turn->speaker <= VIBE_SCRIPT_MAX_SPEAKER);
    expect(turn->line > 0);
    expect(i == 0 || turn->line > turn[-1].line);
    expect(vibe_utf8_check(turn->text, n) == n);
    expect(!strpbrk(turn->text, "\r\n"));
    if (n > 0)
        expect(!vibe_utf8_is_space((unsigned char)turn->text[0]));
}

static void check_speakers(const struct vibe_script *script)
{
    int ids[4] = {0};
    size_t n = vibe_script_speakers(script, ids, 4);

    expect(n >= 1 && ids[0] == script->lowest);
    for (size_t i = 1; i < n && i < 4; i++)
        expect(ids[i] > ids[i - 1]);
    expect(vibe_script_number(script, script->lowest) >= 0);
}

/* Write the turns down and read them again. */
static void check_again(const struct vibe_script *script, size_t size)
{
    struct vibe_script again = {0};
    size_t cap = size + 32 * script->n_turns;
    char *text = malloc(cap);
    size_t n = 0;

    expect(text != NULL);
    for (size_t i = 0; i < script->n_turns; i++)
        n += (size_t)snprintf(text + n, cap - n, "Speaker %d: %s\n",
                              script->turns[i].speaker, script->turns[i].text);
    expect(n < cap);
    expect(vibe_script_parse_text(&again, "again", text, n, NULL) == VIBE_OK);
    expect(again.n_turns == script->n_turns);
    for (size_t i = 0; i < again.n_turns; i++) {
        expect(again.turns[i].speaker == script->turns[i].speaker);
        expect(strcmp(again.turns[i].text, script->turns[i].text) == 0);
    }
    vibe_script_release(&again);
    free(text);
}

static void try_one(int (*parse)(struct vibe_script *, const char *,
                                 const char *, size_t, struct vibe_error *),
                    const uint8_t *data, size_t size)
{
    struct vibe_script script = {0};
    struct vibe_error err = {0};

    if (parse(&script, "fuzz", (const char *)data, size, &err)) {
        expect(err.msg[0] && !script.turns);
        return;
    }
    for (size_t i = 0; i < script.n_turns; i++)
        check_turn(&script, i);
    check_speakers(&script);
    check_again(&script, size);
    vibe_script_release(&script);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    try_one(vibe_script_parse_text, data, size);
    try_one(vibe_script_parse_json, data, size);
    return 0;
}
