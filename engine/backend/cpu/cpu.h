/*
 * cpu.h - the CPU backend: open it, and what this processor can do.
 *
 * Ops run on the caller's thread and its OpenMP team and have finished when
 * they return.  Scratch memory belongs to the backend, so all its streams are
 * to be used by one thread at a time.
 */
#ifndef VIBE_BACKEND_CPU_H
#define VIBE_BACKEND_CPU_H

struct vibe_backend;
struct vibe_backend_options;
struct vibe_error;

/* Sets of instructions, each with its own kernels; a later one is faster. */
enum vibe_cpu_isa {
    VIBE_CPU_SCALAR, /* plain C: the reference */
    VIBE_CPU_AVX2,   /* with FMA and F16C */
    VIBE_CPU_AVX512, /* F, BW, DQ, VL */
    VIBE_CPU_AMX,    /* bf16 tiles, beside AVX-512 */
    VIBE_CPU_N_ISA,
};

/* "scalar", "avx2", "avx512", "amx". */
const char *vibe_cpu_isa_name(enum vibe_cpu_isa isa);

/* Whether this processor and kernel run it. */
int vibe_cpu_has(enum vibe_cpu_isa isa);

/*
 * Open the CPU with the best kernels it runs, or with those that the
 * environment variable VIBEVOICE_CPU_ISA names.
 *
 *   out   set to the backend, or to NULL on error; free with vibe_backend_free
 *
 * Errors: VIBE_E_UNSUPPORTED  the variable names kernels this CPU cannot run
 *         VIBE_E_ARG          it names none we have
 *         VIBE_E_NOMEM
 */
int vibe_cpu_open(struct vibe_backend **out,
                  const struct vibe_backend_options *options,
                  struct vibe_error *err);

/* The same with the kernels named by the caller; the variable is not read. */
int vibe_cpu_open_isa(struct vibe_backend **out, enum vibe_cpu_isa isa,
                      int threads, struct vibe_error *err);

/* Threads that this process may use: its affinity, and the quota of its
 * control group rounded up. */
int vibe_cpu_threads(void);

/*
 * Measure how fast memory can be read, in bytes per second, by that many
 * threads over a buffer larger than any cache.  Takes about half a second and
 * 512 MB; 0 when there is no memory for it.
 */
double vibe_cpu_probe_bandwidth(int threads);

#endif /* VIBE_BACKEND_CPU_H */
