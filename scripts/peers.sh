#!/usr/bin/env bash
# Clients and services that others have written, on both sides of the gateway: h2load, curl, grpcio and ws, over TLS and in
# clear text. Nothing may fail, and what comes back must be what was sent.
#
#   scripts/peers.sh PYTHON FOLDER         a Python with grpcio; a folder in whose node_modules ws is
#
# WXGATE names the binary (default: target/debug/wxgate). Needs h2load (Debian: nghttp2-client), curl, openssl, node.
# scripts/test.sh installs all of it and runs this. Prints a line for each check, and "# pass N" and "# fail N" as often as
# there are parts; exit code 1 when anything failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[ $# = 2 ] || { echo "usage: scripts/peers.sh PYTHON FOLDER-OF-WS" >&2; exit 64; }
python=$1
ws=$(cd "$2" && pwd)
binary=${WXGATE:-target/debug/wxgate}
requests=${PEERS_REQUESTS:-5000}
for tool in h2load curl openssl node; do
    command -v "$tool" >/dev/null || { echo "Missing: $tool (Debian: h2load is in nghttp2-client)"; exit 1; }
done

. scripts/servers.sh

passed=0
failed=0
ok() { # NAME COMMAND…: the command is the check; what it prints is shown when it fails
    local name=$1
    shift
    if "$@" >"$work/said" 2>&1; then
        passed=$((passed + 1))
        echo "ok - $name"
    else
        failed=$((failed + 1))
        echo "not ok - $name"
        sed 's/^/    /' "$work/said"
    fi
}

# --- both services, and a gateway for each way ---------------------------------------------------------------------

"$python" tests/peers/grpc_server.py >"$work/grpc.log" 2>&1 &
pids+=($!)
node tests/peers/service.mjs "$ws" >"$work/service.log" 2>&1 &
pids+=($!)
grpc=$(await "$work/grpc.log" 'gRPC on \([0-9]*\)')
service=$(await "$work/service.log" 'service on \([0-9]*\)')
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout "$work/key.pem" -out "$work/cert.pem" 2>/dev/null

gateway() { # NAME TLS-LINE: starts one; its port is in $port
    mkdir "$work/$1"
    cat >"$work/$1/gateway.toml" <<TOML
[server]
listen = ["127.0.0.1:0"]
$2
[admin]
listen = "127.0.0.1:0"
[token]
issuer = "https://localhost"
keys = "keys"
[store]
members = "sqlite:wxgate.db"
sessions = "sqlite:wxgate.db"
[[app]]
appid = "wx0123456789abcdef"
secret = "not-asked-for-here"
[[upstream]]
name = "service"
servers = ["http://127.0.0.1:$service"]
[[upstream]]
name = "grpc"
servers = ["http://127.0.0.1:$grpc"]
protocol = "h2"
[[route]]
path = "/service/*"
upstream = "service"
auth = "none"
strip_prefix = "/service"
[[route]]
path = "/peers.Peers/*"
upstream = "grpc"
auth = "none"
TOML
    "$binary" serve --config "$work/$1/gateway.toml" >"$work/$1.log" 2>&1 &
    pids+=($!)
    port=$(await "$work/$1.log" '.*"wxgate is ready".*"public":"\[127\.0\.0\.1:\([0-9]*\)\]".*')
}
gateway plain ""
plain=$port
gateway tls "tls = { cert = \"$work/cert.pem\", key = \"$work/key.pem\" }"
tls=$port

# --- h2load --------------------------------------------------------------------------------------------------------

load() { # as h2load; every request has to succeed, with a status of 2xx
    h2load "$@" >"$work/load" 2>&1 || { cat "$work/load"; return 1; }
    grep -E '^(requests|status codes|finished|Application protocol):?' "$work/load"
    grep -Eq '^requests: ([0-9]+) total, \1 started, \1 done, \1 succeeded, 0 failed, 0 errored, 0 timeout$' "$work/load" &&
        grep -Eq "^status codes: [1-9][0-9]* 2xx, 0 3xx, 0 4xx, 0 5xx$" "$work/load"
}
head -c 100000 /dev/urandom >"$work/body"
ok "h2load, TLS: $requests requests on 16 connections, 32 at once on each" \
    load -n "$requests" -c 16 -m 32 "https://127.0.0.1:$tls/service/x"
ok "h2load, prior knowledge: $requests requests" load -n "$requests" -c 16 -m 32 "http://127.0.0.1:$plain/service/x"
ok "h2load, TLS, HTTP/1.1: $requests requests" load --h1 -n "$requests" -c 16 "https://127.0.0.1:$tls/service/x"
ok "h2load, TLS: uploads of 100 kB" load -n 500 -c 4 -m 16 -d "$work/body" "https://127.0.0.1:$tls/service/x"
ok "h2load, prior knowledge: answers of 1 MB into small windows" \
    load -n 100 -c 4 -m 8 -w 16 -W 18 "http://127.0.0.1:$plain/service/bytes/1000000"

# --- curl ----------------------------------------------------------------------------------------------------------

asked() { # VERSION curl-arguments…: the answer is 200, by this version of HTTP
    local version=$1 got
    shift
    got=$(curl -sS --max-time 60 --cacert "$work/cert.pem" -o "$work/answer" -w '%{http_version} %{http_code}' "$@") || return
    [ "$got" = "$version 200" ] || { echo "$got"; cat "$work/answer"; return 1; }
}
ok "curl --http2 agrees on HTTP/2 by ALPN" asked 2 --http2 "https://localhost:$tls/service/x"
ok "curl --http1.1 over TLS" asked 1.1 --http1.1 "https://localhost:$tls/service/x"
ok "curl --http2-prior-knowledge" asked 2 --http2-prior-knowledge "http://localhost:$plain/service/x"
# RFC 9113 has no upgrade from HTTP/1.1 any more: it is answered as if nobody had asked.
ok "curl --http2 in clear text stays with HTTP/1.1" asked 1.1 --http2 "http://localhost:$plain/service/x"
head -c 5000000 /dev/urandom >"$work/upload"
sum=$(openssl dgst -sha256 -r "$work/upload" | cut -d ' ' -f 1)
uploaded() { # VERSION curl-arguments…: five megabytes arrive as they are
    asked "$@" --data-binary "@$work/upload" -H 'Expect:' && grep -q "^POST /up 5000000 $sum$" "$work/answer"
}
ok "curl --http2 uploads 5 MB" uploaded 2 --http2 "https://localhost:$tls/service/up"
ok "curl --http1.1 uploads 5 MB in chunks" uploaded 1.1 --http1.1 -H 'Transfer-Encoding: chunked' "http://localhost:$plain/service/up"
ok "curl --http1.1 waits for 100 Continue" \
    asked 1.1 --http1.1 --expect100-timeout 60 --data-binary "@$work/upload" -H 'Expect: 100-continue' "https://localhost:$tls/service/up"
echo "# pass $passed"
echo "# fail $failed"

# --- gRPC and WebSockets -------------------------------------------------------------------------------------------

all=0
[ "$failed" = 0 ] || all=1
"$python" tests/peers/grpc_client.py "localhost:$plain" || all=1
"$python" tests/peers/grpc_client.py "localhost:$tls" "$work/cert.pem" || all=1
node tests/peers/sockets.mjs "$ws" "ws://localhost:$plain/service/socket" "$work/cert.pem" || all=1
node tests/peers/sockets.mjs "$ws" "wss://localhost:$tls/service/socket" "$work/cert.pem" || all=1

# The gateway must have survived it, and without a panic.
for name in plain tls; do
    if grep -E '"level":"ERROR"|panicked' "$work/$name.log"; then
        echo "not ok - the $name gateway has errors in its log"
        all=1
    fi
done
exit $all
