# vibevoice - build, test, check.  `make help` lists the targets.
#
# Knobs, as `make NAME=value`:
#   CUDA=0|1          build the CUDA back end  (default: 1 if the toolkit works)
#   CUDA_ARCH=LIST    "86", "80 90", "80-ptx", "all"  (default: the GPU here or 86)
#   DEBUG=1           optimise for the debugger
#   SANITIZE=LIST     "address,undefined" or "thread"
#   WERROR=1          warnings are errors (CI; not on a user's newer compiler)
#   T=audio/test_wav  with `make test`: that one only
#   FUZZ_SECONDS=60   with `make fuzz`: for each target
#   CC CFLAGS CPPFLAGS LDFLAGS CUDA_HOME PREFIX DESTDIR V=1   as everywhere
# Every combination has its own build/<config>/, so none needs a clean first.

.DEFAULT_GOAL := all
CC := $(if $(filter default,$(origin CC)),gcc,$(CC))
PREFIX ?= /usr/local
CUDA_HOME ?= /usr/local/cuda
FUZZ_SECONDS ?= 60
comma := ,
BUILDING := $(filter-out help clean uninstall,$(or $(MAKECMDGOALS),all))
# A -j on the command line wins over this one.
MAKEFLAGS += $(if $(filter 0,$(MAKELEVEL)),-j$(shell nproc) $(if $(filter check,$(MAKECMDGOALS)),-k))

# CUDA or not is decided by what works here, not by what is named.
CUDA_DIR := engine/backend/cuda
NVCC := $(CUDA_HOME)/bin/nvcc
CUDART := $(CUDA_HOME)/lib64/libcudart_static.a
ifneq ($(and $(BUILDING),$(CUDA:0=)$(filter undefined,$(origin CUDA))),)
NO_CUDA := $(or $(if $(wildcard $(CUDA_DIR)/*.c),,no source in $(CUDA_DIR)), \
    $(if $(and $(wildcard $(CUDA_HOME)/include/cuda_runtime_api.h),$(wildcard $(CUDART))),,no toolkit in $(CUDA_HOME)), \
    $(if $(shell $(NVCC) --version 2>/dev/null),,$(NVCC) does not run))
CUDA ?= $(if $(NO_CUDA),0,1)
endif
ifeq ($(CUDA),1)
$(if $(NO_CUDA),$(error CUDA=1: $(NO_CUDA)))
CUDA_ARCH ?= $(or $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | tr -d . | sort -un),86)
# The PTX of compute_90 serves cards newer than those named and those between.
ARCHS := $(patsubst all,75 80 86 89 90 120 90-ptx,$(CUDA_ARCH:sm_%=%))
GENCODE := $(foreach a,$(filter-out %-ptx,$(ARCHS)),-gencode arch=compute_$a$(comma)code=sm_$a) \
           $(foreach a,$(patsubst %-ptx,%,$(filter %-ptx,$(ARCHS))),-gencode arch=compute_$a$(comma)code=compute_$a)
SM_NAMES := $(patsubst sm_,,sm_$(strip $(filter-out %-ptx,$(ARCHS))))
ARCH_NAMES := $(SM_NAMES) $(if $(filter %-ptx,$(ARCHS)),$(if $(SM_NAMES),+) ptx)
WITH_CUDA := 1
endif
CUDA_SAYS := $(if $(WITH_CUDA),with CUDA for $(CUDA_ARCH) ($(NVCC) works),CPU only ($(or $(NO_CUDA),CUDA=0)))
$(if $(MAKE_RESTARTS)$(filter-out 0,$(MAKELEVEL)),,$(if $(BUILDING),$(info vibevoice: $(CUDA_SAYS))))

# Flags.  -ffp-contract=off: a*b+c rounds alike with every compiler; kernels
# that want FMA say so.  No -march: kernels carry target attributes instead.
CONFIG := $(if $(WITH_CUDA),cuda-$(subst $() ,+,$(strip $(CUDA_ARCH))),cpu)
BUILD := build/$(CONFIG)-$(notdir $(lastword $(CC)))$(if $(DEBUG),-debug)$(if $(SANITIZE),-$(subst $(comma),-,$(SANITIZE)))
WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla $(WERROR:1=-Werror)
GUARD := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=all, \
         -fstack-protector-strong $(if $(DEBUG),,-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2))
OPT = $(if $(DEBUG),-Og -DVIBE_DEBUG,$(if $(filter engine/backend/cpu/%,$<),-O3,-O2))
LANG_FLAGS = -std=c11 -D_GNU_SOURCE -I. $(if $(WITH_CUDA),-isystem $(CUDA_HOME)/include -DVIBE_CUDA_ARCHS='"$(strip $(ARCH_NAMES))"') $(LIB_CFLAGS) $(WARN)
C_FLAGS = $(LANG_FLAGS) $(OPT) -g -fopenmp -ffp-contract=off $(GUARD) $(CPPFLAGS) $(CFLAGS)
NV_FLAGS = -std=c++17 -O3 -I. $(GENCODE) $(if $(filter all,$(CUDA_ARCH)),--compress-mode=size) -Xptxas -warn-spills \
           -Xcompiler -Wall,-Wextra,-fno-exceptions,-fno-threadsafe-statics $(if $(WERROR),-Werror all-warnings)
LINK = $(Q)$(CC) -g -fopenmp $(GUARD) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.o %.a,$^) $(LINK_LIBS)
LINK_LIBS = $(if $(WITH_CUDA),$(CUDART) -lrt) $(LIBS) -ldl -lm -lpthread
Q := $(if $(V),,@)
SAY = $(if $(V),@:,@printf '  %-6s%s\n')

# Libraries: installed or asked for once, then remembered in build/deps.mk.
ifneq ($(BUILDING),)
include build/deps.mk
build/deps.mk: scripts/setup
	@CC=$(CC) scripts/setup $(if $(filter test demo check fuzz bench,$(MAKECMDGOALS)),,--check) --write $@
endif

# What there is: every .c of these folders, every tests/**/test_*.c.
DIRS := cli engine $(addprefix engine/,base format text model backend backend/cpu $(if $(WITH_CUDA),backend/cuda)) offload audio
ABSENT := $(if $(WITH_CUDA),engine/backend/cuda_absent.c,tests/$(CUDA_DIR)/%) $(if $(ONIG),,%_onig.c)
PROG_C := $(filter-out $(ABSENT),$(wildcard $(DIRS:=/*.c)))
PROG_CU := $(wildcard $(filter $(CUDA_DIR),$(DIRS))/*.cu)
TEST_C := $(filter-out $(ABSENT),$(wildcard $(foreach d,* */* */*/* */*/*/*,tests/$d/test_*.c)))
SUPPORT_C := $(wildcard tests/support/*.c)
ALL_C := $(PROG_C) $(TEST_C) $(SUPPORT_C) $(wildcard tests/fuzz/*.c tests/bench/*.c)
ALL_H := $(wildcard $(DIRS:=/*.h) tests/support/*.h)
LIB := $(BUILD)/libvibevoice.a
TESTS := $(TEST_C:%.c=$(BUILD)/%)
FUZZERS := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/fuzz/fuzz_*.c))
BENCHES := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/bench/bench_*.c))
PROG := $(if $(SANITIZE),$(BUILD)/vibevoice,./vibevoice)

all: ./vibevoice ## build the program (default)
./vibevoice: $(BUILD)/vibevoice FORCE
	@ln -sf $< $@
$(BUILD)/vibevoice: $(BUILD)/cli/main.c.o $(LIB)
	$(SAY) LINK $@
	$(LINK)
$(LIB): $(patsubst %,$(BUILD)/%.o,$(filter-out cli/main.c,$(PROG_C)) $(PROG_CU))
	@rm -f $@
	$(Q)ar rcs $@ $^
$(BUILD)/%.c.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(SAY) CC $<
	$(Q)$(CC) $(C_FLAGS) -MMD -MP -c -o $@ $<
# Hopper's own instructions are no part of sm_90.
$(BUILD)/$(CUDA_DIR)/%_async.cu.o: GENCODE := $(subst compute_90$(comma)code=sm_90,compute_90a$(comma)code=sm_90a,$(GENCODE))
$(BUILD)/%.cu.o: %.cu $(BUILD)/flags
	@mkdir -p $(@D)
	$(SAY) NVCC $<
	$(Q)$(NVCC) $(NV_FLAGS) -MMD -MP -MF $(@:.o=.d) -c -o $@ $<
$(TESTS) $(BENCHES): $(BUILD)/%: $(BUILD)/%.c.o $(SUPPORT_C:%=$(BUILD)/%.o) $(LIB)
	$(LINK) -lcmocka $(if $(filter %_onig,$@),$(ONIG))
$(FUZZERS): %: %.c.o $(if $(findstring fuzzer,$(SANITIZE)),,$(BUILD)/tests/fuzz/replay.c.o) $(LIB)
	$(LINK)
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(C_FLAGS) $(NV_FLAGS)' | cmp -s - $@ || echo '$(C_FLAGS) $(NV_FLAGS)' > $@

test: $(if $(T:cli/%=),,$(PROG)) $(filter $(or $(T:%=$(BUILD)/tests/%),%),$(TESTS) $(FUZZERS)) ## run every test; T=audio/test_wav runs one
	@BUILD=$(BUILD) scripts/run-tests $(T)
check: lint layers style ## includes, layout, names, headers that compile alone, clang-tidy
lint: $(ALL_C:%=$(BUILD)/tidy/%.ok) $(ALL_H:%=$(BUILD)/alone/%.ok)
layers: ; @scripts/check-layers
style: $(LIB) ; @scripts/check-style $(LIB)
$(BUILD)/alone/%.h.ok: %.h $(BUILD)/flags
	@mkdir -p $(@D)
	$(Q)$(CC) $(C_FLAGS) -Werror -Wno-pedantic -MMD -MP -MT $@ -MF $(@:.ok=.d) -c -o $(@:.ok=.o) -include $< -x c /dev/null && touch $@
# After its object, so that a changed header is linted again too.
$(BUILD)/tidy/%.ok: $(BUILD)/%.o .clang-tidy tests/.clang-tidy scripts/tidy.h
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
	$< --man > $(BUILD)/vibevoice.1
	$< --completion bash > $(BUILD)/vibevoice.bash
	install -Dm755 $< $(DESTDIR)$(PREFIX)/bin/vibevoice
	install -Dm644 $(BUILD)/vibevoice.1 -t $(DESTDIR)$(PREFIX)/share/man/man1
	install -Dm644 $(BUILD)/vibevoice.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/vibevoice
uninstall: ## undo install
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/,bin/vibevoice share/man/man1/vibevoice.1 share/bash-completion/completions/vibevoice)
clean: ## remove what was built
	rm -rf build vibevoice
help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile
	@sed -n '3,/^$$/s/^# \{0,1\}//p' Makefile

-include $(wildcard $(patsubst %,$(BUILD)/%.d,$(ALL_C) $(PROG_CU)) $(ALL_H:%=$(BUILD)/alone/%.d))
.PHONY: all test check lint layers style demo bench fuzz fuzz-run install uninstall clean help FORCE
.DELETE_ON_ERROR:
.SECONDARY:
