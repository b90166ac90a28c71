/*
 * frame.h - one frame of speech: two hidden states in, 133 ms of audio and
 * the next input of the language model out.
 *
 *   noise -> latent -> pcm -> semantic features -> next embedding
 *
 * The first n of D dialogues take the same steps at once.  Whether a frame was
 * wanted is known only after it ran (the language model's choice of token is
 * read back together with the samples), so a frame can be undone.
 */
#ifndef VIBE_FRAME_H
#define VIBE_FRAME_H

#include "engine/backend/ops.h"

struct vibe_models;

/* D dialogues; every tensor is on the device. */
struct vibe_frame {
    const struct vibe_models *models; /* borrowed */
    size_t n;                         /* dialogues that take part */
    struct vibe_tensor cfg_scale;     /* [1][1][D] */
    struct vibe_tensor keys;          /* [D] struct vibe_noise_key */
    struct vibe_tensor latent;        /* [D][1][latent], connector's scale */
    struct vibe_tensor unscaled;      /* [D][1][latent], decoder's scale */
    struct vibe_tensor pcm;           /* [D][hop][1] */
    struct vibe_tensor semantic;      /* [D][1][semantic] */
    struct vibe_tensor next;          /* [D][1][hidden] */
    /* [D][1][decoder's, then encoder's]: what the codec leaves is in [now],
     * what it goes on from in the other */
    struct vibe_tensor state[2];
    int now;
};

/*
 * Allocate the tensors; the codec starts silent.
 *
 *   f   all zero; release with vibe_frame_release, also after an error
 *
 * Errors: VIBE_E_NOMEM
 */
int vibe_frame_init(struct vibe_frame *f, const struct vibe_models *models,
                    struct vibe_error *err);
void vibe_frame_release(struct vibe_frame *f);

/* latent = the noise named by keys [n], host. */
void vibe_frame_noise(struct vibe_frame *f, struct vibe_stream *s,
                      const struct vibe_noise_key *keys);

/* The stages in their order, after vibe_frame_turn; each reads what the one
 * before has left. */
void vibe_frame_latent(struct vibe_frame *f, struct vibe_stream *s,
                       const struct vibe_tensor *cond); /* [2 * n][1][H] */
void vibe_frame_decode(struct vibe_frame *f, struct vibe_stream *s);
void vibe_frame_listen(struct vibe_frame *f, struct vibe_stream *s);
void vibe_frame_connect_latent(struct vibe_frame *f, struct vibe_stream *s);
void vibe_frame_connect_semantic(struct vibe_frame *f, struct vibe_stream *s);

/* Have the stages go on from what they have left; where that is alternates. */
void vibe_frame_turn(struct vibe_frame *f);

/* Dialogue d did not want what followed vibe_frame_turn: bring back what was
 * before. */
void vibe_frame_undo(struct vibe_frame *f, struct vibe_stream *s, size_t d);

/* Dialogue from goes on as dialogue to. */
void vibe_frame_move(struct vibe_frame *f, struct vibe_stream *s, size_t to,
                     size_t from);

/* Dialogue d falls silent: its next frame is decoded as a first one. */
void vibe_frame_silence(struct vibe_frame *f, struct vibe_stream *s, size_t d);

#endif /* VIBE_FRAME_H */
