/*
 * help.h - what the option table says to people and shells.
 */
#ifndef VIBE_CLI_HELP_H
#define VIBE_CLI_HELP_H

#include <stdio.h>

/* -h: the everyday options and three examples. */
void vibe_help_short(FILE *out);

/* --help: every option, by group; then exit statuses. */
void vibe_help_full(FILE *out);

/* --man: the manual page, in man(7) macros. */
void vibe_help_man(FILE *out);

/* --completion bash. */
void vibe_help_completion(FILE *out);

/* --version: one line whose first two words are stable. */
void vibe_help_version(FILE *out);

#endif /* VIBE_CLI_HELP_H */
