#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What a guest would find if it broke into its VMM: a user of its own without
# privileges, a system call filter, and only its own files.
. "$(dirname "$0")/lib.sh"
begin base

a=$(byre create base) || fail create
b=$(byre create base) || fail create
uids=
for id in $a $b; do
	pid=$(get "$id" .pid)
	status=/proc/$pid/status
	same "$(awk '/^NoNewPrivs/ { print $2 }' $status)" 1 "NoNewPrivs of $id"
	same "$(awk '/^Seccomp:/ { print $2 }' $status)" 2 "Seccomp of $id"
	# Every thread of it.
	for s in /proc/"$pid"/task/*/status; do
		same "$(awk '/^Seccomp:/ { print $2 }' "$s")" 2 "Seccomp of $s"
	done
	if [ "$(id -u)" = 0 ]; then
		for line in Uid Gid; do
			for id_number in $(awk "/^$line/ { \$1 = \"\"; print }" $status); do
				[ "$id_number" != 0 ] || fail "$line 0 in $status"
			done
		done
		same "$(awk '/^Groups/ { $1 = ""; gsub(" ", ""); print }' $status)" \
			"" "groups of $id"
		uids+="$(awk '/^Uid/ { print $2 }' $status) "
	fi
	for set in CapInh CapPrm CapEff CapAmb; do
		same "$(awk "/^$set/ { print \$2 }" $status)" 0000000000000000 \
			"$set of $id"
	done
	# Its fds: its own files, those of the template read-only, no others.
	for fd in /proc/"$pid"/fd/*; do
		to=$(readlink "$fd") || continue
		flags=$(sed -n 's/^flags:\t*//p' "/proc/$pid/fdinfo/${fd##*/}" 2>/dev/null)
		case $to in
		socket:* | anon_inode:* | pipe:* | /dev/null) ;;
		*/memfd:*) ;;
		"$BYRE_ROOT/sandboxes/$id/"*) ;;
		"$BYRE_ROOT/images/"*)
			[ $((0$flags & 3)) = 0 ] ||
				fail "$id has $to open for writing" ;;
		*) fail "$id has a foreign file: $to" ;;
		esac
	done
	# Its mappings of guest memory are private: it cannot write the image.
	grep -q "^[^ ]* [^ ]*s[^ ]* .*$BYRE_ROOT/images" "/proc/$pid/maps" &&
		fail "$id maps an image shared"
	# Nothing of the daemon's environment.
	grep -zq '^BYRE_R\|^HOME=\|^PATH=\|^SSH' "/proc/$pid/environ" &&
		fail "environment of $id: $(tr '\0' ' ' <"/proc/$pid/environ")"
	[ "$(readlink "/proc/$pid/cwd")" = / ] || say "cwd: $(readlink "/proc/$pid/cwd")"
done
if [ "$(id -u)" = 0 ]; then
	same "$(tr ' ' '\n' <<<"$uids" | grep . | sort -u | wc -l)" 2 \
		"different users of two VMMs"
	# Nobody else may talk to the daemon, or read a guest's memory.
	for path in "$BYRE_RUN/api.sock" "$BYRE_ROOT" "$BYRE_RUN" "$BYRE_ROOT/sandboxes/$a/disk"; do
		mode=$(stat -c %a "$path")
		[ $((0$mode & 077)) = 0 ] || fail "mode of $path: $mode"
	done
fi
say "users ${uids:-own}, seccomp, no privileges, only its own files"
finish
