#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/devices.h"
#include "cli/help.h"
#include "cli/signals.h"
#include "engine/base/clock.h"
#include "engine/base/trace.h"

/* The last quarter of an hour of frames in 2 MB. */
enum { TRACE_EVENTS = 65536 };

/* Warnings of the parser wait here until it is known who wants to see them. */
struct warnings {
    char text[2048]; /* lines */
    size_t n;
};

static void on_warning(void *user, const char *msg)
{
    struct warnings *warnings = user;
    size_t length = strlen(msg);

    if (warnings->n + length + 2 > sizeof(warnings->text))
        return; /* this many are no news any more */
    memcpy(warnings->text + warnings->n, msg, length);
    warnings->n += length;
    warnings->text[warnings->n++] = '\n';
}

static void print_warnings(struct vibe_log *log, struct warnings *warnings)
{
    char *rest = NULL;

    for (char *line = strtok_r(warnings->text, "\n", &rest); line;
         line = strtok_r(NULL, "\n", &rest))
        vibe_log(log, VIBE_LOG_WARN, "%s", line);
}

/* --json is obeyed even when the command line is wrong somewhere else. */
static int wants_json(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--json") == 0)
            return 1;
    return 0;
}

/* Set what messages look like by the options. */
static void set_log(struct vibe_log *log, const struct vibe_options *options)
{
    const char *no_color = getenv("NO_COLOR");

    log->level = options->is_quiet         ? VIBE_LOG_ERROR
                 : options->verbosity >= 2 ? VIBE_LOG_TRACE
                 : options->verbosity == 1 ? VIBE_LOG_DEBUG
                                           : VIBE_LOG_INFO;
    log->has_color = options->color == VIBE_COLOR_ALWAYS ||
                     (options->color == VIBE_COLOR_AUTO &&
                      !(no_color && *no_color) && vibe_log_is_terminal(stderr));
}

/* --log-file, to which runs append. */
static enum vibe_exit open_log_file(struct vibe_log *log, const char *path,
                                    struct vibe_failure *why)
{
    if (!path)
        return VIBE_EXIT_OK;
    log->file = fopen(path, "a");
    return log->file ? VIBE_EXIT_OK
                     : vibe_cli_fail(why, VIBE_EXIT_OUTPUT, path, "%s: %s",
                                     path, strerror(errno));
}

/* The options that print something and end. */
static int show(enum vibe_show what)
{
    switch (what) {
    case VIBE_SHOW_NOTHING:
        return 0;
    case VIBE_SHOW_HELP_SHORT:
        vibe_help_short(stdout);
        return 1;
    case VIBE_SHOW_HELP:
        vibe_help_full(stdout);
        return 1;
    case VIBE_SHOW_VERSION:
        vibe_help_version(stdout);
        return 1;
    case VIBE_SHOW_COMPLETION:
        vibe_help_completion(stdout);
        return 1;
    case VIBE_SHOW_MAN:
        vibe_help_man(stdout);
        return 1;
    }
    return 0;
}

static enum vibe_exit run(struct vibe_cli *cli, struct vibe_failure *why)
{
    const struct vibe_options *o = cli->options;

    if (o->is_list_devices)
        return vibe_cmd_devices(cli, why);
    if (o->is_info)
        return vibe_cmd_info(cli, why);
    if (o->convert)
        return vibe_cmd_convert(cli, why);
    if (o->is_dump_tokens)
        return vibe_cmd_tokens(cli, why);
    if (o->is_plan)
        return vibe_cmd_plan(cli, why);
    if (o->is_print_table)
        return vibe_cmd_table(cli, why);
    if (o->verify)
        return vibe_cmd_verify(cli, why);
    if (o->is_test_speed)
        return vibe_cmd_speed(cli, why);
    if (o->is_benchmark)
        return vibe_cmd_benchmark(cli, why);
    if (o->is_self_test)
        return vibe_cmd_self_test(cli, why);
    return vibe_cmd_speak(cli, why);
}

/* The same with a timeline of it, written also when it fails. */
static enum vibe_exit run_traced(struct vibe_cli *cli, struct vibe_failure *why)
{
    const char *path = cli->options->trace;
    struct vibe_error err = {0};
    enum vibe_exit status;

    if (!path)
        return run(cli, why);
    if (vibe_trace_open(&cli->trace, path, TRACE_EVENTS, &why->err) != VIBE_OK)
        return vibe_cli_fail_by(why, VIBE_EXIT_OUTPUT, path);
    status = run(cli, why);
    if (vibe_trace_write(cli->trace, &err) != VIBE_OK) {
        if (status == VIBE_EXIT_OK) {
            why->err = err;
            status = vibe_cli_fail_by(why, VIBE_EXIT_OUTPUT, path);
        } else {
            vibe_log(&cli->log, VIBE_LOG_WARN, "%s", err.msg);
        }
    }
    vibe_trace_free(cli->trace);
    return status;
}

/* What was printed must have arrived, or the status is a lie. */
static enum vibe_exit close_stdout(struct vibe_cli *cli, enum vibe_exit status)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    vibe_log(&cli->log, VIBE_LOG_ERROR, "standard output: cannot be written");
    return status == VIBE_EXIT_OK ? VIBE_EXIT_OUTPUT : status;
}

/*
 * Idle threads of libgomp spin for milliseconds before they sleep, which ruins
 * both programs when another one wants their core: 4.4 s of speech took 20 s
 * instead of 1 s on two busy cores.  libgomp reads how long to spin before
 * main() is entered, so enter again; whoever has set it is left alone.
 */
static void spin_briefly(char **argv)
{
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY"))
        return;
    if (setenv("GOMP_SPINCOUNT", "1000", 1) == 0)
        execv("/proc/self/exe", argv); /* if not, it is only slower */
}

int main(int argc, char **argv)
{
    struct warnings warnings = {0};
    struct vibe_options options;
    struct vibe_devices devices;
    struct vibe_cli cli = {
        .options = &options,
        .devices = &devices,
        .log = {.out = stderr, .level = VIBE_LOG_INFO},
    };
    const struct vibe_option_listener listener = {
        .on_warning = on_warning,
        .user = &warnings,
    };
    struct vibe_failure why = {0};
    enum vibe_exit status = VIBE_EXIT_OK;
    int signal_number;

    spin_briefly(argv);
    cli.start_s = vibe_clock_s();
    vibe_signals_init();
    if (vibe_options_parse(&options, argc > 0 ? (size_t)argc - 1 : 0,
                           (const char *const *)argv + 1,
                           (const char *const *)environ, &listener,
                           &why.err) != VIBE_OK) {
        options.is_json = options.is_json || wants_json(argc, argv);
        status = vibe_cli_fail_by(&why, VIBE_EXIT_INPUT, NULL);
    } else if (!show((enum vibe_show)options.show)) {
        set_log(&cli.log, &options);
        status = open_log_file(&cli.log, options.log_file, &why);
        print_warnings(&cli.log, &warnings);
        if (status == VIBE_EXIT_OK)
            status = vibe_devices_find(&devices, &options, &why);
        if (status == VIBE_EXIT_OK)
            status = run_traced(&cli, &why);
    }
    if (status != VIBE_EXIT_OK)
        vibe_cli_report(&cli, &why);
    status = close_stdout(&cli, status);
    if (cli.log.file)
        fclose(cli.log.file);
    vibe_options_release(&options);

    /* One that came with the last frame of the last file counts too. */
    signal_number = vibe_signals_pending();
    if (!signal_number)
        signal_number = vibe_signals_of(status);
    if (signal_number)
        vibe_signals_die(signal_number);
    return (int)status;
}
