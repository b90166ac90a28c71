#include "offload/host.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/support/st_writer.h"
#include "tests/support/vibe_test.h"

#define MIB ((size_t)1 << 20)

/* A folder that looks like / to what reads /proc and /sys. */
static int setup(void **state)
{
    struct st_dir *dir = calloc(1, sizeof(*dir));

    if (!dir)
        return -1;
    st_dir_make(dir);
    *state = dir;
    return 0;
}

static int teardown(void **state)
{
    struct st_dir *dir = *state;

    st_dir_remove(dir);
    free(dir);
    return 0;
}

/* Write a file of the folder, and the folders that it lies in. */
static void put(const struct st_dir *dir, const char *name, const char *text)
{
    char command[256];

    snprintf(command, sizeof(command), "mkdir -p \"$(dirname '%s/%s')\"",
             dir->path, name);
    assert_int_equal(system(command), 0); /* NOLINT(cert-env33-c) */
    st_write_text(st_path(dir, name), text);
}

static void put_system(const struct st_dir *dir, const char *group)
{
    put(dir, "proc/meminfo",
        "MemTotal:       16384000 kB\nMemAvailable:    8192000 kB\n");
    put(dir, "proc/self/cgroup", group);
}

static void the_system_says_what_it_has(void **state)
{
    const struct st_dir *dir = *state;

    put_system(dir, "");
    assert_int_equal(vibe_host_free_below(dir->path), (size_t)8192000 << 10);
}

static void a_group_allows_less(void **state)
{
    const struct st_dir *dir = *state;

    put_system(dir, "0::/run/one.scope\n");
    put(dir, "sys/fs/cgroup/run/one.scope/memory.max", "1073741824\n");
    put(dir, "sys/fs/cgroup/run/one.scope/memory.current", "104857600\n");
    put(dir, "sys/fs/cgroup/run/one.scope/memory.stat",
        "anon 1\ninactive_file 10485760\nactive_file 5\n");
    assert_int_equal(vibe_host_free_below(dir->path),
                     1024 * MIB - 100 * MIB + 10 * MIB);
}

static void a_group_above_counts_too(void **state)
{
    const struct st_dir *dir = *state;

    put_system(dir, "0::/run/one.scope\n");
    put(dir, "sys/fs/cgroup/run/one.scope/memory.max", "max\n");
    put(dir, "sys/fs/cgroup/run/one.scope/memory.current", "104857600\n");
    put(dir, "sys/fs/cgroup/run/memory.max", "524288000\n");
    put(dir, "sys/fs/cgroup/run/memory.current", "629145600\n");
    assert_int_equal(vibe_host_free_below(dir->path), 0);
    put(dir, "sys/fs/cgroup/run/memory.current", "209715200\n");
    assert_int_equal(vibe_host_free_below(dir->path), 300 * MIB);
}

static void the_first_version_of_groups_is_known(void **state)
{
    const struct st_dir *dir = *state;

    put_system(dir, "7:cpu:/x\n5:memory:/box\n");
    put(dir, "sys/fs/cgroup/memory/box/memory.limit_in_bytes", "104857600\n");
    put(dir, "sys/fs/cgroup/memory/box/memory.usage_in_bytes", "1048576\n");
    put(dir, "sys/fs/cgroup/memory/box/memory.stat", "cache 9\n");
    assert_int_equal(vibe_host_free_below(dir->path), 99 * MIB);
}

static void a_limit_of_addresses_counts_too(void **state)
{
    const struct st_dir *dir = *state;
    struct rlimit before, less;

    put_system(dir, "");
    /* 2^40 KiB, which bind nobody, less 4 GiB */
    put(dir, "proc/self/status", "VmPeak:  9 kB\nVmSize:  1099507433472 kB\n");
    assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
    less = (struct rlimit){.rlim_cur = (rlim_t)1 << 50,
                           .rlim_max = before.rlim_max};
    if (before.rlim_cur != RLIM_INFINITY || setrlimit(RLIMIT_AS, &less))
        skip(); /* there is a limit already */
    assert_int_equal(vibe_host_free_below(dir->path), 4096 * MIB);
    assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
}

/* Bytes of addresses that this process uses. */
static size_t own_addresses(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    char line[128];

    assert_non_null(f);
    assert_non_null(fgets(line, sizeof(line), f));
    fclose(f);
    return strtoul(line, NULL, 10) * (size_t)sysconf(_SC_PAGESIZE);
}

/* In the process's own address space: what is held is seen by its size. */
static void some_of_limited_addresses_are_held(void **state)
{
    const size_t most = (size_t)32 << 30;
    struct rlimit before, less;
    struct vibe_held held;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
    less = before;
    less.rlim_cur = (rlim_t)1 << 40;
    if (before.rlim_cur != RLIM_INFINITY || own_addresses() > less.rlim_cur / 2)
        skip(); /* there is a limit already, or a sanitizer's shadow */
    held = vibe_host_hold();
    assert_null(held.at);
    vibe_host_let_go(held);

    if (setrlimit(RLIMIT_AS, &less))
        skip();
    held = vibe_host_hold();
    assert_non_null(held.at);
    assert_int_equal(held.bytes, most);
    vibe_host_let_go(held);

    less.rlim_cur = (rlim_t)own_addresses() + 64 * MIB;
    assert_int_equal(setrlimit(RLIMIT_AS, &less), 0);
    held = vibe_host_hold();
    assert_non_null(held.at);
    assert_in_range(held.bytes, 8 * MIB, 16 * MIB);
    assert_true(own_addresses() + 56 * MIB > less.rlim_cur);
    vibe_host_let_go(held);
    assert_true(own_addresses() + 60 * MIB < less.rlim_cur);
    assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
}

static void free_memory_is_some_of_what_there_is(void **state)
{
    const size_t all = (size_t)sysconf(_SC_PHYS_PAGES) *
                       (size_t)sysconf(_SC_PAGESIZE);

    (void)state;
    assert_true(vibe_host_free() > 0);
    assert_true(vibe_host_free() <= all);
}

static const struct CMUnitTest tests[] = {
    VIBE_TEST(the_system_says_what_it_has),
    VIBE_TEST(a_group_allows_less),
    VIBE_TEST(a_group_above_counts_too),
    VIBE_TEST(the_first_version_of_groups_is_known),
    VIBE_TEST(a_limit_of_addresses_counts_too),
    VIBE_TEST(some_of_limited_addresses_are_held),
    VIBE_TEST(free_memory_is_some_of_what_there_is),
};

VIBE_TEST_MAIN(tests)
