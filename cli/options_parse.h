/*
 * options_parse.h - words of options that are neither numbers nor choices.
 *
 * Each takes a word into the options and returns 0, or returns -1 after
 * pointing want at what was expected: "is not one of auto, cuda, cpu".
 */
#ifndef VIBE_CLI_OPTIONS_PARSE_H
#define VIBE_CLI_OPTIONS_PARSE_H

struct vibe_options;

int vibe_parse_max_vram(struct vibe_options *out, const char *word,
                        const char **want);
int vibe_parse_device(struct vibe_options *out, const char *word,
                      const char **want);
int vibe_parse_batch_size(struct vibe_options *out, const char *word,
                          const char **want);
int vibe_parse_shard(struct vibe_options *out, const char *word,
                     const char **want);

#endif /* VIBE_CLI_OPTIONS_PARSE_H */
