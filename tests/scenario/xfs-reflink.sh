#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# On a file system that shares blocks, a sandbox's disk is a reflink of the
# template's: a plain raw file that costs what was written to it.
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" = 0 ] || skip "needs root, for a loop mount"
need mkfs.xfs losetup
begin empty no-daemon

truncate -s 1G "$D/disk.img"
mkfs.xfs -q -m reflink=1 "$D/disk.img" || skip "mkfs.xfs cannot do reflinks"
mkdir "$D/mnt"
mount -o loop "$D/disk.img" "$D/mnt" 2>"$D/err" || skip "mount: $(cat "$D/err")"
BYRE_ROOT=$D/mnt/root
cp -a --sparse=always "$SEED/base" "$BYRE_ROOT" || fail "copy the root"
daemon_start
id=$(byre create base) || fail create
other=$(byre create base) || fail create
answers "$id" || fail "it does not answer"
disk=$BYRE_ROOT/sandboxes/$id/disk
same "$(stat -c %s "$disk")" "$(stat -c %s "$(image_of base)/disk")" \
	"size of the disk"
same "$(head -c 4 "$disk" | od -An -tx1)" " 00 00 00 00" "magic of the disk"
used=$(df --output=used -k "$D/mnt" | tail -n 1)
byre exec "$id" -- sh -c 'head -c 20000000 /dev/urandom >/root/big; sync'
used=$(($(df --output=used -k "$D/mnt" | tail -n 1) - used))
at_most $used 40000 "KiB for 20 MB written"
at_least $used 19000 "KiB for 20 MB written"
run byre exec "$other" -- ls /root/big
expect 1
digest=$(byre exec "$id" -- sha256sum /root/big)
daemon_stop KILL
daemon_start
byre exec "$id" -- sh -c 'echo 3 >/proc/sys/vm/drop_caches'
same "$(byre exec "$id" -- sha256sum /root/big)" "$digest" "digest of the file"
before=$(df --output=used -k "$D/mnt" | tail -n 1)
byre rm -f "$id" "$other" || fail rm
until_true 5 "the space is given back" eval \
	"[ \$(df --output=used -k $D/mnt | tail -n 1) -lt $((before - 19000)) ]"
# A bake here too.
run byre bake again --rootfs "$CACHE/busybox.rootfs" --memory 128M
expect 0
run byre run again -- echo works
expect_out works
finish
