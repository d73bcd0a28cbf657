#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A template that is somewhere else: a host that has never seen it runs sandboxes
# from it within a moment, each byte is fetched once for all of them, and pager
# and daemon may die in every combination. When the store goes, who needs it
# fails and says why, and nobody else does. When all has come, it is a template
# like any other.
. "$(dirname "$0")/lib.sh"
export BYRE_PAGER_DEADLINE=4
begin base

# Two with 16 MiB that nobody can guess and no trial has touched; and one that
# may not be shared.
for t in blob far; do
	PATIENCE=280 byre bake $t --rootfs "$CACHE/busybox.rootfs" \
		--memory 256M \
		--warm 'mkdir -p /mnt/t && mount -t tmpfs tmpfs /mnt/t &&
			head -c 16777216 /dev/urandom >/mnt/t/blob &&
			md5sum /mnt/t/blob >/mnt/t/sum' \
		>/dev/null 2>"$D/err" || fail "bake: $(cat "$D/err")"
done
PATIENCE=280 byre bake alone --rootfs "$CACHE/busybox.rootfs" --memory 128M \
	--share none >/dev/null 2>"$D/err" || fail "bake: $(cat "$D/err")"
all=(blob far alone base)
mkdir "$D/store"
byre store add here "$D/store" || fail "store add"
for t in "${all[@]}"; do
	byre push "$t" here >/dev/null 2>"$D/err" || fail "push: $(cat "$D/err")"
done
daemon_stop

export BYRE_ROOT=$D/cold BYRE_RUN=$D/cold-run
daemon_start
byre store add here "$D/store" || fail "store add"
for t in "${all[@]}"; do
	byre pull here "$t" >/dev/null 2>"$D/err" || fail "pull: $(cat "$D/err")"
done

pager()
{
	cut -d ' ' -f 1 "$BYRE_RUN/pager.pid"
}

# A zombie, which somebody else's init may leave for a while, does not live.
lives()
{
	readlink "/proc/$1/exe" >/dev/null
}

other_pager()
{
	[ "$(pager)" != "$1" ] && lives "$(pager)"
}

fetched()
{
	byre mem --pager --json | jq '[.layers[].fetched_bytes] | add'
}

# Every page of the blob, and files that were not read before.
sums()
{
	run byre exec "$1" -- sh -c 'md5sum -c /mnt/t/sum &&
		echo 3 >/proc/sys/vm/drop_caches; md5sum /bin/* | md5sum'
	expect 0
	[ -n "$SUMS" ] || SUMS=$OUT
	expect_out "$SUMS"
}

# ---- from nothing, twice, and fetched once ----

[ ! -e "$BYRE_RUN/pager.pid" ] || fail "a pager that nobody needs"
t=$(now_ms)
run byre create blob --name a
expect 0
say "first sandbox of an image that is not here: $(($(now_ms) - t)) ms"
SUMS=
sums a
[[ $SUMS == "/mnt/t/blob: OK"* ]] || fail "sums: $SUMS"
bytes=$(fetched)
t=$(now_ms)
run byre create blob --name b
expect 0
say "second sandbox: $(($(now_ms) - t)) ms"
sums b
at_most "$(($(fetched) - bytes))" 1048576 "bytes fetched for the second"
same "$(byre mem --pager --json | jq '[.layers[] | .prefetch_waste ==
	.frames_prefetch - .prefetch_hits] | all')" true "frames wasted"
# Shared, not copied: the blob alone is 16 MiB.
at_most "$(ledger b private)" 14000000 "private memory of the second"
run byre create alone
expect_error 1 "share: none" "pull --eager"
only_these "$(get a .id)" "$(get b .id)"

# ---- deaths ----

loop()
{
	"$BYRE" exec "$1" -- sh -c 'while :; do md5sum -c /mnt/t/sum || exit 1;
		done' >"$D/loop.$1" 2>/dev/null &
	OURS+=($!)
	disown
}

goes_on()
{
	[ "$(wc -l <"$D/loop.$1")" -gt "$2" ]
}

loop a
for i in 1 2 3; do
	old=$(pager)
	byre template evict blob >/dev/null || fail evict
	kill -KILL "$old"
	until_true 10 "another pager" other_pager "$old"
	n=$(wc -l <"$D/loop.a")
	until_true 30 "the loop goes on" goes_on a "$n"
done
! grep -v '^/mnt/t/blob: OK$' "$D/loop.a" || fail "wrong bytes"
sums b

for signal in KILL TERM; do
	old=$(pager)
	daemon_stop $signal
	lives "$old" || fail "the pager ended with the daemon"
	daemon_start
	until_true 10 "another pager" other_pager "$old"
	! lives "$old" || fail "two pagers"
	byre template evict blob >/dev/null || fail evict
	sums a
	sums b
	same "$(get a .state)" running "state after SIG$signal"
done
kill -KILL "$(pager)" "$DAEMON"
until_true 10 "the daemon is gone" daemon_gone
DAEMON=
daemon_start
byre template evict blob >/dev/null || fail evict
sums a
sums b

# ---- the store goes ----

run byre create far --name c
expect 0
mv "$D/store" "$D/away"
run byre create base
expect_error 1 base "$D/store"
run byre exec c -- md5sum -c /mnt/t/sum
[ "$RC" != 0 ] || fail "bytes from nowhere: $OUT"
until_true 30 "c failed" state_is c failed
[[ $(get c .cause) == *here* ]] || fail "cause: $(get c .cause)"
# Their pages are here, or in the cache.
sums a
sums b
mv "$D/away" "$D/store"
byre rm c >/dev/null || fail "rm c"
run byre create base
expect 0
answers "$OUT" || fail "no answer with the store back"
run byre create far --name c
expect 0
run byre exec c -- md5sum -c /mnt/t/sum
expect 0

# ---- all of it comes ----

run byre pull here blob --eager
expect 0
sums a
run byre create blob --name d
expect 0
sums d
same "$(ls "$(image_of blob)"/disk*)" "$(image_of blob)/disk
$(image_of blob)/disk.boot" "files of the disk"
kill -KILL "$(pager)"
daemon_stop KILL
daemon_start
for i in a b d; do
	sums $i
done
run byre exec c -- md5sum -c /mnt/t/sum
expect 0
QUIET='event=page-lost'
finish
