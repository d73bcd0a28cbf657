#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A directory store, filled by us, served by a real web server: ranges over
# HTTP/1.1 and HTTP/2 with TLS, certificates that do not fit, a server that does
# not know Range, one that restarts.
. "$(dirname "$0")/lib.sh"
need nginx openssl python3

STORE=$BYRE_BUILD/image/test_store
[ -x "$STORE" ] || skip "no $STORE: make units"
D=$(mktemp -d /tmp/byre-sc.XXXXXX)
trap 'cleanup; exit' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
unset http_proxy https_proxy all_proxy HTTPS_PROXY ALL_PROXY

free_port()
{
	python3 -c 'import socket
s = socket.socket()
s.bind(("127.0.0.1", 0))
print(s.getsockname()[1])'
}

store()
{
	timeout 60 "$STORE" --ms 20000 --url "$@"
}

# A CA, and a certificate of it for localhost only.
certificates()
{
	openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj '/CN=test CA' \
		-keyout "$D/ca.key" -out "$D/ca.pem" &&
		openssl req -newkey rsa:2048 -nodes -subj '/CN=localhost' \
			-keyout "$D/key.pem" -out "$D/csr.pem" &&
		openssl x509 -req -in "$D/csr.pem" -CA "$D/ca.pem" -days 2 \
			-CAkey "$D/ca.key" -CAcreateserial -out "$D/cert.pem" \
			-extfile <(echo 'subjectAltName=DNS:localhost')
}

configure()
{
	cat >"$D/nginx.conf" <<-END
	$([ "$(id -u)" != 0 ] || echo 'user root;')
	daemon off;
	worker_processes 1;
	pid $D/nginx.pid;
	error_log $D/error.log;
	events {}
	http {
		log_format short '\$status \$server_protocol \$connection';
		access_log $D/access.log short;
		client_body_temp_path $D/tmp;
		proxy_temp_path $D/tmp;
		fastcgi_temp_path $D/tmp;
		uwsgi_temp_path $D/tmp;
		scgi_temp_path $D/tmp;
		gzip on;
		gzip_types *;
		server {
			listen 127.0.0.1:$plain;
			root $D/store;
			location /whole/ { alias $D/store/; max_ranges 0; }
			location /closed/ { deny all; }
			location /moved/ { return 302 /images/; }
		}
		server {
			listen 127.0.0.1:$tls ssl http2;
			ssl_certificate $D/cert.pem;
			ssl_certificate_key $D/key.pem;
			root $D/store;
		}
	}
	END
}

serve()
{
	nginx -p "$D" -c "$D/nginx.conf" >"$D/nginx.log" 2>&1 &
	server=$!
	OURS+=("$server")
}

listens()
{
	(exec 3<>"/dev/tcp/127.0.0.1/$plain") 2>/dev/null
}

refused()
{
	local word

	expect 1
	for word; do
		[[ $ERR == *"$word"* ]] || fail "\"$RAN\": no \"$word\" in \"$ERR\""
	done
}

mkdir "$D/store" "$D/tmp"
head -c 30000000 /dev/urandom >"$D/large"
printf '{"some": "json"}\n' >"$D/small"
run store "$D/store" upload images/x/pack "$D/large" "$D/note"
expect 0
run store "$D/store" put templates/x "$D/small"
expect 0

certificates >"$D/openssl.log" 2>&1 || fail "openssl: see its log"
plain=$(free_port) tls=$(free_port)
configure
serve
until_true 10 "nginx listens: $(cat "$D/nginx.log")" listens
http=http://127.0.0.1:$plain https=https://localhost:$tls

for url in "$http" "$http/" "$https"; do
	run store "$url" --ca "$D/ca.pem" head images/x/pack
	expect_out 30000000
	store "$url" --ca "$D/ca.pem" get images/x/pack 1234567 8388608 |
		cmp - <(tail -c +1234568 "$D/large" | head -c 8388608) ||
		fail "$url: not the range"
	store "$url" --ca "$D/ca.pem" all templates/x 4096 | cmp - "$D/small" ||
		fail "$url: not the object"
	run store "$url" --ca "$D/ca.pem" get images/x/none 0 1
	expect 2
	run store "$url" --ca "$D/ca.pem" get images/x/pack 29999999 2
	refused "ends at 30000000"
	run store "$url" --ca "$D/ca.pem" get images/x/pack 30000000 2
	refused "no bytes"
done
grep -q '^206 HTTP/2.0' "$D/access.log" || fail "no HTTP/2: $(cat "$D/access.log")"

# A hundred ranges, one connection.
for url in "$http" "$https"; do
	: >"$D/access.log"
	run store "$url" --ca "$D/ca.pem" --counts bench images/x/pack 65536 100
	expect 0
	say "$url: $OUT"
	same "$(cut -d ' ' -f 3 "$D/access.log" | sort -u | wc -l)" 1 \
		"connections for a hundred ranges"
done

# Nobody vouches for it; it is vouched for, but as another host.
run store "$https" head images/x/pack
refused "$https" certificate
run store "https://127.0.0.1:$tls" --ca "$D/ca.pem" head images/x/pack
refused "127.0.0.1:$tls" "certificate"
run store "https://127.0.0.1:$plain" --ca "$D/ca.pem" head images/x/pack
refused "127.0.0.1:$plain"
at_most "$SECONDS" 60 "failures that cannot pass took their time"

run store "$http/whole" get images/x/pack 5 10
refused "200 for a range"
run store "$http/closed" get images/x/pack 5 10
refused 403
run store "$http/moved" get images/x/pack 5 10
refused redirect
run store "$http" put templates/x "$D/small"
refused "only be read"

# It restarts while we ask.
kill -TERM "$server"
wait "$server" 2>/dev/null
store "$http" --counts get images/x/pack 100 1000 >"$D/got" 2>"$D/counts" &
asking=$!
sleep 1
serve
wait "$asking" || fail "did not live through a restart: $(cat "$D/counts")"
cmp "$D/got" <(tail -c +101 "$D/large" | head -c 1000) || fail "not the range"
grep -q 'retries=[1-9]' "$D/counts" || fail "no retries: $(cat "$D/counts")"

kill -TERM "$server"
wait "$server" 2>/dev/null
[ -z "$(own_processes)" ] || fail "processes left"
say "ok (${SECONDS} s)"
exit 0
