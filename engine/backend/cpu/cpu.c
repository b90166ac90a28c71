/* The CPU backend itself: opening, memory and streams. */
#include "engine/backend/cpu/cpu.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/state.h"
#include "engine/base/clock.h"
#include "engine/base/device.h"
#include "engine/base/size.h"
#include "offload/transfer.h"

enum { ALIGNMENT = 64 };

/* The host hands out pages when they are touched: nothing to take. */
static int cpu_reserve(struct vibe_backend *be, size_t bytes, size_t scratch,
                       struct vibe_error *err)
{
    (void)be, (void)bytes, (void)scratch, (void)err;
    return VIBE_OK;
}

static void cpu_rest(struct vibe_backend *be)
{
    (void)be;
}

static void cpu_memory(const struct vibe_backend *be, struct vibe_memory *out)
{
    (void)be;
    *out = (struct vibe_memory){0};
}

static void cpu_enter(struct vibe_backend *be)
{
    (void)be;
}

static void cpu_hand_over(struct vibe_stream *to, void *dst,
                          struct vibe_stream *from, const void *src,
                          size_t bytes)
{
    (void)to, (void)from;
    memcpy(dst, src, bytes);
}

static void *cpu_alloc(struct vibe_backend *be, size_t bytes)
{
    void *data = NULL;

    vibe_backend_unsealed(be);
    if (bytes > SIZE_MAX - ALIGNMENT)
        return NULL;
    data = aligned_alloc(ALIGNMENT, vibe_size_round(bytes, ALIGNMENT));
    if (data)
        memset(data, 0, bytes);
    return data;
}

static void cpu_free(struct vibe_backend *be, void *data)
{
    vibe_backend_unsealed(be);
    free(data);
}

static void cpu_trim(struct vibe_backend *be)
{
    (void)be;
    malloc_trim(0);
}

static void cpu_close(struct vibe_backend *be)
{
    struct vibe_cpu *cpu = (struct vibe_cpu *)be;

    free(cpu->scratch.data);
    free(cpu->kernels);
    free(cpu);
}

static int stream_init(struct vibe_stream *s, struct vibe_error *err)
{
    (void)s, (void)err;
    return VIBE_OK;
}

/* Ops have finished when they return: there is nothing to wait for. */
static void stream_nothing(struct vibe_stream *s)
{
    (void)s;
}

static void copy_in(struct vibe_stream *s, void *device, const void *host,
                    size_t bytes)
{
    (void)s;
    memcpy(device, host, bytes);
}

static void copy_out(struct vibe_stream *s, void *host, const void *device,
                     size_t bytes)
{
    (void)s;
    memcpy(host, device, bytes);
}

static void mark(struct vibe_stream *s, size_t i)
{
    vibe_cpu_of(s)->marks[i] = vibe_clock_s();
}

static void beside(struct vibe_stream *s, void (*body)(void *user), void *user)
{
    (void)s;
    body(user);
}

static void meet(struct vibe_stream *s)
{
    (void)s;
}

/* They end when they begin. */
static size_t copied(struct vibe_backend *be, struct vibe_span *out, size_t max)
{
    (void)be, (void)out, (void)max;
    return 0;
}

static double mark_s(struct vibe_stream *s, size_t i)
{
    return vibe_cpu_of(s)->marks[i];
}

/* The machine's memory; what counts power is not for users to read. */
static void meter(struct vibe_backend *be, struct vibe_device_reading *out)
{
    const long pages = sysconf(_SC_PHYS_PAGES);
    const long size = sysconf(_SC_PAGESIZE);
    const size_t left = be->transfer->free_bytes(be);

    *out = (struct vibe_device_reading){.power_w = -1.0, .energy_j = -1.0};
    if (pages <= 0 || size <= 0)
        return;
    out->memory_total = (size_t)pages * (size_t)size;
    out->memory_used = out->memory_total - left;
}

static double probe_bandwidth(struct vibe_backend *be)
{
    return vibe_cpu_probe_bandwidth(((struct vibe_cpu *)be)->threads);
}

/* Nothing is captured: there is no queue to replay into. */
static void graph_run(struct vibe_stream *s, struct vibe_graph **graph,
                      void (*body)(void *user), void *user)
{
    (void)s, (void)graph;
    body(user);
}

static void graph_free(struct vibe_graph *graph)
{
    (void)graph;
}

void *vibe_cpu_scratch(struct vibe_stream *s, size_t bytes)
{
    struct vibe_cpu_scratch *scratch = &vibe_cpu_of(s)->scratch;

    if (bytes <= scratch->bytes)
        return scratch->data;
    vibe_backend_unsealed(s->be);
    free(scratch->data);
    *scratch = (struct vibe_cpu_scratch){0};
    scratch->data = aligned_alloc(ALIGNMENT, vibe_size_round(bytes, ALIGNMENT));
    if (!scratch->data) {
        vibe_fail(&s->err, VIBE_E_NOMEM,
                  "CPU: no memory for %zu bytes of scratch", bytes);
        return NULL;
    }
    scratch->bytes = bytes;
    return scratch->data;
}

/* From plain C up to isa, each set replacing what it does better. */
static int take_ops(struct vibe_cpu *cpu, struct vibe_error *err)
{
    vibe_cpu_reference_init(&cpu->ops);
    if (cpu->isa == VIBE_CPU_SCALAR)
        return VIBE_OK;
    cpu->kernels = calloc(1, sizeof(*cpu->kernels));
    if (!cpu->kernels)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for the CPU backend");
    vibe_cpu_avx2_init(cpu->kernels);
    if (cpu->isa >= VIBE_CPU_AVX512)
        vibe_cpu_avx512_init(cpu->kernels);
    vibe_cpu_linear_init(&cpu->ops);
    vibe_cpu_gemm_init(&cpu->ops);
    vibe_cpu_rows_init(&cpu->ops);
    vibe_cpu_attention_init(&cpu->ops);
    if (cpu->isa >= VIBE_CPU_AMX)
        vibe_cpu_amx_init(&cpu->ops);
    return VIBE_OK;
}

int vibe_cpu_open_isa(struct vibe_backend **out, enum vibe_cpu_isa isa,
                      int threads, struct vibe_error *err)
{
    struct vibe_cpu *cpu = NULL;

    *out = NULL;
    if (!vibe_cpu_has(isa))
        return vibe_fail(err, VIBE_E_UNSUPPORTED,
                         "this CPU does not run %s kernels",
                         vibe_cpu_isa_name(isa));
    cpu = calloc(1, sizeof(*cpu));
    if (!cpu)
        return vibe_fail(err, VIBE_E_NOMEM, "no memory for the CPU backend");

    cpu->isa = isa;
    cpu->threads = threads > 0 ? threads : vibe_cpu_threads();
    cpu->base.is_exact = 1;
    if (take_ops(cpu, err)) {
        free(cpu);
        return VIBE_E_NOMEM;
    }
    cpu->ops.enter = cpu_enter;
    cpu->ops.hand_over = cpu_hand_over;
    cpu->ops.reserve = cpu_reserve;
    cpu->ops.rest = cpu_rest;
    cpu->ops.trim = cpu_trim;
    cpu->ops.memory = cpu_memory;
    cpu->ops.alloc = cpu_alloc;
    cpu->ops.free = cpu_free;
    cpu->ops.matrix_load = vibe_cpu_matrix_load;
    cpu->ops.matrix_release = vibe_cpu_matrix_release;
    cpu->ops.matrix_measure = vibe_cpu_matrix_measure;
    cpu->ops.piece_bytes = vibe_cpu_piece_bytes;
    cpu->ops.matrix_lay = vibe_cpu_matrix_lay;
    cpu->ops.matrix_load_small = vibe_cpu_matrix_load_small;
    cpu->ops.matrix_fill = vibe_cpu_matrix_fill;
    cpu->ops.close = cpu_close;
    cpu->ops.stream_init = stream_init;
    cpu->ops.stream_release = stream_nothing;
    cpu->ops.sync = stream_nothing;
    cpu->ops.meter = meter;
    cpu->ops.mark = mark;
    cpu->ops.mark_s = mark_s;
    cpu->ops.beside = beside;
    cpu->ops.meet = meet;
    cpu->ops.copied = copied;
    cpu->ops.probe_bandwidth = probe_bandwidth;
    cpu->ops.graph_run = graph_run;
    cpu->ops.graph_free = graph_free;
    cpu->ops.write = copy_in;
    cpu->ops.read = copy_out;
    cpu->base.ops = &cpu->ops;
    cpu->base.transfer = &vibe_cpu_transfer;
    snprintf(cpu->base.name, sizeof(cpu->base.name), "CPU, %d thread%s, %s",
             cpu->threads, cpu->threads == 1 ? "" : "s",
             vibe_cpu_isa_name(isa));
    *out = &cpu->base;
    return VIBE_OK;
}

/* The kernels of that name; VIBE_CPU_N_ISA when there are none. */
static enum vibe_cpu_isa isa_by_name(const char *name)
{
    enum vibe_cpu_isa isa = VIBE_CPU_SCALAR;

    while (isa < VIBE_CPU_N_ISA && strcmp(name, vibe_cpu_isa_name(isa)) != 0)
        isa++;
    return isa;
}

static enum vibe_cpu_isa best_isa(void)
{
    enum vibe_cpu_isa best = VIBE_CPU_SCALAR;

    for (enum vibe_cpu_isa isa = best; isa < VIBE_CPU_N_ISA; isa++)
        if (vibe_cpu_has(isa))
            best = isa;
    return best;
}

int vibe_cpu_open(struct vibe_backend **out,
                  const struct vibe_backend_options *options,
                  struct vibe_error *err)
{
    const char *name = getenv("VIBEVOICE_CPU_ISA");
    enum vibe_cpu_isa isa = name && *name ? isa_by_name(name) : best_isa();
    int rc;

    *out = NULL;
    if (isa == VIBE_CPU_N_ISA)
        return vibe_fail(err, VIBE_E_ARG,
                         "VIBEVOICE_CPU_ISA is '%s', expected scalar, avx2, "
                         "avx512 or amx",
                         name);
    rc = vibe_cpu_open_isa(out, isa, options->threads, err);
    if (rc == VIBE_OK)
        (*out)->is_exact = options->is_exact;
    return rc;
}
