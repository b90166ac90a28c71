/*
 * fuzz_manifest.c - any manifest is taken or refused with a sentence, and what
 * is taken can name files and be spoken.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/failure.h"
#include "cli/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_entry(const struct vibe_entry *entry)
{
    if (!entry->id || !*entry->id || *entry->id == '.' ||
        strchr(entry->id, '/') || !entry->path == !entry->text)
        abort();
    if (entry->has_steps && (entry->steps < 1 || entry->steps > 1000))
        abort();
    if (entry->has_seed && entry->seed < 0)
        abort();
    for (size_t i = 0; i < entry->voices.n; i++)
        if (!*entry->voices.items[i])
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vibe_manifest manifest = {0};
    struct vibe_failure why = {0};
    FILE *file = size ? fmemopen((void *)(uintptr_t)data, size, "r") : NULL;
    enum vibe_exit status;

    if (!file)
        return 0;
    status = vibe_manifest_parse(&manifest, "jobs.jsonl", file, &why);
    if ((status != VIBE_EXIT_OK) != (why.err.msg[0] != '\0'))
        abort();
    for (size_t i = 0; status == VIBE_EXIT_OK && i < manifest.n; i++)
        check_entry(&manifest.entries[i]);
    vibe_manifest_release(&manifest);
    fclose(file);
    return 0;
}
