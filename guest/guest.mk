# SPDX-License-Identifier: Apache-2.0
# What guests boot from: kernel and initramfs, under build/<variant>/guest.

# The kernel's package, shared by all variants.
GUEST_CACHE ?= build/cache

guest: $(B)/guest/stamp ## kernel and initramfs for guests

$(B)/guest/stamp: guest/build $(B)/byre-agent
	GUEST_CACHE=$(GUEST_CACHE) guest/build $(B)/guest $(B)/byre-agent
	@touch $@

.PHONY: guest
