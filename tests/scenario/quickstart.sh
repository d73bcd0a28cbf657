#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The first thing anyone does: ./quickstart ends with 20 sandboxes of 2 GiB that
# have answered; again, it adds none; stop leaves nothing.
#
# Without lib.sh: quickstart starts and ends the daemon itself.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
D=$(mktemp -d /tmp/byre-qs.XXXXXX)
export BYRE_ROOT=$D/root BYRE_RUN=$D/run
byre=build/release/byre

cleanup()
{
	timeout 60 ./quickstart stop >/dev/null 2>&1
	rm -rf "$D"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail()
{
	echo "quickstart: FAILED: $*"
	tail -n 20 "$D/out" "$D/root/serve.log" 2>/dev/null
	exit 1
}

herd()
{
	timeout 60 "$byre" ls --json | jq -r '.[] | select(.state == "running" and
		.template == "python" and .memory_bytes == 2147483648) | .id' | sort
}

demo()
{
	./quickstart >"$D/out" 2>&1 || fail "demo ended with $?"
	[ "$(grep -c '^  quick-[0-9]*: I am quick-[0-9]*, ' "$D/out")" = 20 ] ||
		fail "not 20 answers"
	# Everyone's random number is its own.
	[ "$(sed -n 's/^  quick.*number is //p' "$D/out" | sort -u | wc -l)" = 20 ] ||
		fail "random numbers are not"
	[ "$(herd | wc -l)" = 20 ] || fail "not 20 sandboxes"
}

demo
first=$(herd)
timeout 60 "$byre" mem --json | jq -e '.host | .promised == 20 * 2147483648 and
	.billed > 0 and .billed < .promised / 8' >/dev/null ||
	fail "the ledger: $("$byre" mem --json | jq -c .host)"
demo
[ "$(herd)" = "$first" ] || fail "the second run changed the herd"
pid=$(cut -d ' ' -f 1 "$D/run/quickstart.pid")
./quickstart stop >"$D/out" 2>&1 || fail "stop ended with $?"
! kill -0 "$pid" 2>/dev/null || fail "the daemon, $pid, lives"
[ -z "$(find "$D/root/sandboxes" "$D/run/sandboxes" -name 'sb*')" ] ||
	fail "sandboxes are left"
./quickstart stop >"$D/out" 2>&1 || fail "a second stop ended with $?"
