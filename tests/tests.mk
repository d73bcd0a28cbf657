# SPDX-License-Identifier: Apache-2.0
# Targets that test. The groups of programs (TESTS, KERNEL, BENCH) are the Makefile's.

# RESULTS=FILE: where run-units writes what quickstart adds up.
UNITS = tests/run-units $(if $(RESULTS),-o $(RESULTS))
FUZZ_SECONDS ?= 60
SCENARIOS ?= $(filter-out %/lib.sh,$(wildcard tests/scenario/*.sh))
# One target per parser of foreign bytes; its corpus has its name.
FUZZ := $(patsubst tests/fuzz/%.c,build/fuzz/fuzz/%,$(wildcard tests/fuzz/*.c))

# Programs for inside a guest: static, and of no library, as the agent is.
TOOLS := $(patsubst tests/tools/%.c,$(B)/tools/%,$(wildcard tests/tools/*.c))

$(B)/tools/%: tests/tools/%.c
	@mkdir -p $(@D)
	@echo "CC $@"
	$(Q)$(CC) -std=gnu17 -D_GNU_SOURCE $(WARN) -O2 -g0 -static -s -o $@ $<

units: all $(TESTS) $(KERNEL) $(BENCH) $(TOOLS)

check: units layers ## unit tests, kernel tests, includes, man pages
	$(UNITS) $(TESTS) $(KERNEL)
	@[ ! -x tests/check-man ] || tests/check-man

check-units: units
	$(UNITS) $(TESTS) $(KERNEL)

check-asan: ## the same with address and undefined behaviour sanitizers
	$(MAKE) VARIANT=asan check-units

# Threads: only the programs that have some are worth the time, but nobody
# keeps a list of them right.
check-tsan: ## the same with the thread sanitizer
	$(MAKE) VARIANT=tsan check-units

# The tests of the shim start themselves again under LD_PRELOAD, the kernel tests
# fault on purpose: neither is valgrind's business.
VALGRIND := valgrind --quiet --error-exitcode=99 --leak-check=full \
	--errors-for-leak-kinds=definite --child-silent-after-fork=yes
check-valgrind: units ## the unit tests under valgrind
	$(UNITS) -t 600 -l valgrind -w "$(VALGRIND)" \
		$(filter-out %/test_shim %/test_shim_uffd $(B)/agent/test_agent_%,$(TESTS))

scenarios: all guest $(B)/image/test_store $(BENCH) $(TOOLS) ## stories with real guests
	BYRE_BUILD=$(B) $(UNITS) -n -t 600 $(SCENARIOS)

# Every target for FUZZ_SECONDS, from its corpus; findings end up in
# build/fuzz/found.
fuzz: ## each fuzz target for FUZZ_SECONDS (60)
	$(MAKE) VARIANT=fuzz fuzz-build
	FUZZ_SECONDS=$(FUZZ_SECONDS) $(UNITS) -t $$(($(FUZZ_SECONDS) + 60)) \
		-w tests/run-fuzz $(FUZZ)

fuzz-build: $(FUZZ)

build/fuzz/fuzz/%: tests/fuzz/%.c build/fuzz/libbyre.a build/fuzz/lib_agent.a
	@mkdir -p $(@D)
	@echo "CC $@"
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -MF $@.d -fsanitize=fuzzer -o $@ $< \
		$(filter %_agent.a,$(@:%/fuzz_agent=build/fuzz/lib_agent.a)) \
		build/fuzz/libbyre.a $(LDLIBS)

# The agent as a library, for the target that feeds it.
$(B)/lib_agent.a: $(AGENT_C:src/%.c=$(B)/obj/%.o)
	@rm -f $@ && ar rcs $@ $(filter-out %/main.o %/wire.o,$^)

bench: all guest ## what this host gives (needs a daemon, see quickstart)
	$(B)/byre bench create --template python -n 50
	$(B)/byre bench density --template python -n 20

lint: ## formatting and static analysis
	tests/lint

.PHONY: units check check-units check-asan check-tsan check-valgrind scenarios \
	fuzz fuzz-build bench lint
-include $(FUZZ:%=%.d)
