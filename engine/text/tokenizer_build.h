/*
 * tokenizer_build.h - from what a tokenizer's files say to a tokenizer.
 *
 * For engine/text only.  tokenizer_load.c finds the parts in the files,
 * tokenizer_build.c checks them against each other, tokenizer.c uses them.
 */
#ifndef VIBE_TEXT_TOKENIZER_BUILD_H
#define VIBE_TEXT_TOKENIZER_BUILD_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/text/bpe.h"
#include "engine/text/vocab.h"

struct vibe_error;
struct vibe_tokenizer;

enum {
    VIBE_TOKENIZER_MAX_IDS = 1 << 20, /* far beyond any published one */
};

/* A file in memory; data is NULL when there is none. */
struct vibe_text_file {
    const char *name; /* borrowed; for messages */
    const char *data; /* [n] borrowed */
    size_t n;
};

/* Either tokenizer alone, or vocab and merges and perhaps config. */
struct vibe_tokenizer_files {
    struct vibe_text_file tokenizer; /* tokenizer.json */
    struct vibe_text_file vocab;     /* vocab.json */
    struct vibe_text_file merges;    /* merges.txt */
    struct vibe_text_file config;    /* tokenizer_config.json */
};

struct vibe_added_token {
    const char *text; /* borrowed from whoever holds the array */
    size_t n;         /* bytes of it */
    int32_t id;
};

/* What the files say, not yet checked.  Everything in it is borrowed. */
struct vibe_tokenizer_source {
    const char *vocab_name;
    const json_t *vocab; /* an object */
    const char *merges_name;
    const json_t *merge_list; /* an array, or NULL: then merge_text */
    struct vibe_text_file merge_text;
    const char *added_name;
    const struct vibe_added_token *added; /* [n_added] */
    size_t n_added;
    bool is_nfc; /* text is normalised to NFC */
};

struct vibe_tokenizer {
    struct vibe_vocab vocab;
    struct vibe_bpe bpe;
    struct vibe_added_token *added; /* [n_added] owned; longest first; the
                                       texts are pieces of vocab */
    size_t n_added;
    bool starts_added[256]; /* the byte begins an added token */
    bool is_nfc;
};

/*
 * Make a tokenizer of files in memory, as vibe_tokenizer_open does.
 *
 *   out      set to the tokenizer, or to NULL on error
 *   files    borrowed for this call
 *
 * Errors: those of vibe_tokenizer_open but for VIBE_E_IO
 */
int vibe_tokenizer_parse(struct vibe_tokenizer **out,
                         const struct vibe_tokenizer_files *files,
                         struct vibe_error *err);

/*
 * Fill in an all-zero tokenizer; what has been filled in after an error is
 * freed by vibe_tokenizer_free like the rest.
 *
 * Errors: VIBE_E_FORMAT  an entry has no number for an id, or one that is out
 *                        of range or taken; ids of the vocabulary leave a gap;
 *                        a byte has no entry; a merge is not of two entries
 *                        into a third, or comes twice; no merge makes an entry
 *         VIBE_E_NOMEM
 */
int vibe_tokenizer_build(struct vibe_tokenizer *tokenizer,
                         const struct vibe_tokenizer_source *source,
                         struct vibe_error *err);

#endif /* VIBE_TEXT_TOKENIZER_BUILD_H */
