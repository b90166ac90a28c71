#include "cli/exit.h"

#include "engine/base/error.h"

const struct vibe_exit_meaning vibe_exit_meanings[] = {
    {VIBE_EXIT_OK, "all that was asked is done"},
    {VIBE_EXIT_FAILED,
     "failed while generating; of several scripts, at least one failed; "
     "--verify found a difference"},
    {VIBE_EXIT_USAGE, "usage: unknown option, bad value, conflicting options"},
    {VIBE_EXIT_INPUT,
     "input: a model, voice or script is missing, unreadable or malformed"},
    {VIBE_EXIT_OUTPUT,
     "output: cannot be created, disk full, would overwrite with "
     "--no-clobber"},
    {VIBE_EXIT_DEVICE, "device: --device asked for one that cannot be used"},
    {VIBE_EXIT_MEMORY, "memory: does not fit with the options given"},
    {VIBE_EXIT_SIGHUP, "the terminal was closed (SIGHUP); as with SIGINT"},
    {VIBE_EXIT_SIGINT,
     "interrupted (SIGINT); what was spoken is kept in NAME.part.wav"},
    {VIBE_EXIT_SIGPIPE, "the reader of standard output went away"},
    {VIBE_EXIT_SIGTERM, "terminated (SIGTERM); as with SIGINT"},
};

const size_t vibe_exit_n_meanings = sizeof(vibe_exit_meanings) /
                                    sizeof(vibe_exit_meanings[0]);

enum vibe_exit vibe_exit_of(int code, enum vibe_exit io)
{
    switch ((enum vibe_err)code) {
    case VIBE_OK:
        return VIBE_EXIT_OK;
    case VIBE_E_ARG:
        return VIBE_EXIT_USAGE;
    case VIBE_E_NOMEM:
        return VIBE_EXIT_MEMORY;
    case VIBE_E_DEVICE:
        return VIBE_EXIT_DEVICE;
    case VIBE_E_IO:
    case VIBE_E_FORMAT:
    case VIBE_E_UNSUPPORTED:
        return io;
    }
    return VIBE_EXIT_FAILED;
}
