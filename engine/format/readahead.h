/*
 * readahead.h - bring a checkpoint's pages in before its tensors are asked for.
 *
 * Whoever loads a matrix lays its rows out and sends them: meanwhile threads
 * read the tensors to come, from the disk or, where the system has them in
 * memory, into this process's page tables.
 */
#ifndef VIBE_FORMAT_READAHEAD_H
#define VIBE_FORMAT_READAHEAD_H

struct vibe_readahead;
struct vibe_weights;

/*
 * Start to read all tensors in the order of the files; NULL where no thread
 * can be had, which does no harm.
 *
 *   w   borrowed until vibe_readahead_end
 */
struct vibe_readahead *vibe_readahead_begin(const struct vibe_weights *w,
                                            int threads);

/* Wait until all is read, as before a test; NULL is allowed. */
void vibe_readahead_wait(struct vibe_readahead *r);

/* Stop and release; NULL is allowed. */
void vibe_readahead_end(struct vibe_readahead *r);

#endif /* VIBE_FORMAT_READAHEAD_H */
