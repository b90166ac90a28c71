/*
 * exit.h - what the program's exit status means.
 */
#ifndef VIBE_CLI_EXIT_H
#define VIBE_CLI_EXIT_H

#include <stddef.h>

enum vibe_exit {
    VIBE_EXIT_OK = 0,
    VIBE_EXIT_FAILED = 1, /* while generating; one of several scripts */
    VIBE_EXIT_USAGE = 2,  /* unknown option, bad value, conflict */
    VIBE_EXIT_INPUT = 3,  /* model, voice or script missing or malformed */
    VIBE_EXIT_OUTPUT = 4, /* cannot be created, disk full, would overwrite */
    VIBE_EXIT_DEVICE = 5, /* asked for and not usable */
    VIBE_EXIT_MEMORY = 6, /* does not fit with the options given */
    VIBE_EXIT_SIGHUP = 129,
    VIBE_EXIT_SIGINT = 130,
    VIBE_EXIT_SIGPIPE = 141,
    VIBE_EXIT_SIGTERM = 143,
};

/* The statuses and their meanings, for --help and the manual page. */
struct vibe_exit_meaning {
    int code;
    const char *meaning;
};

extern const struct vibe_exit_meaning vibe_exit_meanings[];
extern const size_t vibe_exit_n_meanings;

/*
 * The status for an error (enum vibe_err) met before anything is spoken, when
 * files are what it is about.
 *
 *   io  the status of VIBE_E_IO, VIBE_E_FORMAT and VIBE_E_UNSUPPORTED:
 *       VIBE_EXIT_INPUT or VIBE_EXIT_OUTPUT
 */
enum vibe_exit vibe_exit_of(int code, enum vibe_exit io);

#endif /* VIBE_CLI_EXIT_H */
