/*
 * tidy.h - what clang-tidy may assume; no compiler ever sees it.
 *
 * The analyzer looks at one file at a time, so it thinks that vibe_fail could
 * return 0 and follows success paths on which nothing was allocated.  It
 * returns the code it is given.
 */
#include "engine/base/error.h"

#define vibe_fail(err, code, ...) \
    ((void)vibe_fail(err, code, __VA_ARGS__), (code))
