/*
 * error.h - what went wrong, as a code and one sentence.
 *
 * Functions that can fail because of the world (files, memory, devices, what
 * the user asked) return VIBE_OK or a negative enum vibe_err and take a
 * struct vibe_error * last, which may be NULL.  The sentence names the file,
 * tensor or option, what was found and what was expected.  Broken contracts
 * are assertions, not errors.
 */
#ifndef VIBE_BASE_ERROR_H
#define VIBE_BASE_ERROR_H

enum vibe_err {
    VIBE_OK = 0,
    VIBE_E_ARG = -1,         /* caller broke the contract of the header */
    VIBE_E_NOMEM = -2,       /* host or device memory */
    VIBE_E_IO = -3,          /* open, read, write; errno text is in msg */
    VIBE_E_FORMAT = -4,      /* a file is not what it claims to be */
    VIBE_E_UNSUPPORTED = -5, /* valid, but not by this build or model */
    VIBE_E_DEVICE = -6,      /* CUDA or cuBLASLt said no */
};

struct vibe_error {
    int code;
    char msg[256];
};

/* Fill err (may be NULL) and return code: "return vibe_fail(err, ...)". */
int vibe_fail(struct vibe_error *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif /* VIBE_BASE_ERROR_H */
