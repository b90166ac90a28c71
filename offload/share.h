/*
 * share.h - how much of what is streamed the host could multiply itself.
 *
 * The link and the CPU take their bytes from the same memory, so each is
 * measured while the other one works.
 */
#ifndef VIBE_OFFLOAD_SHARE_H
#define VIBE_OFFLOAD_SHARE_H

#include <stddef.h>

struct vibe_backend;
struct vibe_error;
struct vibe_transfer;

/* Bytes of weights per second. */
struct vibe_share_rates {
    double alone; /* copied while the host does nothing */
    double link;  /* copied while it multiplies */
    double host;  /* multiplied while the link copies */
};

/* What the host does meanwhile, in a thread of its own. */
struct vibe_share_work {
    size_t (*work)(void *user); /* for some milliseconds; returns its bytes */
    void *user;
};

/*
 * Measure; takes about half a second and memory for a moment.
 *
 * Errors: VIBE_E_NOMEM, VIBE_E_DEVICE
 */
int vibe_share_measure(struct vibe_share_rates *out, struct vibe_backend *be,
                       const struct vibe_transfer *move,
                       const struct vibe_share_work *work,
                       struct vibe_error *err);

/* The share of streamed rows with which both end at the same time; 0 where
 * they are no faster together than the link alone. */
double vibe_share_choose(const struct vibe_share_rates *rates);

/* The same where a share is asked for: that, unless the link alone would bring
 * everything sooner than the host is done with it. */
double vibe_share_allow(const struct vibe_share_rates *rates, double asked);

#endif /* VIBE_OFFLOAD_SHARE_H */
