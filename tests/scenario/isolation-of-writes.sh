#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# 200 MiB written in one guest are private to it, nobody else pays, nobody else
# sees them, and the template's files stay what they are. The ledger agrees with
# the kernel to the page.
. "$(dirname "$0")/lib.sh"
begin all
MIB=$((1 << 20))

image=$(image_of python) || fail "no image"
files=$(cd "$image" && stat -c '%n %s %b %y %z' *)
for n in writer a b c; do
	byre create python --name $n >/dev/null || fail "create $n"
	answers $n || fail "$n does not answer"
done

buckets()
{
	byre mem --json | jq -c 'reduce .sandboxes[] as $s ({}; .[$s.id] = $s)'
}

of()
{
	jq --arg id "$(get "$2" .id)" ".[\$id].$3" <<<"$1"
}

before=$(buckets)
# Memory, not a file: nothing goes to the disk. 200 MiB of what is not zero.
byre exec writer -- sh -c '
	head -c 209715200 /dev/urandom >/dev/shm/file && echo done' >"$D/written" ||
	fail "write 200 MiB"
after=$(buckets)
grown=$(($(of "$after" writer private) - $(of "$before" writer private)))
say "written 200 MiB: private grew by $((grown / MIB)) MiB"
at_least $grown $((196 * MIB)) "growth of private"
at_most $grown $((210 * MIB)) "growth of private"
for n in a b c; do
	grown=$(($(of "$after" $n private) - $(of "$before" $n private)))
	at_most $grown $((2 * MIB)) "growth of private of $n"
	run byre exec $n -- ls /dev/shm
	expect_out ""
done
same "$(cd "$image" && stat -c '%n %s %b %y %z' *)" "$files" \
	"sizes and times of the template's files"

# To the page: private is what smaps calls anonymous in the guest's RAM. Pages
# may be touched between two looks, so paused.
for n in writer a; do
	byre pause $n >/dev/null || fail pause
	pid=$(get $n .pid)
	configured=$(ledger $n configured)
	# The guest's RAM is one range of that size, of mappings side by side:
	# from the first of the image's file, rounded down to where the run of
	# adjacent mappings begins.
	anonymous=$(awk -v size="$configured" -v image="$image/memory" '
		function number(h,	i, n) {
			n = 0
			for (i = 1; i <= length(h); i++)
				n = n * 16 + index("0123456789abcdef",
					substr(h, i, 1)) - 1
			return n
		}
		/^[0-9a-f]+-[0-9a-f]+ / {
			split($1, r, "-")
			n++
			from[n] = number(r[1])
			to[n] = number(r[2])
			if ($6 == image && !seen)
				seen = n
			next
		}
		/^(Anonymous|Swap):/ { anon[n] += $2 * 1024 }
		END {
			# The plan begins with memory of the image or zeros.
			for (first = seen; first > 1 &&
				to[first - 1] == from[first]; first--)
				;
			for (f = first; f <= seen; f++) {
				sum = 0
				for (i = f; i <= n && to[i] <= from[f] + size; i++)
					sum += anon[i]
				if (to[i - 1] == from[f] + size) {
					print sum
					exit
				}
			}
			print "no range of " size " bytes"
		}' "/proc/$pid/smaps")
	same "$(ledger $n private)" "$anonymous" "private of $n, against smaps"
	byre resume $n >/dev/null || fail resume
done

# What the guest frees stays its own until somebody asks for it back (the
# balloon); memory that is used again reads as zeros.
byre exec writer -- sh -c 'rm /dev/shm/file; echo 3 >/proc/sys/vm/drop_caches'
byre exec writer -- python3 -c '
import mmap
m = mmap.mmap(-1, 150 << 20)
assert m.read().count(0) == 150 << 20
print("zeros")' >"$D/zeros"
same "$(cat "$D/zeros")" zeros "fresh memory of the guest"
for n in a b c; do
	answers $n || fail "$n does not answer"
done
# A new daemon compares every file with its digest before the first create.
daemon_stop
daemon_start
run byre run python -- echo unchanged
expect 0
expect_out unchanged
finish
