# SPDX-License-Identifier: Apache-2.0
# Targets that test.

check: all $(TESTS) $(KERNEL) ## the unit tests and the kernel tests
	tests/run-units $(TESTS) $(KERNEL)

.PHONY: check
