/*
 * st_writer.h - malformed and enormous safetensors files for tests.
 *
 * Sound small files are written by engine/format/safetensors_write.h.
 */
#ifndef ST_WRITER_H
#define ST_WRITER_H

#include <stddef.h>

/* A folder below /tmp that one test may fill; removed with all it holds. */
struct st_dir {
    char path[64];
};

void st_dir_make(struct st_dir *dir);
void st_dir_remove(struct st_dir *dir);

/* "dir/name", valid until the next four calls. */
const char *st_path(const struct st_dir *dir, const char *name);

/* Write text as a file. */
void st_write_text(const char *path, const char *text);

/*
 * Write a length, a header as it is, and n_data bytes of zeros, which take no
 * space on disk.
 *
 *   length   what the file says of its header; SIZE_MAX: the truth
 */
void st_write_raw(const char *path, size_t length, const char *header,
                  size_t n_data);

/* Overwrite n bytes at an offset into the data of a file written so. */
void st_poke(const char *path, size_t offset, const void *bytes, size_t n);

/* Builds a header of tensors that follow each other. */
struct st_header {
    char *text;
    size_t n, capacity;
    size_t n_data; /* bytes of the tensors so far */
};

/* shape is "[2,3]"; n_bytes what it takes. */
void st_header_add(struct st_header *h, const char *name, const char *dtype,
                   const char *shape, size_t n_bytes);

/* Close the header and write the file, data all zeros; frees the header. */
void st_header_write(struct st_header *h, const char *path);

#endif /* ST_WRITER_H */
