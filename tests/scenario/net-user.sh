#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# With --net user a guest reaches a server on the host's loopback as 10.0.2.2;
# without, it reaches nothing.
. "$(dirname "$0")/lib.sh"
need python3
begin base

python3 - "$D/port" <<'END' &
import socket, sys
s = socket.socket()
s.bind(("127.0.0.1", 0))
s.listen(8)
open(sys.argv[1], "w").write(str(s.getsockname()[1]))
while True:
    c, _ = s.accept()
    c.recv(4096)
    c.sendall(b"HTTP/1.0 200 OK\r\n\r\nfrom the host\n")
    c.close()
END
OURS+=($!)
disown
until_true 10 "the server listens" test -s "$D/port"
port=$(cat "$D/port")

run byre create base --name net --net user
if [ "$RC" != 0 ]; then
	say "not from this template ($ERR); baking one with a card"
	run byre bake netted --net user --memory 128M \
		--rootfs "$CACHE/busybox.rootfs"
	expect 0
	run byre create netted --name net --net user
fi
expect 0
same "$(get net .net)" user "net of one with a network"
byre create base --name alone >/dev/null || fail create
same "$(get alone .net)" none "net of one without"
run byre exec --timeout 20s net -- wget -q -O - "http://10.0.2.2:$port/"
expect 0
expect_out "from the host"
run byre exec --timeout 5s alone -- wget -q -T 3 -O - "http://10.0.2.2:$port/"
[ "$RC" != 0 ] || fail "one without a network reached the host"
run byre create base --net host
[ "$RC" = 2 ] || [ "$RC" = 1 ] || fail "--net host: $RC"
# It outlives the daemon.
daemon_stop KILL
daemon_start
run byre exec --timeout 20s net -- wget -q -O - "http://10.0.2.2:$port/"
expect_out "from the host"
finish
