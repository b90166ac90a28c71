/*
 * card.h - graphics cards that many people have, for --print-table.
 */
#ifndef VIBE_OFFLOAD_CARD_H
#define VIBE_OFFLOAD_CARD_H

#include <stddef.h>

#include "offload/plan.h"

struct vibe_card {
    const char *name; /* "RTX 3060" */
    size_t bytes;     /* of memory that a program can have */
    struct vibe_plan_rates rates;
};

extern const struct vibe_card vibe_cards[];
extern const size_t vibe_n_cards;

#endif /* VIBE_OFFLOAD_CARD_H */
