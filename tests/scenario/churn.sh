#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Eight clients create and remove for a minute; then nothing has grown: the
# daemon's fds, threads and memory, processes, files, rows.
. "$(dirname "$0")/lib.sh"
begin base
MINUTE=${MINUTE:-60}

fds()
{
	ls "/proc/$DAEMON/fd" | wc -l
}

rss()
{
	awk '/^VmRSS/ { print $2 }' "/proc/$DAEMON/status"
}

disk()
{
	du -s --block-size=1K "$BYRE_ROOT" | cut -f 1
}

# Everything once, so that what is made on first use exists.
one_round()
{
	local id how=$((RANDOM % 6))

	id=$(byre create base 2>>"$D/errors") || return 1
	case $how in
	0) byre exec "$id" -- sh -c 'head -c 300000 /dev/urandom' >/dev/null ;;
	1) byre pause "$id" >/dev/null && byre resume "$id" >/dev/null ;;
	2) byre mem --json "$id" >/dev/null ;;
	3) byre cp "$BYRE_BUILD/byre-agent" "$id:/tmp/x" ;;
	4) timeout 1 "$BYRE" exec "$id" -- sleep 0.2 ;;
	5) [ "$(byre exec "$id" -- echo "I am $id")" = "I am $id" ] ;;
	esac 2>>"$D/errors" || echo "round $how: $?" >>"$D/errors"
	byre rm -f "$id" 2>>"$D/errors" || return 1
	echo "$id" >>"$D/made.$1"
}

client()
{
	while [ $SECONDS -lt "$END" ]; do
		one_round "$1" || echo "client $1 failed" >>"$D/errors"
	done
}

: >"$D/errors"
for i in 1 2 3 4 5 6 7 8 9 10 11 12; do
	one_round 0
done
sleep 1
fds0=$(fds) rss0=$(rss) disk0=$(disk) threads0=$(ls "/proc/$DAEMON/task" | wc -l)
procs0=$(own_processes | wc -l)
END=$((SECONDS + MINUTE))
for i in 1 2 3 4 5 6 7 8; do
	client $i &
	clients[i]=$!
done
OURS+=("${clients[@]}")
wait "${clients[@]}"
made=$(cat "$D"/made.[1-8] | wc -l)
[ ! -s "$D/errors" ] || fail "$(sort "$D/errors" | uniq -c | sort -n | tail -n 3)"
same "$(byre ls -q)" "" "sandboxes left"
sleep 1
say "$made made and removed; fds $fds0 -> $(fds), KiB $rss0 -> $(rss)," \
	"disk $disk0 -> $(disk) KiB, threads $threads0 ->" \
	"$(ls "/proc/$DAEMON/task" | wc -l), processes $procs0 ->" \
	"$(own_processes | wc -l)"
at_least "$made" 40 "sandboxes made in $MINUTE s"
at_most "$(fds)" $((fds0 + 2)) "fds of the daemon"
at_most "$(rss)" $((rss0 + 4096)) "KiB of the daemon"
# The database's log may have grown once.
at_most "$(disk)" $((disk0 + 8192)) "KiB on disk"
at_most "$(ls "/proc/$DAEMON/task" | wc -l)" "$threads0" "threads"
at_most "$(own_processes | wc -l)" "$procs0" "processes"
only_these
same "$(cat "$D"/made.[1-8] | sort | uniq -d)" "" "ids used twice"
finish
