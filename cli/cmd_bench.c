/* --test-speed and --self-test: how fast, and is it right? */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/json.h"
#include "cli/stats.h"
#include "engine/base/clock.h"
#include "engine/vibevoice.h"

/* What the numbers of a run say together. */
struct speed {
    struct vibe_bench bench;
    size_t bytes;   /* of weights, a frame */
    double bound_s; /* by bytes and bandwidths; 0: unknown */
    size_t n_dialogues;
    double rtf; /* seconds of work for a second of speech, of all */
};

static void sum_up(struct speed *speed, const struct vibe_engine *engine,
                   size_t hop)
{
    const struct vibe_bench *b = &speed->bench;
    struct vibe_engine_stats stats;

    for (size_t i = 0; i < VIBE_N_STAGES; i++)
        speed->bytes += b->stage_bytes[i];
    if (b->bandwidth > 0)
        speed->bound_s = (double)speed->bytes / b->bandwidth;
    vibe_engine_stats(engine, &stats);
    if (stats.frame_s > speed->bound_s) /* what is streamed takes longer */
        speed->bound_s = stats.frame_s;
    speed->rtf = b->frame_s * VIBE_SAMPLE_RATE /
                 (double)(hop * speed->n_dialogues);
}

static double frames_per_s(const struct speed *speed)
{
    return speed->bench.frame_s > 0
               ? (double)speed->n_dialogues / speed->bench.frame_s
               : 0;
}

/* One line of the table; its share is of that bandwidth. */
static void print_line(const char *name, double s, size_t bytes,
                       double bandwidth)
{
    const double rate = s > 0 ? (double)bytes / s : 0;

    printf("%-12s %10.3f %10.3f %9.1f", name, 1e3 * s, 1e-9 * (double)bytes,
           1e-9 * rate);
    if (bandwidth > 0)
        printf(" %8.1f %%", 100 * rate / bandwidth);
    putchar('\n');
}

static void print_speed(const struct speed *speed, const char *device,
                        const struct vibe_options *o)
{
    const struct vibe_bench *b = &speed->bench;

    printf("device       %s\n", device);
    printf("frames       %" PRId64 ", %" PRId64 " steps, %" PRId64
           " tokens of context, %zu dialogue%s; medians\n\n",
           o->frames, o->steps, o->context, speed->n_dialogues,
           speed->n_dialogues == 1 ? "" : "s at once");
    printf("stage                ms         GB      GB/s  of bound\n");
    for (size_t i = 0; i < VIBE_N_STAGES; i++)
        print_line(vibe_stage_name((enum vibe_stage)i), b->stage_s[i],
                   b->stage_bytes[i], b->bandwidth);
    printf("%-12s %10.3f\n", "host", 1e3 * b->host_s);
    print_line("frame", b->frame_s, speed->bytes, b->bandwidth);
    if (b->link_bytes) /* in the same time, and of what the link can */
        print_line("link", b->frame_s, b->link_bytes, b->link_bandwidth);
    printf("\nread bandwidth %.1f GB/s (probed), bound %.3f ms\n",
           1e-9 * b->bandwidth, 1e3 * speed->bound_s);
    printf("RTF %.4f, %.1f x real time, %.1f dialogue frames/s\n", speed->rtf,
           speed->rtf > 0 ? 1 / speed->rtf : 0, frames_per_s(speed));
    if (o->prompt > 0)
        printf("prompt of %" PRId64 " tokens: %.3f s\n", o->prompt,
               b->prefill_s);
    if (b->wait_s > 0)
        printf("while it is read, the others wait at most %.3f s\n", b->wait_s);
    if (b->energy_j >= 0)
        printf("energy: %.2f J a frame\n", b->energy_j);
    if (b->vram_peak)
        printf("peak VRAM: %.1f MB; in use %.1f MB at the first frame, %.1f MB "
               "at the last\n",
               1e-6 * (double)b->vram_peak, 1e-6 * (double)b->vram_first,
               1e-6 * (double)b->vram_last);
    printf("device memory: %.0f MB of %.0f MB in use by all\n",
           1e-6 * (double)b->memory_used, 1e-6 * (double)b->memory_total);
    printf("peak memory: %.0f MB of the host\n", 1e-6 * (double)b->rss_bytes);
}

static void print_speed_json(const struct speed *speed, const char *device,
                             const struct vibe_options *o)
{
    const struct vibe_bench *b = &speed->bench;
    json_t *object = json_object();
    json_t *stages = json_object();

    for (size_t i = 0; i < VIBE_N_STAGES; i++) {
        json_t *stage = json_object();

        vibe_json_number(stage, "ms", 1e3 * b->stage_s[i]);
        vibe_json_count(stage, "bytes", b->stage_bytes[i]);
        vibe_json_number(stage, "of_bound",
                         (double)b->stage_bytes[i] /
                             (b->stage_s[i] * b->bandwidth));
        json_object_set_new(stages, vibe_stage_name((enum vibe_stage)i), stage);
    }
    vibe_json_text(object, "device", device);
    vibe_json_count(object, "frames", (size_t)o->frames);
    vibe_json_count(object, "steps", (size_t)o->steps);
    vibe_json_count(object, "context", (size_t)o->context);
    json_object_set_new(object, "stages", stages);
    vibe_json_number(object, "host_ms", 1e3 * b->host_s);
    vibe_json_number(object, "frame_ms", 1e3 * b->frame_s);
    vibe_json_count(object, "bytes", speed->bytes);
    vibe_json_number(object, "bandwidth", b->bandwidth);
    vibe_json_count(object, "link_bytes", b->link_bytes);
    vibe_json_number(object, "link_bandwidth", b->link_bandwidth);
    vibe_json_number(object, "bound_ms", 1e3 * speed->bound_s);
    vibe_json_count(object, "dialogues", speed->n_dialogues);
    vibe_json_number(object, "frames_per_s", frames_per_s(speed));
    vibe_json_number(object, "of_bound", speed->bound_s / b->frame_s);
    vibe_json_number(object, "rtf", speed->rtf);
    vibe_json_number(object, "prompt_s", b->prefill_s);
    vibe_json_number(object, "wait_s", b->wait_s);
    vibe_json_count(object, "vram_peak_bytes", b->vram_peak);
    vibe_json_count(object, "vram_first_bytes", b->vram_first);
    vibe_json_count(object, "vram_last_bytes", b->vram_last);
    vibe_json_count(object, "memory_used_bytes", b->memory_used);
    vibe_json_count(object, "memory_total_bytes", b->memory_total);
    vibe_json_number(object, "energy_j", b->energy_j < 0 ? NAN : b->energy_j);
    vibe_json_count(object, "rss_bytes", b->rss_bytes);
    vibe_json_print(object);
}

size_t vibe_cli_positions(const struct vibe_options *o)
{
    const int64_t frames = o->context + 2 * o->frames + 16;

    return (size_t)(frames > o->prompt ? frames : o->prompt);
}

enum vibe_exit vibe_cmd_speed(struct vibe_cli *cli, struct vibe_failure *why)
{
    const struct vibe_options *o = cli->options;
    struct vibe_engine *engine = NULL;
    struct vibe_engine_info info;
    struct speed speed = {
        .n_dialogues = o->batch_size ? (size_t)o->batch_size : 1,
    };
    enum vibe_exit status;
    double start_s;

    cli->n_dialogues = speed.n_dialogues;
    cli->n_positions = vibe_cli_positions(o);
    status = vibe_cli_open_engine(&engine, cli, VIBE_USE_SPEAK, why);
    if (status != VIBE_EXIT_OK)
        return status;
    vibe_engine_describe(engine, &info);
    start_s = vibe_clock_s();
    if (vibe_engine_bench(engine, &speed.bench, (size_t)o->frames,
                          (int)o->steps, (size_t)o->context, (size_t)o->prompt,
                          &why->err) != VIBE_OK) {
        vibe_engine_free(engine);
        return vibe_cli_fail_by(why, VIBE_EXIT_INPUT, NULL);
    }
    sum_up(&speed, engine, info.hop);
    if (o->is_json)
        print_speed_json(&speed, info.device, o);
    else
        print_speed(&speed, info.device, o);
    vibe_stats_print(cli, engine, vibe_clock_s() - start_s);
    vibe_engine_free(engine);
    return VIBE_EXIT_OK;
}

enum { MAX_OPS = 64 };

/* The cases of one op. */
struct tally {
    char op[32];
    size_t n, n_failed;
    double worst; /* largest error as a share of its bound */
};

struct tallies {
    int is_json, is_verbose;
    struct tally op[MAX_OPS];
    size_t n_ops;
};

static void print_tally(const struct tally *tally, int is_json)
{
    json_t *object;

    if (!is_json) {
        printf("%-16s %4zu cases   worst %6.3f of bound   %s\n", tally->op,
               tally->n, tally->worst, tally->n_failed ? "FAILED" : "ok");
        return;
    }
    object = json_object();
    vibe_json_text(object, "op", tally->op);
    vibe_json_count(object, "cases", tally->n);
    vibe_json_count(object, "failed", tally->n_failed);
    vibe_json_number(object, "worst", tally->worst);
    vibe_json_print(object);
}

static struct tally *tally_of(struct tallies *all, const char *op)
{
    struct tally *tally = all->op;

    for (size_t i = 0; i < all->n_ops; i++, tally++)
        if (strcmp(tally->op, op) == 0)
            return tally;
    if (all->n_ops == MAX_OPS)
        return &all->op[MAX_OPS - 1];
    all->n_ops++;
    snprintf(tally->op, sizeof(tally->op), "%s", op);
    return tally;
}

static void on_case(void *user, const char *op, const char *shape,
                    double max_err, double bound, int is_ok)
{
    struct tallies *all = user;
    struct tally *tally = tally_of(all, op);
    const double share = bound > 0 ? max_err / bound : max_err > 0;

    tally->n++;
    tally->n_failed += !is_ok;
    if (!(share <= tally->worst)) /* keeps a NaN */
        tally->worst = share;
    if (!all->is_json && (!is_ok || all->is_verbose))
        printf("  %s %s: %g of %g %s\n", op, shape, max_err, bound,
               is_ok ? "ok" : "FAILED");
}

enum vibe_exit vibe_cmd_self_test(struct vibe_cli *cli,
                                  struct vibe_failure *why)
{
    const struct vibe_options *o = cli->options;
    const struct vibe_engine_options how = {
        .device = o->device == VIBE_DEVICE_AUTO ? VIBE_DEVICE_CUDA
                                                : (enum vibe_device)o->device,
        .device_index = o->device_index,
        .threads = (int)o->threads,
    };
    struct tallies all = {
        .is_json = o->is_json,
        .is_verbose = o->verbosity > 0,
    };
    struct vibe_error err = {0};
    size_t n_failed = 0;

    if (vibe_self_test(&how, (uint64_t)o->seed, on_case, &all, &n_failed,
                       &err) != VIBE_OK) {
        if (how.device == VIBE_DEVICE_CUDA)
            return vibe_cli_fail_device(why, how.device_index, err.msg);
        why->err = err;
        return vibe_cli_fail_by(why, VIBE_EXIT_DEVICE, NULL);
    }
    for (size_t i = 0; i < all.n_ops; i++)
        print_tally(&all.op[i], o->is_json);
    if (!o->is_json)
        printf("%s\n", n_failed ? "FAILED" : "all ops agree with the CPU");
    if (n_failed)
        return vibe_cli_fail(why, VIBE_EXIT_FAILED, NULL,
                             "%zu cases are off%s%s", n_failed,
                             err.code ? ": " : "", err.msg);
    return VIBE_EXIT_OK;
}
