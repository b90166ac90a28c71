/*
 * fuzz_tokenizer.c - any bytes as the files of a tokenizer, and as a text.
 *
 * The input is up to four parts with a byte 0x1E between them.  The first byte
 * says what they are:
 *
 *   T  tokenizer.json, text
 *   P  vocab.json, merges.txt, text, tokenizer_config.json
 *   M  the same, but of vocab.json only the members that follow those of the
 *      256 bytes, without which no vocabulary is accepted
 *
 * Whatever tokenizer is accepted must spell the text when its ids are decoded.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "engine/base/error.h"
#include "engine/text/nfc.h"
#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_build.h"
#include "engine/text/utf8.h"

enum { MAX_PARTS = 4, SEPARATOR = 0x1E, BYTES_ROOM = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(int holds)
{
    if (!holds)
        abort();
}

/* Cut the input; parts that are not there have no data. */
static void split(struct vibe_text_file *parts, const char *data, size_t size)
{
    const char *end = data + size;

    for (int i = 0; i < MAX_PARTS; i++) {
        const char *stop = data ? memchr(data, SEPARATOR, (size_t)(end - data))
                                : NULL;

        parts[i] = (struct vibe_text_file){.name = "fuzz", .data = data};
        if (!data)
            continue;
        parts[i].n = (size_t)((stop ? stop : end) - data);
        data = stop ? stop + 1 : NULL;
    }
}

/* A vocab.json of the 256 bytes and some members; owned by the caller. */
static char *with_bytes(const struct vibe_text_file *members, size_t *n)
{
    char *text = malloc(BYTES_ROOM + members->n);
    size_t at = 0;

    expect(text != NULL);
    for (int byte = 0; byte < 256; byte++) {
        uint32_t cp = vibe_vocab_byte_char((unsigned char)byte);
        utf8proc_uint8_t utf8[5] = {0};

        utf8proc_encode_char((utf8proc_int32_t)cp, utf8);
        at += (size_t)snprintf(
            text + at, BYTES_ROOM - at, "%s\"%s%s\":%d", byte ? "," : "{",
            byte == '"' || byte == '\\' ? "\\" : "", (const char *)utf8, byte);
    }
    memcpy(text + at, members->data, members->n);
    at += members->n;
    text[at++] = '}';
    *n = at;
    return text;
}

/* The bytes that ids stand for; owned by the caller. */
static char *decode(const struct vibe_tokenizer *tokenizer,
                    const struct vibe_ids *ids, size_t *n)
{
    char *out = NULL;

    *n = 0;
    for (size_t i = 0; i < ids->n; i++) {
        size_t len = vibe_tokenizer_decode(tokenizer, NULL, 0, ids->ids[i]);

        expect(len > 0);
        out = realloc(out, *n + len);
        expect(out != NULL);
        vibe_tokenizer_decode(tokenizer, out + *n, len, ids->ids[i]);
        *n += len;
    }
    return out;
}

/* Encoded as text and decoded, a text is itself in NFC. */
static void check_text(const struct vibe_tokenizer *tokenizer, const char *text,
                       size_t n)
{
    struct vibe_ids ids = {0};
    char *normal = NULL;
    char *back;
    size_t n_back;
    size_t n_normal = n;

    expect(vibe_tokenizer_encode(tokenizer, &ids, text, n, VIBE_SPECIAL_TEXT,
                                 NULL) == VIBE_OK);
    back = decode(tokenizer, &ids, &n_back);
    if (tokenizer->is_nfc)
        expect(vibe_nfc(&normal, &n_normal, text, n, NULL) == VIBE_OK);
    expect(n_back == n_normal);
    expect(n == 0 || memcmp(back, normal ? normal : text, n_normal) == 0);
    free(back);
    free(normal);

    ids.n = 0;
    expect(vibe_tokenizer_encode(tokenizer, &ids, text, n, VIBE_SPECIAL_PARSE,
                                 NULL) == VIBE_OK);
    vibe_ids_release(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vibe_text_file parts[MAX_PARTS];
    struct vibe_tokenizer_files files = {0};
    struct vibe_text_file text;
    struct vibe_tokenizer *tokenizer = NULL;
    struct vibe_error err = {0};
    char *vocab = NULL;
    uint8_t mode = size > 0 ? data[0] : 'T';

    split(parts, (const char *)data + (size > 0), size - (size > 0));
    if (!parts[0].data)
        return 0;
    files.tokenizer = parts[0];
    text = parts[1];
    if (mode == 'P' || mode == 'M') {
        files = (struct vibe_tokenizer_files){
            .vocab = parts[0], .merges = parts[1], .config = parts[3]};
        text = parts[2];
    }
    if (mode == 'M') {
        vocab = with_bytes(&parts[0], &files.vocab.n);
        files.vocab.data = vocab;
    }

    if (vibe_tokenizer_parse(&tokenizer, &files, &err))
        expect(err.msg[0] && !tokenizer);
    else if (text.data && vibe_utf8_check(text.data, text.n) == text.n)
        check_text(tokenizer, text.data, text.n);
    vibe_tokenizer_free(tokenizer);
    free(vocab);
    return 0;
}
