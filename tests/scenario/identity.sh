#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Twenty guests out of one memory: what must be nobody else's is nobody else's,
# and their clocks are right.
. "$(dirname "$0")/lib.sh"
begin base
N=20

for ((i = 0; i < N; i++)); do
	byre create base >>"$D/ids" || fail "create number $i"
done
while read -r id; do
	byre exec "$id" -- sh -c '
		date +%s.%N 2>/dev/null
		cat /etc/machine-id
		hostname
		head -c 16 /dev/urandom | od -An -tx1 | tr -d " "
		cat /proc/sys/kernel/random/uuid
		cat /proc/sys/kernel/random/boot_id
		awk "BEGIN { srand(); print rand() }" >/dev/null
		mktemp -u XXXXXXXXXX' </dev/null >"$D/id.$id" || fail "exec in $id"
	host=$(date +%s)
	guest=$(sed -n 1p "$D/id.$id")
	guest=${guest%.*}
	diff=$((host - guest))
	[ "${diff#-}" -le 2 ] || fail "clock of $id is $diff s off"
	same "$(sed -n 3p "$D/id.$id")" "$id" hostname
	grep -qE '^[0-9a-f]{32}$' <(sed -n 2p "$D/id.$id") ||
		fail "machine-id: $(sed -n 2p "$D/id.$id")"
done <"$D/ids"
for what in "2 machine-id" "3 hostname" "4 random" "5 uuid" "7 mktemp"; do
	same "$(for f in "$D"/id.sb*; do sed -n "${what%% *}p" "$f"; done |
		sort -u | wc -l)" $N "different values of ${what#* }"
done
say "boot ids: $(for f in "$D"/id.sb*; do sed -n 6p "$f"; done | sort -u |
	wc -l) different of $N"

# The address space of new programs, as far as it is random.
while read -r id; do
	byre exec "$id" -- sh -c 'sed -n "s/-.*\[stack\]//p" /proc/self/maps'
done <"$D/ids" | sort | uniq -d >"$D/stacks"
at_most "$(wc -l <"$D/stacks")" 1 "stack addresses seen twice"

# A name becomes the host name; variables reach each command.
byre create base --name chosen --env WHO=me >/dev/null || fail create
same "$(byre exec chosen -- sh -c 'hostname; echo $WHO' | paste -sd' ')" \
	"chosen me" "hostname and environment"
# Paused for a while, the clock is right when it goes on.
byre pause chosen >/dev/null
sleep 4
byre resume chosen >/dev/null
diff=$(($(date +%s) - $(byre exec chosen -- date +%s)))
[ "${diff#-}" -le 2 ] || fail "clock after 4 s of pause is $diff s off"
same "$(byre exec chosen -- sh -c 'echo $WHO')" me "environment after a pause"
# Kernel threads of the root disk would work in every sandbox's first seconds.
same "$(byre exec chosen -- sh -c 'grep -c "^/dev/vda / ext4 .*no_prefetch_block_bitmaps" /proc/mounts')" \
	1 "root disks mounted without reading ahead"
finish
