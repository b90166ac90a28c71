# vibevoice - build, test, check.  `make help` lists the targets.
#
# Knobs, as `make NAME=value`:
#   CUDA=0|1          build the CUDA back end  (default: 1 if the toolkit works)
#   CUDA_ARCH=LIST    "86", "80 90", "80-ptx", "all"  (default: the GPU here or 86)
#   CUDA_HOME=DIR     where the toolkit is     (default: /usr/local/cuda)
#   DEBUG=1           optimise for the debugger
#   SANITIZE=LIST     "address,undefined" or "thread"
#   WERROR=1          warnings are errors (CI; not on a user's newer compiler)
#   T=audio/test_wav  with `make test`: that one only
#   FUZZ_SECONDS=60   with `make fuzz`: for each target
#   CC CFLAGS CPPFLAGS LDFLAGS PREFIX DESTDIR V=1   as everywhere
# Every combination has its own build/<config>/, so none needs a clean first.

ifeq ($(origin CC),default)
CC := gcc
endif
PREFIX ?= /usr/local
CUDA_HOME ?= /usr/local/cuda
FUZZ_SECONDS ?= 60
comma := ,
empty :=
BUILDING := $(filter-out help clean uninstall,$(or $(MAKECMDGOALS),all))
ifeq ($(filter -j%,$(MAKEFLAGS))$(filter-out 0,$(MAKELEVEL)),)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 2) $(if $(filter check,$(MAKECMDGOALS)),-k)
endif

# CUDA or not is decided by what works here, not by what is named.
CUDA_DIR := engine/backend/cuda
NVCC := $(CUDA_HOME)/bin/nvcc
CUDART := $(CUDA_HOME)/lib64/libcudart_static.a
ifeq ($(BUILDING),)
CUDA := 0
else ifeq ($(wildcard $(CUDA_DIR)/*.c),)
override CUDA := 0
CUDA_WHY := $(CUDA_DIR) holds no source
else ifneq ($(origin CUDA),undefined)
CUDA_WHY := as asked
else ifeq ($(and $(wildcard $(CUDA_HOME)/include/cuda_runtime_api.h),$(wildcard $(CUDART))),)
CUDA := 0
CUDA_WHY := no CUDA toolkit in $(CUDA_HOME)
else ifneq ($(shell $(NVCC) --version >/dev/null 2>&1 && echo runs),runs)
CUDA := 0
CUDA_WHY := $(NVCC) does not run
else
CUDA := 1
CUDA_WHY := $(NVCC) works
endif
ifeq ($(CUDA),1)
CUDA_ARCH ?= $(or $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | tr -d . | sort -un),86)
# The PTX of compute_90 serves cards newer than those named and those between.
ARCHS := $(patsubst all,75 80 86 89 90 120 90-ptx,$(CUDA_ARCH:sm_%=%))
GENCODE := $(foreach a,$(filter-out %-ptx,$(ARCHS)),-gencode arch=compute_$a$(comma)code=sm_$a) \
           $(foreach a,$(patsubst %-ptx,%,$(filter %-ptx,$(ARCHS))),-gencode arch=compute_$a$(comma)code=compute_$a)
endif
CUDA_SAYS := $(if $(filter 1,$(CUDA)),with CUDA ($(CUDA_WHY); for $(CUDA_ARCH)),CPU only ($(CUDA_WHY)))
$(if $(and $(BUILDING),$(filter 0,$(MAKELEVEL)$(MAKE_RESTARTS))),$(info vibevoice: $(CUDA_SAYS)))

# Flags.  -ffp-contract=off: a*b+c rounds alike with every compiler; kernels
# that want FMA say so.  No -march: kernels carry target attributes instead.
CONFIG := $(if $(filter 1,$(CUDA)),cuda-$(subst $(empty) ,+,$(strip $(CUDA_ARCH))),cpu)
BUILD := build/$(CONFIG)-$(notdir $(lastword $(CC)))$(if $(DEBUG),-debug)$(if $(SANITIZE),-$(subst $(comma),-,$(SANITIZE)))
WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla \
        $(if $(WERROR),-Werror)
GUARD := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=all, \
         -fstack-protector-strong $(if $(DEBUG),,-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2))
OPT = $(if $(DEBUG),-Og,$(if $(filter engine/backend/cpu/%,$<),-O3,-O2))
LANG_FLAGS = -std=c11 -D_GNU_SOURCE -I. $(if $(filter 1,$(CUDA)),-isystem $(CUDA_HOME)/include) $(LIB_CFLAGS) $(WARN)
C_FLAGS = $(LANG_FLAGS) $(OPT) -g -fopenmp -ffp-contract=off $(GUARD) $(CPPFLAGS) $(CFLAGS)
NV_FLAGS = -std=c++17 -O3 -I. $(GENCODE) $(if $(filter all,$(CUDA_ARCH)),--compress-mode=size) -Xptxas -warn-spills \
           -Xcompiler -Wall,-Wextra,-fno-exceptions,-fno-threadsafe-statics $(if $(WERROR),-Werror all-warnings)
LINK = $(Q)$(CC) -g -fopenmp $(GUARD) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.o %.a,$^)
LINK_LIBS = $(if $(filter 1,$(CUDA)),$(CUDART) -lrt) $(LIBS) -ldl -lm -lpthread
Q := $(if $(V),,@)
SAY = $(if $(V),@:,@printf '  %-6s%s\n')

# What there is: every .c of these folders, every tests/**/test_*.c.
DIRS := cli engine $(addprefix engine/,base format text model backend backend/cpu) offload audio
ABSENT := $(if $(filter 1,$(CUDA)),engine/backend/cuda_absent.c,tests/$(CUDA_DIR)/%)
PROG_C := $(filter-out $(ABSENT),$(wildcard $(DIRS:=/*.c) $(if $(filter 1,$(CUDA)),$(CUDA_DIR)/*.c)))
PROG_CU := $(if $(filter 1,$(CUDA)),$(wildcard $(CUDA_DIR)/*.cu))
TEST_C := $(filter-out $(ABSENT),$(wildcard $(foreach d,* */* */*/* */*/*/*,tests/$d/test_*.c)))
SUPPORT_C := $(wildcard tests/support/*.c)
FUZZ_C := $(wildcard tests/fuzz/fuzz_*.c)
BENCH_C := $(wildcard tests/bench/bench_*.c)
ALL_C := $(PROG_C) $(TEST_C) $(SUPPORT_C) $(FUZZ_C) $(BENCH_C) tests/fuzz/replay.c
ALL_H := $(wildcard $(DIRS:=/*.h) tests/support/*.h $(if $(filter 1,$(CUDA)),$(CUDA_DIR)/*.h))
LIB := $(BUILD)/libvibevoice.a
LIB_OBJ := $(patsubst %,$(BUILD)/%.o,$(filter-out cli/main.c,$(PROG_C)) $(PROG_CU))
TESTS := $(TEST_C:%.c=$(BUILD)/%)
FUZZERS := $(FUZZ_C:%.c=$(BUILD)/%)
BENCHES := $(BENCH_C:%.c=$(BUILD)/%)
RUN_TESTS := BUILD=$(BUILD) VIBEVOICE=$(BUILD)/vibevoice $(if $(findstring thread,$(SANITIZE)),OMP_NUM_THREADS=1) scripts/run-tests

all: ./vibevoice ## build the program (default)
./vibevoice: $(BUILD)/vibevoice
	@ln -sf $< $@
$(BUILD)/vibevoice: $(BUILD)/cli/main.c.o $(LIB)
	$(SAY) LINK $@
	$(LINK) $(LINK_LIBS)
$(LIB): $(LIB_OBJ)
	@rm -f $@
	$(Q)ar rcs $@ $^
$(BUILD)/%.c.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(SAY) CC $<
	$(Q)$(CC) $(C_FLAGS) -MMD -MP -c -o $@ $<
$(BUILD)/%.cu.o: %.cu $(BUILD)/flags
	@mkdir -p $(@D)
	$(SAY) NVCC $<
	$(Q)$(NVCC) $(NV_FLAGS) -MMD -MP -MF $(@:.o=.d) -c -o $@ $<
$(TESTS) $(BENCHES): $(BUILD)/%: $(BUILD)/%.c.o $(SUPPORT_C:%=$(BUILD)/%.o) $(LIB)
	$(LINK) -lcmocka $(LINK_LIBS)
$(FUZZERS): %: %.c.o $(if $(findstring fuzzer,$(SANITIZE)),,$(BUILD)/tests/fuzz/replay.c.o) $(LIB)
	$(LINK) $(LINK_LIBS)
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(C_FLAGS) $(NV_FLAGS)' | cmp -s - $@ || echo '$(C_FLAGS) $(NV_FLAGS)' > $@

WANTED := $(if $(T),$(filter $(T:%=$(BUILD)/tests/%),$(TESTS) $(FUZZERS)),$(TESTS) $(FUZZERS))
test: $(if $(T:cli/%=),,./vibevoice) $(WANTED) ## run every test; T=audio/test_wav runs one
	@$(RUN_TESTS) $(T)
check: lint layers style ## includes, layout, names, headers that compile alone, clang-tidy
lint: $(ALL_C:%=$(BUILD)/tidy/%.ok) $(ALL_H:%=$(BUILD)/alone/%.ok)
layers:
	@scripts/check-layers
style: $(LIB)
	@scripts/check-style $(LIB)
$(BUILD)/alone/%.h.ok: %.h $(BUILD)/flags
	@mkdir -p $(@D)
	$(Q)$(CC) $(C_FLAGS) -Werror -MMD -MP -MT $@ -MF $(@:.ok=.d) -c -o $(@:.ok=.o) -include $< -x c /dev/null && touch $@
# After its object, so that a changed header is linted again too.
$(BUILD)/tidy/%.ok: $(BUILD)/%.o .clang-tidy
	@mkdir -p $(@D)
	$(SAY) LINT $*
	$(Q)scripts/tidy $* $(LANG_FLAGS) -fopenmp $(CPPFLAGS) && touch $@
demo: ./vibevoice ## speak a two-speaker dialogue with the bundled model
	@demo/run
bench: ./vibevoice $(BENCHES) ## measure speed and memory on this machine
	@BUILD=$(BUILD) scripts/bench $(BENCHES)
fuzz: ## fuzz every parser for FUZZ_SECONDS each (needs clang)
	@$(MAKE) --no-print-directory CC=clang CUDA=0 SANITIZE=fuzzer,address,undefined fuzz-run
fuzz-run: $(FUZZERS)
	@BUILD=$(BUILD) FUZZ_SECONDS=$(FUZZ_SECONDS) scripts/fuzz $(FUZZERS)
install: $(BUILD)/vibevoice ## into DESTDIR/PREFIX
	install -Dm755 $< $(DESTDIR)$(PREFIX)/bin/vibevoice
	install -Dm644 LICENSE $(DESTDIR)$(PREFIX)/share/doc/vibevoice/LICENSE
uninstall: ## undo install
	rm -rf $(DESTDIR)$(PREFIX)/bin/vibevoice $(DESTDIR)$(PREFIX)/share/doc/vibevoice
clean: ## remove what was built
	rm -rf build vibevoice
help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile
	@sed -n '3,/^$$/s/^# \{0,1\}//p' Makefile

# Libraries: installed or asked for once, then remembered in build/deps.mk.
ifneq ($(BUILDING),)
include build/deps.mk
build/deps.mk: scripts/setup
	@CC=$(CC) scripts/setup $(if $(filter test demo check fuzz bench,$(MAKECMDGOALS)),,--check) --write $@
endif
-include $(wildcard $(patsubst %,$(BUILD)/%.d,$(ALL_C) $(PROG_CU)) $(ALL_H:%=$(BUILD)/alone/%.d))
.PHONY: all test check lint layers style demo bench fuzz fuzz-run install uninstall clean help FORCE
.DELETE_ON_ERROR:
.SECONDARY:
