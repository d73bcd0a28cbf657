#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A template's files are cut, bent, lost, or come from another host: creating
# from it is refused with one line that names the file and what is wrong,
# `byre templates` says the same, nobody else notices; repaired, it works again.
. "$(dirname "$0")/lib.sh"
begin all

image=$(image_of base) || fail "no image of base"
running=$(byre create base) || fail "create"
other=$(byre create python) || fail "create from python"

# Turn one bit in FILE at OFFSET.
flip()
{
	local byte

	byte=$(od -An -tu1 -j"$2" -N1 "$1")
	printf "\\x$(printf %x $((byte ^ 16)))" |
		dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# $1: file, $2: command that damages it, run in the image's directory; the rest:
# words the error must hold.
damaged()
{
	local file=$1 how=$2

	shift 2
	[ "${OFFLINE:-}" != 1 ] || daemon_stop
	mv "$image/$file" "$D/good" || fail "$file"
	cp -a --sparse=always "$D/good" "$image/$file"
	(cd "$image" && eval "$how") || fail "damage: $how"
	[ "${OFFLINE:-}" != 1 ] || daemon_start
	run byre create base
	expect_error 1 "create from base" "template base" "$@"
	run byre templates --json
	expect 0
	problem=$(jq -r '.[] | select(.name == "base") | .problem' <<<"$OUT")
	for word; do
		[[ $problem == *"$word"* ]] ||
			fail "$how: no \"$word\" in the problem \"$problem\""
	done
	same "$(jq -r '.[] | select(.name == "python") | .problem' <<<"$OUT")" \
		null "problem of the other template"
	run byre templates
	expect 0
	[[ $OUT == *base*"$1"* ]] || fail "$how: byre templates: $OUT"
	rm -f "$image/$file"
	mv "$D/good" "$image/$file"
	run byre run base -- echo repaired
	expect 0
	expect_out repaired
	only_these "$running" "$other"
}

# Change the manifest with a jq program.
manifest()
{
	local how=$1

	shift
	damaged manifest.json "jq '$how' $D/good >manifest.json" "$@"
}

half='$(($(stat -c %s FILE) / 2))'
for file in memory state disk overlay zeromap workingset; do
	damaged $file "truncate -s ${half/FILE/$file} $file" "$file"
	damaged $file "rm $file" "$file"
done
damaged memory "truncate -s 0 memory" memory
damaged memory "truncate -s +4096 memory" memory
# 16 MiB: the kernel's code.
OFFLINE=1 damaged memory "flip memory $(((16 << 20) + 123))" memory
# A page that should be zero: the last one.
damaged memory "printf x | dd of=memory bs=1 conv=notrunc status=none \
	seek=$(((256 << 20) - 5))" memory
damaged state "flip state 1000" state
damaged disk "flip disk 1080" disk
damaged overlay "flip overlay 10" overlay
damaged zeromap "flip zeromap 2000" zeromap
damaged workingset "flip workingset 40" workingset
# Only needed while the memory is not known to be good.
OFFLINE=1 damaged memory.digests "flip memory.digests 10" memory
OFFLINE=1 damaged memory.digests "rm memory.digests" memory.digests
damaged state "rm state; ln -s /etc/passwd state" state
damaged state "rm state; mkfifo state" state

damaged manifest.json "truncate -s ${half/FILE/manifest.json} manifest.json" \
	manifest
OFFLINE=1 damaged manifest.json "rm manifest.json" manifest.json
damaged manifest.json "head -c 3000 /dev/urandom >manifest.json" manifest
damaged manifest.json "truncate -s 100M manifest.json" manifest
manifest '. + {"colour": "green"}' manifest colour
manifest 'del(.vcpus)' manifest vcpus
manifest '.format = 99' manifest format
manifest '.memory_bytes = "a lot"' manifest memory_bytes
manifest '.memory_bytes += 4096' manifest
manifest '.vcpus = 100000' manifest vcpus
manifest '.name = "../../etc"' manifest name
# From another host; found by what stands in a good image.
OFFLINE=1 manifest '.version = "8.1.0"' version 8.1.0 7.
manifest '.accel = (if .accel == "kvm" then "tcg" else "kvm" end)' accel
manifest '.cpu = "Pentium"' CPU Pentium
manifest '.driver = "firecracker"' firecracker qemu
manifest '.machine = "pc"' machine pc

answers "$running" || fail "the one that ran all the time does not answer"
answers "$other" || fail "the one of the other template does not answer"
finish
