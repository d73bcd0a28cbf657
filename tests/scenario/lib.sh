# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# What every scenario shares
#
#	#!/bin/bash
#	# what the story is
#	. "$(dirname "$0")/lib.sh"
#	begin base			# or: all, empty
#	id=$(byre create base)
#	run byre exec "$id" -- false
#	expect 1
#	finish
#
# A scenario has a directory of its own ($D) with a root and a runtime
# directory, a daemon of its own, and ends nothing but what belongs to $D:
# processes are ours when they have a file below $D open. Exit code 0 is ok, 77
# a skip whose reason is the last line; everything else is a failure, with a
# line that says where and why.
#
# Roots come from a cache, baked once per build: `base` holds one template
# (busybox, 256 MiB), `all` holds base and python (Debian, 2 GiB) besides. They
# are hard links where that is possible, so nothing here may write into a file
# of a template; who wants to damage one calls own_file first.
#
# In the environment:
#	BYRE_BUILD	where byre was built (build/release)
#	BYRE_TEST_CACHE	build/test-cache
#	BYRE_TEST_KEEP	1: leave $D behind
#	MUST_RUN	1: a skip is a failure

set -uo pipefail
export LC_ALL=C

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TOP=$(cd "$HERE/../.." && pwd)
NAME=$(basename "$0" .sh)
BYRE_BUILD=$(cd "$TOP" && cd "${BYRE_BUILD:-build/release}" && pwd) || exit 1
CACHE=${BYRE_TEST_CACHE:-$TOP/build/test-cache}
BYRE=$BYRE_BUILD/byre
# Anything may hang; under emulation on a busy machine nothing we do at once
# takes longer.
PATIENCE=${PATIENCE:-60}
D=
DAEMON=
OURS=()

# ---- saying ----

say()
{
	echo "$NAME: $*"
}

fail()
{
	local i=1

	# The line in the scenario, not in here.
	while [ "${BASH_SOURCE[$i]:-}" = "${BASH_SOURCE[0]}" ]; do
		i=$((i + 1))
	done
	echo "$NAME:${BASH_LINENO[$((i - 1))]}: FAILED: $*" >&2
	if [ -n "$D" ] && [ -s "$D/daemon.log" ]; then
		echo "--- the daemon's last lines" >&2
		tail -n 15 "$D/daemon.log" | sed 's/^/    /' >&2
	fi
	exit 1
}

skip()
{
	echo "$NAME: skipped: $*"
	[ "${MUST_RUN:-}" = 1 ] && exit 1
	exit 77
}

need()
{
	local tool

	for tool; do
		command -v "$tool" >/dev/null || skip "$tool is not installed"
	done
}

# ---- running ----

byre()
{
	timeout -k 5 "$PATIENCE" "$BYRE" "$@"
}

# Run something; sets RC, OUT and ERR. Output must be text.
run()
{
	RAN=$*
	"$@" >"$D/out" 2>"$D/err" </dev/null
	RC=$?
	OUT=$(tr -d '\0' <"$D/out")
	ERR=$(tr -d '\0' <"$D/err")
}

# The exit code of the last run.
expect()
{
	[ "$RC" = "$1" ] ||
		fail "\"$RAN\": exit code $RC, not $1; stdout \"$OUT\", stderr \"$ERR\""
}

expect_out()
{
	[ "$OUT" = "$1" ] || fail "\"$RAN\" said \"$OUT\", not \"$1\" ($ERR)"
}

# A failure of byre itself: exit code, and one line on stderr that says all of
# the given words.
expect_error()
{
	local word

	expect "$1"
	shift
	[ "$(printf '%s\n' "$ERR" | wc -l)" = 1 ] ||
		fail "\"$RAN\": not one line of error: \"$ERR\""
	[ -z "$OUT" ] || fail "\"$RAN\" failed, yet said \"$OUT\""
	for word; do
		[[ $ERR == *"$word"* ]] ||
			fail "\"$RAN\": no \"$word\" in the error \"$ERR\""
	done
}

same()
{
	[ "$1" = "$2" ] || fail "$3: \"$1\" is not \"$2\""
}

# Is $1 <= $2, for a reason?
at_most()
{
	[ "$1" -le "$2" ] || fail "$3: $1 is more than $2"
}

at_least()
{
	[ "$1" -ge "$2" ] || fail "$3: $1 is less than $2"
}

# Has the output of a command a line like $1? All of it is read: `| grep -q`
# ends at the first such line, the command then fails in writing the rest, and
# with pipefail so does the pipe.
has_line()
{
	local pattern=$1

	shift
	"$@" >"$D/lines" && grep -aq -- "$pattern" "$D/lines"
}

# Until the command succeeds, at most $1 seconds; what: $2.
until_true()
{
	local seconds=$1 what=$2 end

	shift 2
	end=$((SECONDS + seconds))
	until "$@"; do
		[ $SECONDS -lt "$end" ] || fail "not within $seconds s: $what"
		sleep 0.1
	done
}

now_ms()
{
	date +%s%3N
}

# A value of a sandbox: get ID .state
get()
{
	byre inspect --json "$1" | jq -r "$2"
}

state_is()
{
	[ "$(get "$1" .state)" = "$2" ]
}

answers()
{
	[ "$(byre exec --timeout 20s "$1" -- echo "answer of $1" 2>/dev/null)" = \
		"answer of $1" ]
}

# A bucket or another number of one sandbox in the ledger.
ledger()
{
	byre mem --json "$1" | jq -r ".sandboxes[0].$2"
}

# ---- processes that are ours ----

# Whoever has a file below $D open, but no shell of this script.
own_processes()
{
	local fd pid

	for fd in /proc/[0-9]*/fd; do
		pid=${fd#/proc/}
		pid=${pid%/fd}
		[ "$pid" = $$ ] || [ "$pid" = "$BASHPID" ] && continue
		find "$fd" -lname "$D/*" -print -quit 2>/dev/null |
			grep -q . && echo "$pid"
	done
	return 0
}

# VMMs of this scenario.
own_vmms() (
	local pid

	exec 2>/dev/null # they come and go while we look
	for pid in $(own_processes); do
		tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" |
			grep -q 'qemu-system.*-name byre-' && echo "$pid"
	done
	return 0
)

no_vmms()
{
	[ -z "$(own_vmms)" ]
}

# ---- the daemon ----

daemon_answers()
{
	kill -0 "$DAEMON" 2>/dev/null ||
		fail "the daemon ended while starting"
	byre ls >/dev/null 2>&1
}

daemon_start()
{
	"$BYRE" serve --root "$BYRE_ROOT" --run "$BYRE_RUN" \
		>>"$D/daemon.log" 2>&1 </dev/null &
	DAEMON=$!
	disown # bash reaps it all the same, and does not comment on its end
	until_true 20 "the daemon answers" daemon_answers
}

# With a signal, TERM if none is given; waits for its end.
daemon_stop()
{
	local signal=${1:-TERM}

	[ -n "$DAEMON" ] || return 0
	kill "-$signal" "$DAEMON" 2>/dev/null
	# A daemon that does not end is killed by the cleanup.
	until_true 20 "the daemon ends of $signal" daemon_gone
	DAEMON=
}

daemon_gone()
{
	! kill -0 "$DAEMON" 2>/dev/null
}

# ---- the cache ----

cache_key()
{
	cat "$BYRE_BUILD/byre" "$BYRE_BUILD/byre-agent" \
		"$BYRE_BUILD/libbyre-gmem.so" "$BYRE_BUILD/guest/initrd" |
		sha256sum | cut -c 1-16
}

cache_rootfs()
{
	local file=$CACHE/$1.rootfs

	shift
	[ -f "$file" ] && return
	"$BYRE" rootfs build "$file.new" "$@" >&2 ||
		fail "cannot build $file"
	mv "$file.new" "$file"
}

# Make $CACHE/<key>/{base,all}; sets SEED.
cache_fill()
{
	local key

	mkdir -p "$CACHE"
	[ -f "$BYRE_BUILD/guest/initrd" ] ||
		fail "no guest in $BYRE_BUILD: make all guest"
	exec 8>"$CACHE/lock"
	flock 8
	key=$(cache_key)
	SEED=$CACHE/seed-$key
	cache_rootfs busybox --busybox
	cache_rootfs python --debian bookworm --include python3
	if ! [ -d "$SEED" ]; then
		# Other builds' are of no use any more.
		find "$CACHE" -maxdepth 1 -name 'seed-*' -exec rm -rf {} +
		cache_bake
	fi
	exec 8>&-
}

cache_bake()
{
	local name rootfs memory
	local tmp=$SEED.new

	say "baking the templates for all scenarios"
	rm -rf "$tmp"
	mkdir -p "$tmp"
	D=$(mktemp -d /tmp/byre-seed.XXXXXX)
	export BYRE_ROOT=$tmp/root BYRE_RUN=$D/run
	trap 'cleanup' EXIT
	for name in base python; do
		case $name in
		base) rootfs=busybox memory=256M ;;
		python) rootfs=python memory=2G ;;
		esac
		daemon_start 8>&-
		if [ $name = python ]; then
			set -- --warm 'python3 -c "import json, ssl"'
		else
			set --
		fi
		PATIENCE=280 byre bake "$name" --rootfs "$CACHE/$rootfs.rootfs" \
			--memory $memory "$@" >&2 ||
			fail "cannot bake $name"
		daemon_stop
		if [ $name = base ]; then
			cp -a --sparse=always "$BYRE_ROOT" "$tmp/base"
		else
			mv "$BYRE_ROOT" "$tmp/all"
		fi
	done
	mv "$tmp" "$SEED"
	cleanup
	trap - EXIT
	D=
}

# ---- an S3 server ----

# A real one, from npm, that checks signatures; installed once. Sets S3 (its
# endpoint; bucket "herd"), S3_PID, and the keys in the environment.
s3_start()
{
	local npm_dir=$TOP/build/npm

	need node npm
	export NODE_PATH=$npm_dir/node_modules
	mkdir -p "$npm_dir"
	exec 9>"$npm_dir/lock"
	flock 9
	if ! cmp -s "$TOP/tests/s3/package.json" "$npm_dir/installed"; then
		cp "$TOP/tests/s3/package.json" "$npm_dir/"
		timeout 300 npm install --prefix "$npm_dir" --no-audit \
			--no-fund --no-package-lock --ignore-scripts \
			>"$D/npm.log" 2>&1 9>&- ||
			skip "npm install does not work: $(tail -n 1 "$D/npm.log")"
		cp "$npm_dir/package.json" "$npm_dir/installed"
	fi
	exec 9>&-
	mkdir "$D/s3"
	(exec node "$TOP/tests/s3/server.js" "$D/s3" >"$D/s3.port" 2>"$D/s3.log") &
	S3_PID=$!
	OURS+=("$S3_PID")
	until_true 20 "the S3 server says its port" test -s "$D/s3.port"
	S3=http://127.0.0.1:$(cat "$D/s3.port")
	export AWS_ACCESS_KEY_ID=S3RVER AWS_SECRET_ACCESS_KEY=S3RVER
	unset AWS_SESSION_TOKEN http_proxy all_proxy ALL_PROXY
}

# ---- beginning and ending ----

cleanup()
{
	local pid i rc=$?

	trap - EXIT
	[ -n "$D" ] || exit $rc
	# Children first: clients, helpers, the daemon.
	for pid in ${OURS[@]+"${OURS[@]}"} $DAEMON; do
		kill -CONT "$pid" 2>/dev/null
		kill -KILL "$pid" 2>/dev/null
	done
	for i in 1 2 3; do
		for pid in $(own_processes); do
			kill -KILL "$pid" 2>/dev/null
		done
		[ -z "$(own_processes)" ] && break
		sleep 0.3
	done
	while grep -q " $D/" /proc/mounts; do
		umount "$(grep -o " $D/[^ ]*" /proc/mounts | tail -n 1 |
			cut -c 2-)" || break
	done
	if [ "${BYRE_TEST_KEEP:-}" = 1 ]; then
		say "left behind: $D"
	else
		rm -rf "$D"
	fi
	return $rc
}

# begin [base|all|empty] [no-daemon]
begin()
{
	need jq
	[ -x "$BYRE" ] || fail "no $BYRE: make"
	SECONDS=0
	cache_fill
	SECONDS=0
	D=$(mktemp -d /tmp/byre-sc.XXXXXX)
	trap 'cleanup; exit' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	export BYRE_ROOT=$D/root BYRE_RUN=$D/run
	seed "${1:-base}" "$BYRE_ROOT"
	if [ "${2:-}" != no-daemon ]; then
		daemon_start
	fi
}

# A root with the templates of a seed: links, or copies elsewhere.
seed()
{
	if [ "$1" = empty ]; then
		mkdir -p -m 700 "$2"
		return
	fi
	mkdir -p "$(dirname "$2")"
	if ! cp -al "$SEED/$1" "$2" 2>/dev/null; then
		rm -rf "$2"
		cp -a --sparse=always "$SEED/$1" "$2" ||
			fail "cannot copy $SEED/$1"
		return
	fi
	# Written in place by the daemon, so no links.
	rm -f "$2"/byre.db* "$2"/lock
	cp -a "$SEED/$1"/byre.db* "$2"/
}

# Make a file of a root a copy of its own, to be damaged.
own_file()
{
	cp -a --sparse=always "$1" "$1.own" && mv "$1.own" "$1" ||
		fail "copy $1"
}

# The directory of a template's image, told by its manifest.
image_of()
{
	local m

	for m in "$BYRE_ROOT"/images/*/manifest.json; do
		[ "$(jq -r .name "$m" 2>/dev/null)" = "$1" ] &&
			dirname "$m" && return
	done
	return 1
}

# What a daemon has in its database: it holds the lock, so from a copy.
rows()
{
	rm -rf "$D/db"
	mkdir "$D/db"
	cp "$BYRE_ROOT"/byre.db "$BYRE_ROOT"/byre.db-wal "$D/db/" 2>/dev/null
	sqlite3 "$D/db/byre.db" "$1" | sort
}

# Nothing half-made: the files, rows and processes are those of the $@ ids (or
# of none).
only_these()
{
	local want have where

	want=$(printf '%s\n' "$@" | sort)
	for where in "$BYRE_ROOT" "$BYRE_RUN"; do
		have=$(ls "$where/sandboxes" 2>/dev/null | sort)
		same "$have" "$want" "directories in $where/sandboxes"
	done
	if command -v sqlite3 >/dev/null; then
		same "$(rows 'SELECT id FROM sandboxes')" "$want" \
			"rows of sandboxes"
		same "$(rows 'SELECT id FROM bakes')" "" "rows of bakes"
		same "$(ls "$BYRE_ROOT/images" | sort)" \
			"$(rows 'SELECT dir FROM templates')" \
			"directories of images"
	fi
	have=$(own_vmms | wc -l)
	same "$have" "$#" "number of VMM processes"
}

# Remove every sandbox, end the daemon, and see that nothing is left.
finish()
{
	local ids left

	[ -n "$DAEMON" ] || daemon_start
	ids=$(byre ls -q) || fail "the daemon does not answer at the end"
	if [ -n "$ids" ]; then
		# shellcheck disable=SC2086
		byre rm -f $ids || fail "removing everything failed"
	fi
	same "$(byre ls -q)" "" "sandboxes left"
	only_these
	daemon_stop
	left=$(own_processes)
	[ -z "$left" ] || fail "processes left: $(ps -o pid=,args= -p \
		"$(echo "$left" | paste -sd,)" | cut -c 1-200)"
	# A scenario that provokes errors says which: QUIET is a pattern.
	left=$(grep 'Z error \|Sanitizer\|must(' "$D/daemon.log" |
		grep -v "${QUIET:-nothing is expected}" | head -n 1)
	[ -z "$left" ] || fail "the daemon complained: $left"
	say "ok (${SECONDS} s)"
	exit 0
}
