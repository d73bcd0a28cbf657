#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Files and directories into a guest and back: contents, modes, times, links and
# odd names survive; what a hostile guest names goes nowhere but below the
# target.
. "$(dirname "$0")/lib.sh"
begin base

byre create base --name x >/dev/null || fail create

# A tree of everything.
t=$D/tree
mkdir -p "$t/empty" "$t/deep/er/and/deeper" "$t/mode"
head -c 5000000 /dev/urandom >"$t/big"
: >"$t/nothing"
echo a >"$t/deep/er/and/deeper/file"
echo s >"$t/name with spaces"
echo n >"$t/new
line"
echo u >"$t/ünïcödé"
echo d >"$t/-dash"
echo g >"$t/gl*b?[x]"
echo q >"$t/quo'te\"s\\"
echo c >"$t/co:lon"
echo r >"$t/$(printf 'raw\xff\xfe')"
echo l >"$t/$(printf 'l%.0s' $(seq 200))"
for mode in 600 755 444 4755 1777; do
	echo m >"$t/mode/$mode"
	chmod $mode "$t/mode/$mode"
done
chmod 1777 "$t/empty"
ln -s big "$t/link"
ln -s /etc/passwd "$t/absolute"
ln -s nowhere "$t/dangling"
ln -s . "$t/loop"
touch -d '2001-02-03 04:05:06.789' "$t/nothing"
truncate -s 50M "$t/sparse"
echo end >>"$t/sparse"

listing()
{
	(cd "$1" && find . -mindepth 1 -printf '%P %y %m %s %T@ %l\n' | sort |
		awk '$2 == "d" { $4 = $5 = "" } { print }' FS=' ' | sort)
}

byre cp "$t" x:/tmp/tree || fail "cp in"
same "$(byre exec x -- stat -c %a /tmp/tree/mode/4755 /tmp/tree/mode/1777 |
	paste -sd' ')" "4755 1777" "modes in the guest"
byre cp x:/tmp/tree "$D/back" || fail "cp out"
# What comes from a guest gets no powers here.
chmod 755 "$t/mode/4755"
chmod 777 "$t/mode/1777" "$t/empty"
diff -r --no-dereference "$t" "$D/back" || fail "trees differ"
# Directories' sizes and links' times are the file system's affair.
what='%P %y %m %s %l\n'
diff <(cd "$t" && find . -mindepth 1 ! -type d -printf "$what" | sort) \
	<(cd "$D/back" && find . -mindepth 1 ! -type d -printf "$what" | sort) ||
	fail "modes, sizes or links differ"
diff <(cd "$t" && find . -type d -printf '%P %m\n' | sort) \
	<(cd "$D/back" && find . -type d -printf '%P %m\n' | sort) ||
	fail "modes of directories differ"
same "$(stat -c %Y "$D/back/nothing")" "$(stat -c %Y "$t/nothing")" "time of a file"

# Where it goes, as cp has it.
echo one >"$D/one"
byre cp "$D/one" x:/tmp/new || fail "file to nothing"
byre cp "$D/one" x:/tmp/ || fail "file to a directory"
byre cp "$D/one" x:/tmp || fail "file to a directory"
same "$(byre exec x -- cat /tmp/new /tmp/one | paste -sd' ')" "one one" files
byre cp "$t/deep" x:/tmp/tree || fail "directory into a directory"
byre exec x -- test -f /tmp/tree/deep/er/and/deeper/file || fail "no deep"
byre exec x -- mkdir /tmp/flat
byre cp "$t/deep/." x:/tmp/flat || fail "contents into a directory"
byre exec x -- test -f /tmp/flat/er/and/deeper/file || fail "no flat"
run byre cp "$D/one" x:/tmp/none/
[ "$RC" = 1 ] || fail "file to a missing directory: $RC"
run byre cp "$t" x:/tmp/new
[ "$RC" = 1 ] || fail "directory over a file: $RC"
run byre cp x:/tmp/none "$D/none"
expect_error 1 /tmp/none
[ ! -e "$D/none" ] || fail "a failed copy left a file"
run byre cp x:/dev/null "$D/null"
[ "$RC" != 0 ] || [ ! -e "$D/null" ] || fail "a device was copied"
run byre cp "$D/one" nobody:/tmp
expect_error 1 nobody
run byre cp x:/tmp/one x:/tmp/two
expect 2
# Files whose size the kernel makes up: what they hold, both ways.
for f in /proc/version /proc/cpuinfo /sys/class/net/lo/mtu; do
	byre cp "x:$f" "$D/made-up" || fail "cp x:$f"
	byre exec x -- cat $f | cmp - "$D/made-up" || fail "$f differs"
done
for f in /proc/version /proc/filesystems; do
	byre cp "$f" x:/tmp/made-up || fail "cp $f"
	byre exec x -- cat /tmp/made-up | cmp - "$f" || fail "$f differs there"
done
run byre cp x:/proc/kallsyms "$D/kallsyms"
expect_error 1 x:/proc/kallsyms "1 MiB"
[ ! -e "$D/kallsyms" ] || fail "a refused copy left a file"
# One that shrinks under way is not filled up, and leaves nothing half.
mkdir "$D/half"
byre exec x -- truncate -s 4G /tmp/shrinks || fail truncate
byre cp x:/tmp/shrinks "$D/half/shrinks" >"$D/shrinks" 2>&1 &
copy=$!
until_true 20 "the copy has begun" eval '[ -n "$(ls -A "$D/half")" ]'
byre exec x -- truncate -s 1000 /tmp/shrinks || fail truncate
ended()
{
	wait $copy
	local code=$?

	cat "$D/shrinks" >&2
	return $code
}
run ended
expect_error 1 x:/tmp/shrinks "it shrank meanwhile"
same "$(ls -A "$D/half")" "" "left of a copy whose source shrank"
# Two ways at once, many at once.
for i in 1 2 3 4 5 6; do
	byre cp "$t/big" "x:/tmp/big$i" &
	many[i]=$!
	byre cp x:/tmp/tree/big "$D/big$i" &
	more[i]=$!
done
wait "${many[@]}" "${more[@]}" || fail "many at once"
for i in 1 2 3 4 5 6; do
	cmp "$t/big" "$D/big$i" || fail "big$i differs"
done
same "$(byre exec x -- sh -c 'cat /tmp/big? | sha256sum')" \
	"$(for i in 1 2 3 4 5 6; do cat "$t/big"; done | sha256sum)" "big[1-6]"

# Hostile: links out of the tree, in both places.
mkdir "$D/jail"
ln -s "$D/outside" "$D/jail/out"
mkdir "$D/outside"
byre exec x -- sh -c 'mkdir -p /tmp/h/out && echo evil >/tmp/h/out/file'
run byre cp x:/tmp/h/. "$D/jail"
[ -z "$(ls "$D/outside")" ] || fail "a link in the target was followed"
byre exec x -- sh -c 'mkdir /tmp/h2; ln -s /etc /tmp/h2/dir; ln -s ../../x /tmp/h2/up; mkfifo /tmp/h2/fifo; mknod /tmp/h2/node c 1 3'
run timeout 30 "$BYRE" cp x:/tmp/h2 "$D/h2"
[ "$RC" = 0 ] || [ "$RC" = 1 ] || fail "a tree with a fifo and a device: $RC ($ERR)"
say "a tree with a fifo and a device: $RC, $ERR"
[ ! -p "$D/h2/fifo" ] && [ ! -c "$D/h2/node" ] || fail "a device was made here"
# No room there: an error, and the guest lives.
byre exec x -- sh -c 'mkdir /small; mount -t tmpfs -o size=1m none /small'
run byre cp "$t/big" x:/small/big
expect_error 1 "No space left"
byre exec x -- umount /small
# Cut off in the middle.
timeout -s KILL 0.3 "$BYRE" cp "$t/sparse" x:/tmp/cut >/dev/null 2>&1
answers x || fail "no answer after a copy that was cut off"
until_true 5 "streams are free again" eval 'byre cp "$D/one" x:/tmp/one2'
finish
