/*
 * spoken.h - what a model says, to be compared bit for bit.
 */
#ifndef VIBE_TEST_SPOKEN_H
#define VIBE_TEST_SPOKEN_H

#include <stddef.h>
#include <stdint.h>

struct vibe_engine;
struct vibe_script;

enum {
    SPOKEN_HOP = 3200,
    SPOKEN_FRAMES = 3,    /* of each dialogue */
    SPOKEN_DIALOGUES = 2, /* at most */
};

struct spoken {
    float samples[SPOKEN_DIALOGUES * SPOKEN_FRAMES * SPOKEN_HOP];
    size_t n;
};

/* A dialogue of two turns, which has a prompt of several rows; 0 or -1. */
int spoken_script(struct vibe_script *out);

/* Append what a dialogue sounds like with a seed. */
void spoken_add(struct spoken *spoken, struct vibe_engine *engine,
                const struct vibe_script *script, uint64_t seed);

/* Both have something, and the same. */
void spoken_assert_same(const struct spoken *got, const struct spoken *want);

#endif /* VIBE_TEST_SPOKEN_H */
