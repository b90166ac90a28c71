/*
 * script.h - who says what: a text or JSON script as a list of turns.
 *
 * In a text, "Speaker N:" begins a turn: in any case, between any blanks, with
 * ':' or the full-width U+FF1A, N in ASCII or full-width digits.  Lines end in
 * LF, CR or both; blanks around them do not count, and a line of blanks is
 * skipped.  Every other line continues the turn above it, joined by one space.
 * Lines before the first "Speaker N:" are a turn of their own, said by the
 * lowest speaker of the script; a text that names none is one turn, said by
 * speaker 1.  A turn may be empty: "Speaker N:" with nothing after it.
 *
 * In JSON, [{"speaker": 1, "text": "..."}, ...], every object is a turn, and
 * line breaks in its text are joined in the same way.  The speaker may also be
 * a string, "1".  Objects whose text is blank are skipped, as the reference
 * does, and counted; other members of an object are ignored.
 *
 * Scripts are UTF-8 with or without a byte-order mark.  All else that the text
 * says is kept as it is written.
 */
#ifndef VIBE_TEXT_SCRIPT_H
#define VIBE_TEXT_SCRIPT_H

#include <stddef.h>

struct vibe_error;

enum {
    VIBE_SCRIPT_MAX_BYTES = 16 << 20,
    VIBE_SCRIPT_MAX_SPEAKER = 9999,
    VIBE_SCRIPT_PLAIN_SPEAKER = 1, /* says a text that names no speaker */
};

struct vibe_turn {
    int speaker;      /* as written, 0 to VIBE_SCRIPT_MAX_SPEAKER */
    const char *text; /* UTF-8 without blanks at its ends, one line; borrowed
                         until vibe_script_release */
    size_t line;      /* where the turn begins, from 1: a line of the text, or
                         an object of the JSON array */
};

/* Fields are for reading. */
struct vibe_script {
    struct vibe_turn *turns; /* [n_turns] owned; at least one */
    size_t n_turns;
    int lowest;       /* the lowest speaker of all turns */
    size_t n_skipped; /* objects with blank text that are not among turns */
    char *text;       /* owned; the texts of the turns */
};

/*
 * Read a script; a name ending in .json means JSON, any other a text.
 *
 *   out      release with vibe_script_release; untouched on error
 *   path     "-" for standard input, which is JSON when it begins with '[' and
 *            is valid JSON throughout
 *
 * Errors: VIBE_E_IO      cannot be opened or read
 *         VIBE_E_FORMAT  more than VIBE_SCRIPT_MAX_BYTES; not UTF-8, or a NUL
 *                        byte, with its offset; not JSON, or not of that form;
 *                        a speaker out of range; nothing but blanks
 *         VIBE_E_NOMEM
 */
int vibe_script_read(struct vibe_script *out, const char *path,
                     struct vibe_error *err);

/*
 * Parse a script in memory.
 *
 *   out      as for vibe_script_read
 *   name     begins the messages, as a path does
 *   text     [n] borrowed for this call
 *
 * Errors: those of vibe_script_read but for VIBE_E_IO
 */
int vibe_script_parse_text(struct vibe_script *out, const char *name,
                           const char *text, size_t n, struct vibe_error *err);
int vibe_script_parse_json(struct vibe_script *out, const char *name,
                           const char *text, size_t n, struct vibe_error *err);

/*
 * Return the number by which the model is told of a speaker.
 *
 * Scripts count speakers from 1 and the model from 0: 1 is subtracted from
 * every id unless a speaker 0 appears.  Gaps stay.
 */
int vibe_script_number(const struct vibe_script *script, int speaker);

/*
 * List the distinct speakers in ascending order.
 *
 *   ids      [cap] filled as far as it reaches; NULL when cap is 0
 *
 * Return their number, which may be more than cap.
 */
size_t vibe_script_speakers(const struct vibe_script *script, int *ids,
                            size_t cap);

/* Free everything; the struct is then all zero. */
void vibe_script_release(struct vibe_script *script);

#endif /* VIBE_TEXT_SCRIPT_H */
