/*
 * commands.h - the things the program can be asked to do.
 *
 * Each returns the status to exit with.  On failure why says it in a sentence,
 * or is empty when it has been said already.
 */
#ifndef VIBE_CLI_COMMANDS_H
#define VIBE_CLI_COMMANDS_H

#include "cli/exit.h"

struct vibe_cli;
struct vibe_failure;

/*
 * Speak the scripts, one after another, or with --dry-run say what would be
 * spoken.  A script that fails while it is spoken does not stop the others.
 */
enum vibe_exit vibe_cmd_speak(struct vibe_cli *cli, struct vibe_failure *why);

/* --info: describe the model. */
enum vibe_exit vibe_cmd_info(struct vibe_cli *cli, struct vibe_failure *why);

/* --convert: write the model in other dtypes. */
enum vibe_exit vibe_cmd_convert(struct vibe_cli *cli, struct vibe_failure *why);

/* --dump-tokens: print the prompts. */
enum vibe_exit vibe_cmd_tokens(struct vibe_cli *cli, struct vibe_failure *why);

/* --plan: say where everything would be. */
enum vibe_exit vibe_cmd_plan(struct vibe_cli *cli, struct vibe_failure *why);

/* --print-table: say it for every number of layers, and for other cards. */
enum vibe_exit vibe_cmd_table(struct vibe_cli *cli, struct vibe_failure *why);

/* --verify: compare with recorded results. */
enum vibe_exit vibe_cmd_verify(struct vibe_cli *cli, struct vibe_failure *why);

/* --test-speed: time frames. */
enum vibe_exit vibe_cmd_speed(struct vibe_cli *cli, struct vibe_failure *why);

/* --benchmark: time frames with more and more layers on the GPU. */
enum vibe_exit vibe_cmd_benchmark(struct vibe_cli *cli,
                                  struct vibe_failure *why);

/* --self-test: compare every op of a device with the CPU's. */
enum vibe_exit vibe_cmd_self_test(struct vibe_cli *cli,
                                  struct vibe_failure *why);

/* --list-devices: what there is to compute on. */
enum vibe_exit vibe_cmd_devices(struct vibe_cli *cli, struct vibe_failure *why);

#endif /* VIBE_CLI_COMMANDS_H */
