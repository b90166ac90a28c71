/* What this processor runs, and how many threads of it are ours. */
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/backend/cpu/cpu.h"

const char *vibe_cpu_isa_name(enum vibe_cpu_isa isa)
{
    switch (isa) {
    case VIBE_CPU_SCALAR:
        return "scalar";
    case VIBE_CPU_AVX2:
        return "avx2";
    case VIBE_CPU_AVX512:
        return "avx512";
    case VIBE_CPU_AMX:
        return "amx";
    case VIBE_CPU_N_ISA:
        break;
    }
    return "?";
}

#if defined(__x86_64__)
#include <cpuid.h>

static int has_avx2(void)
{
    unsigned a, b, c, d;

    /* clang 14 does not know "f16c" by name */
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static int has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}

/* Tiles are off until the kernel is asked: their state is 8 KB a thread. */
static int has_amx(void)
{
    enum { REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18 };
    enum { AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24 }; /* leaf 7, edx */
    unsigned a, b, c, d;

    if (!has_avx512() || !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 0;
    if (!(d & AMX_BF16) || !(d & AMX_TILE))
        return 0;
    return syscall(SYS_arch_prctl, REQ_XCOMP_PERM, XTILEDATA) == 0;
}
#else
static int has_avx2(void)
{
    return 0;
}

static int has_avx512(void)
{
    return 0;
}

static int has_amx(void)
{
    return 0;
}
#endif

int vibe_cpu_has(enum vibe_cpu_isa isa)
{
    switch (isa) {
    case VIBE_CPU_SCALAR:
        return 1;
    case VIBE_CPU_AVX2:
        return has_avx2();
    case VIBE_CPU_AVX512:
        return has_avx512();
    case VIBE_CPU_AMX:
        return has_amx();
    case VIBE_CPU_N_ISA:
        break;
    }
    return 0;
}

/* CPUs that the control group grants, or 0 for no limit: "max PERIOD" or
 * "QUOTA PERIOD". */
static int quota_threads(void)
{
    char line[64] = "", *end = NULL;
    double quota, period;
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r");

    if (!f)
        return 0;
    if (!fgets(line, sizeof(line), f))
        line[0] = '\0';
    fclose(f);
    quota = strtod(line, &end);
    if (end == line)
        return 0;
    period = strtod(end, NULL);
    return quota > 0 && period > 0 ? (int)ceil(quota / period) : 0;
}

int vibe_cpu_threads(void)
{
    cpu_set_t set;
    int quota = quota_threads();
    int n = 1;

    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        n = CPU_COUNT(&set);
    if (quota > 0 && quota < n)
        n = quota;
    return n;
}
