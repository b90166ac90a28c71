/*
 * version.h - which release this is.
 */
#ifndef VIBE_CLI_VERSION_H
#define VIBE_CLI_VERSION_H

#define VIBE_VERSION "0.1.0"

#endif /* VIBE_CLI_VERSION_H */
