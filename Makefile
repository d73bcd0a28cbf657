# SPDX-License-Identifier: Apache-2.0
# Byre. "make help" lists the targets. Everything is built under
# build/<variant>: release, asan, tsan, clang, fuzz.

VARIANT ?= release
CC-clang := clang-14
CC-fuzz  := clang-14
ifeq ($(origin CC),default)
CC := $(or $(CC-$(VARIANT)),gcc)
endif
# make V=1 shows the commands
Q := $(if $(V),,@)
prefix  ?= /usr/local
B       := build/$(VARIANT)

OPT-release := -O2 -g -D_FORTIFY_SOURCE=2
OPT-clang   := -O2 -g
OPT-asan    := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
OPT-tsan    := -O1 -g -fsanitize=thread
OPT-fuzz    := -O1 -g -fsanitize=fuzzer-no-link,address,undefined
OPT         := $(OPT-$(VARIANT))

WARN := -Wall -Wextra -Werror -Wshadow -Wvla -Wundef -Wswitch-enum -Wcast-qual \
	-Wmissing-prototypes -Wstrict-prototypes -Wformat=2
LIBS := jansson sqlite3 libmicrohttpd libcrypto libcurl libzstd
CFLAGS  ?=
ALL_CFLAGS := -std=gnu17 -D_GNU_SOURCE -Isrc $(WARN) $(OPT) \
	$(shell pkg-config --cflags $(LIBS)) $(CFLAGS)
ALL_LDFLAGS := $(OPT) $(LDFLAGS)
LDLIBS  := $(shell pkg-config --libs $(LIBS)) -lpthread

FOLDERS := base image gmem pager vmm agent ledger sandbox template api cmd
HEADERS := $(wildcard $(FOLDERS:%=src/%/*.h))
# The shim and the agent are programs of their own, with their own flags.
SHIM_C  := src/gmem/shim.c src/gmem/shim_uffd.c
ZYGOTE_C := src/vmm/zygote_child.c src/vmm/trim_child.c
AGENT_C := $(filter-out src/agent/test_%,$(wildcard src/agent/*.c))
SRC_C   := $(filter-out $(SHIM_C) $(ZYGOTE_C) $(AGENT_C) %/main.c src/%/test_%, \
	$(foreach f,$(FOLDERS),$(filter-out src/$(f)/test_%,$(wildcard src/$(f)/*.c)))) \
	src/agent/wire.c
OBJ     := $(SRC_C:src/%.c=$(B)/obj/%.o)
MAIN_O  := $(B)/obj/cmd/main.o
TESTS   := $(patsubst src/%.c,$(B)/%,$(wildcard $(FOLDERS:%=src/%/test_*.c)))
KERNEL  := $(patsubst tests/kernel/%.c,$(B)/kernel/%,$(wildcard tests/kernel/*.c))
BENCH   := $(patsubst tests/bench/%.c,$(B)/bench/%,$(wildcard tests/bench/*.c))
MAN     := $(patsubst doc/man/%.scd,build/man/%,$(wildcard doc/man/*.scd))

all: $(B)/byre $(B)/libbyre-gmem.so $(B)/libbyre-zygote.so $(B)/byre-agent ## build the programs

$(B)/byre: $(OBJ) $(MAIN_O)
	@echo "LD $@"
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LDLIBS)

$(B)/libbyre.a: $(OBJ)
	@echo "AR $@"
	$(Q)rm -f $@ && ar rcs $@ $^

$(B)/obj/%.o: src/%.c
	@mkdir -p $(@D)
	@echo "CC $@"
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

# Preloaded into a foreign program: no sanitizer, nothing but libc.
$(B)/libbyre-gmem.so: $(SHIM_C) $(HEADERS)
	@mkdir -p $(@D)
	@echo "CC $@"
	$(Q)$(CC) -std=gnu17 -D_GNU_SOURCE -Isrc $(WARN) -O2 -g -fPIC -shared \
		-fvisibility=hidden -o $@ $(SHIM_C) -ldl

$(B)/libbyre-zygote.so: $(ZYGOTE_C) src/vmm/child.c $(HEADERS)
	@mkdir -p $(@D)
	@echo "CC $@"
	$(Q)$(CC) -std=gnu17 -D_GNU_SOURCE -Isrc $(WARN) -O2 -g -fPIC -shared \
		-fvisibility=hidden -o $@ $(ZYGOTE_C) src/vmm/child.c -ldl

# Static, PID 1 in the guest, on any CPU the guest may have.
$(B)/byre-agent: $(AGENT_C) $(HEADERS)
	@mkdir -p $(@D)
	@echo "CC $@"
	$(Q)$(CC) -std=gnu17 -D_GNU_SOURCE -Isrc $(WARN) -Os -g0 -static \
		-ffunction-sections -Wl,--gc-sections -s -o $@ $(AGENT_C)

$(B)/%: src/%.c $(B)/libbyre.a
	@mkdir -p $(@D)
	@echo "CC $@"
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -MF $@.d $(ALL_LDFLAGS) -o $@ $< $(TEST_EXTRA) $(B)/libbyre.a $(LDLIBS)

$(B)/kernel/%: tests/kernel/%.c
	@mkdir -p $(@D)
	@echo "CC $@"
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -MF $@.d $(ALL_LDFLAGS) -o $@ $< -lpthread

$(B)/bench/%: tests/bench/%.c $(B)/libbyre.a
	@mkdir -p $(@D)
	@echo "CC $@"
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -MF $@.d $(ALL_LDFLAGS) -o $@ $< $(B)/libbyre.a $(LDLIBS)

include tests/tests.mk guest/guest.mk

man: $(MAN) ## manual pages, in build/man

build/man/%: doc/man/%.scd
	@mkdir -p $(@D)
	@echo "SCDOC $@"
	$(Q)scdoc <$< >$@ || { rm -f $@; false; }

INSTALL := install -D -m
install: all guest man ## to $(DESTDIR)$(prefix)
	$(INSTALL) 755 $(B)/byre $(DESTDIR)$(prefix)/bin/byre
	$(INSTALL) 755 $(B)/byre-agent $(DESTDIR)$(prefix)/lib/byre/byre-agent
	for f in $(B)/libbyre-*.so; do $(INSTALL) 644 $$f \
		$(DESTDIR)$(prefix)/lib/byre/$${f##*/} || exit; done
	for f in vmlinuz vmlinux kernel.version initrd; do $(INSTALL) 644 \
		$(B)/guest/$$f $(DESTDIR)$(prefix)/lib/byre/guest/$$f || exit; done
	for f in $(MAN); do $(INSTALL) 644 $$f \
		$(DESTDIR)$(prefix)/share/man/man$${f##*.}/$${f##*/} || exit; done

headers: ## every header compiles alone
	@for h in $(HEADERS); do echo "#include \"$${h#src/}\"" | \
		$(CC) $(ALL_CFLAGS) -fsyntax-only -x c - || exit 1; done

layers: ## includes point only downward
	tests/layers

format: ## let clang-format have its way
	clang-format-14 -i $(wildcard src/*/*.[ch] tests/*/*.[ch])

clean: ## forget everything built
	rm -rf build

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST:%.d=) | expand -t 16

.PHONY: all man install headers layers format clean help
.SECONDARY:
-include $(OBJ:.o=.d) $(MAIN_O:.o=.d) $(TESTS:%=%.d) $(KERNEL:%=%.d) $(BENCH:%=%.d)
