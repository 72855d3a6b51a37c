#!/usr/bin/env bash
# What a connection costs that is open and says nothing: KiB of resident memory, for plain HTTP, TLS and WebSocket.
#
#   scripts/idle.sh [CONNECTIONS] [plain|tls|websocket]...       default: 9800, all three
#
# Each case has a gateway of its own (release binary, or the one that WXGATE names) with default limits and one worker. The
# connections are made and used once (a request with an answer; a WebSocket's handshake), then held. A WebSocket takes two
# descriptors in the gateway, one to the service: under a limit of 20,000, 9,800 is about the most. What the kernel holds for a
# socket is not in these figures. Needs python3, curl, openssl, Linux.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

count=${1:-9800}
shift || true
cases=("$@")
[ ${#cases[@]} -gt 0 ] || cases=(plain tls websocket)
binary=${WXGATE:-target/release/wxgate}
[ -n "${WXGATE:-}" ] || cargo build --release --quiet
binary=$(realpath "$binary")
ulimit -n "$(ulimit -Hn)"

. scripts/servers.sh

cat >"$work/service.py" <<'END'
import asyncio, base64, hashlib

async def serve(reader, writer):
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return writer.close()
        key = [l.split(b": ", 1)[1] for l in head.split(b"\r\n") if l.lower().startswith(b"sec-websocket-key: ")]
        if key:
            accept = base64.b64encode(hashlib.sha1(key[0] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=4096)
    print("port", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
END

cat >"$work/hold.py" <<'END'
import socket, ssl, sys

port, count, kind = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
request = f"GET /open/x HTTP/1.1\r\nHost: a\r\n{upgrade if kind == 'websocket' else ''}\r\n".encode()
wanted = b"HTTP/1.1 101" if kind == "websocket" else b"HTTP/1.1 200"
held = []
for _ in range(count):
    client = socket.create_connection(("127.0.0.1", port))
    if kind == "tls":
        client = context.wrap_socket(client)
    client.sendall(request)
    answer = b""
    while b"\r\n\r\n" not in answer or (kind != "websocket" and not answer.endswith(b"ok")):
        more = client.recv(4096)
        if not more:
            break
        answer += more
    if not answer.startswith(wanted) or b"close" in answer.lower():
        sys.exit(f"connection {len(held) + 1}: {answer}")
    held.append(client)
print("held", len(held), flush=True)
sys.stdin.read()
END

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
    -keyout "$work/key.pem" -out "$work/cert.pem" 2>/dev/null
python3 "$work/service.py" >"$work/service.log" 2>&1 &
pids+=($!)
service=$(await "$work/service.log" 'port \([0-9]*\)')

echo "$("$binary" --version), one worker, $count connections"
for kind in "${cases[@]}"; do
    place=$work/$kind
    mkdir "$place"
    tls=
    [ "$kind" != tls ] || tls='tls = { cert = "../cert.pem", key = "../key.pem" }'
    cat >"$place/gateway.toml" <<END
[server]
listen = ["127.0.0.1:0"]
workers = 1
keep_alive = "1h"
$tls
[admin]
listen = "127.0.0.1:0"
[token]
issuer = "https://api.example.com"
keys = "keys"
[store]
members = "sqlite:wxgate.db"
sessions = "sqlite:wxgate.db"
[[app]]
appid = "wx0123456789abcdef"
secret = "a-secret-of-an-app"
[[upstream]]
name = "service"
servers = ["http://127.0.0.1:$service"]
[[route]]
path = "/open/*"
upstream = "service"
auth = "none"
END
    (cd "$place" && exec "$binary" serve >gateway.log 2>&1) &
    gateway=$!
    pids+=("$gateway")
    port=$(await "$place/gateway.log" '.*"public":"\[127.0.0.1:\([0-9]*\)\]".*')
    memory() { sed -n 's/^VmRSS:[ \t]*\([0-9]*\) kB/\1/p' "/proc/$gateway/status"; }
    files() { find "/proc/$gateway/fd" -mindepth 1 2>/dev/null | wc -l; }
    # What a first request makes is not a connection's cost.
    python3 "$work/hold.py" "$port" 20 "$kind" </dev/null >/dev/null
    sleep 2
    before=$(memory)
    mkfifo "$place/go"
    python3 "$work/hold.py" "$port" "$count" "$kind" <"$place/go" >"$place/hold.log" 2>&1 &
    holder=$!
    pids+=("$holder")
    exec 9>"$place/go"
    until grep -qs held "$place/hold.log"; do
        kill -0 "$holder" 2>/dev/null || { cat "$place/hold.log"; exit 1; }
        sleep 0.2
    done
    sleep 3
    during=$(memory) open=$(files)
    exec 9>&-
    wait "$holder"
    sleep 3
    awk -v kind="$kind" -v n="$count" -v a="$before" -v b="$during" -v c="$(memory)" -v open="$open" -v files="$(files)" 'BEGIN {
        printf "%-9s  %5.1f KiB each   (%d -> %d KiB with %d descriptors; afterwards %d KiB, %d descriptors)\n", kind, (b - a) / n, a, b, open, c, files
    }'
    kill "$gateway"
    wait "$gateway" || true
done
