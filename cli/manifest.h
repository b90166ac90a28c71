/*
 * manifest.h - the dialogues of a batch: a manifest, a folder or a pattern.
 *
 * A manifest is JSONL, an object a line:
 *
 *   {"id": "one", "txt_path": "one.txt",
 *    "voice_files": ["ann.wav", "2=bob.wav"], "output": "out/one.wav",
 *    "seed": 42, "cfg_scale": 1.3, "steps": 10}
 *
 * "text" may stand for "txt_path", "voices" for "voice_files"; all but the
 * script may be left out, and blank lines and those of '#' are.  Any other key
 * is an error.  Paths are relative to the working directory.
 */
#ifndef VIBE_CLI_MANIFEST_H
#define VIBE_CLI_MANIFEST_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "cli/exit.h"
#include "cli/options.h"

struct vibe_failure;

/* What is asked of one dialogue; strings are owned. */
struct vibe_entry {
    char *place; /* for messages: "jobs.jsonl:7", or the script's path */
    char *id;    /* fit for a file name */
    char *path;  /* of the script, or NULL */
    char *text;  /* the script, or NULL */
    struct vibe_words voices; /* "FILE" or "N=FILE"; the words owned too */
    const char *voices_field; /* that names them, in quotes; NULL: none does */
    char *output;             /* or NULL */
    int has_seed, has_cfg_scale, has_steps;
    int64_t seed, steps;
    double cfg_scale;
};

struct vibe_manifest {
    struct vibe_entry *entries; /* [n] owned */
    size_t n;
    char *name; /* of the whole, fit for a file name; owned */
};

/*
 * List what a batch consists of; no script is read.
 *
 *   out     release with vibe_manifest_release, also after a failure
 *   source  a folder: its .txt and .json files by name; a pattern with one of
 *           "*?[": the files it matches; else a manifest, "-" from standard
 *           input
 *   others  files that are no scripts though a folder holds them; items may
 *           be NULL
 *
 * Fails with VIBE_EXIT_INPUT, naming line and field, if anything is not as
 * above, if there is nothing, or if two dialogues have the same id.
 */
enum vibe_exit vibe_manifest_read(struct vibe_manifest *out, const char *source,
                                  const struct vibe_words *others,
                                  struct vibe_failure *why);

/*
 * Read a manifest from an open file.
 *
 *   name   of it, for messages
 */
enum vibe_exit vibe_manifest_parse(struct vibe_manifest *out, const char *name,
                                   FILE *file, struct vibe_failure *why);

void vibe_manifest_release(struct vibe_manifest *manifest);

#endif /* VIBE_CLI_MANIFEST_H */
