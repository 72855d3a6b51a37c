#!/usr/bin/env bash
# Load for some minutes, at a part of what the gateway can do: nothing may fail, and memory and descriptors may not grow.
#
#   scripts/soak.sh [MINUTES] [PERCENT] [plain|tls]        default: 5 minutes at 70 % of the peak, plain
#
# It builds the release binary, runs it with one worker on core 0 beside the WeChat simulator and a small service, finds the
# peak (h2load, closed loop), and then offers PERCENT of it at a constant rate (with tls, half of that by HTTP/2) while people
# log in, refresh, look at themselves and log out, and WebSockets and event streams stay, leave and come again
# (scripts/streams.py). Memory, descriptors and threads are read every five seconds; what came before a third of the time is
# warm-up. What the gateway remembers of people is no leak: tokens that it has verified (1.4 KiB each, for as long as they live or
# until 64 MiB of them are there; two of each person here), and that each has logged in and out (0.7 KiB, of which the most
# is the database's cache of 8 MiB a connection). So memory may grow by 4 KiB for each person after the warm-up, and by 4 MiB, in steps
# of which the allocator takes it. SOAK_PEOPLE=0 leaves the people out: then by the 4 MiB alone. WXGATE names another binary. Needs h2load (nghttp2-client), node, python3, curl, openssl with tls, Linux. Not a part of
# scripts/test.sh: it takes minutes, and a busy machine.
#
# The last line is "soak: PASSED" or "soak: FAILED" and why; exit code 0 or 1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

minutes=${1:-5}
percent=${2:-70}
secure=${3:-plain}
clients=64
sockets=20 # of one member, who may have 32, counting those that are just closing
streams=40
case "$secure" in plain) scheme=http tls= ;; tls) scheme=https tls='tls = { cert = "cert.pem", key = "key.pem" }' ;; *)
    echo "plain or tls, not $secure"
    exit 1
    ;;
esac
grow_kib=4096 # of resident memory, after the warm-up
grow_kib_each=4 # for each person after it
grow_files=16

for tool in h2load node curl python3 openssl; do
    command -v "$tool" >/dev/null || { echo "Missing: $tool"; exit 1; }
done
binary=${WXGATE:-target/release/wxgate}
[ -n "${WXGATE:-}" ] || cargo build --release --quiet

. scripts/servers.sh

fail() {
    echo "soak: FAILED: $*"
    exit 1
}

"$binary" simulate --listen 127.0.0.1:0 >"$work/simulator.log" 2>&1 &
pids+=($!)
simulator=$(await "$work/simulator.log" 'WeChat simulator on \(http[^ ]*\)') || fail "the simulator did not start"

node -e '
const body = JSON.stringify({ hello: "x".repeat(180) })
const server = require("http").createServer((request, answer) => {
  if (request.url.endsWith("/events")) {
    answer.writeHead(200, { "content-type": "text/event-stream" })
    const timer = setInterval(() => answer.write("data: tick\n\n"), 500)
    answer.on("close", () => clearInterval(timer))
    return
  }
  answer.writeHead(200, { "content-type": "application/json", "content-length": body.length })
  answer.end(body)
})
// Short text frames of WebSockets go back as they came.
server.on("upgrade", (request, socket) => {
  const key = request.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
  const accept = require("crypto").createHash("sha1").update(key).digest("base64")
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`)
  let held = Buffer.alloc(0)
  socket.on("error", () => socket.destroy())
  socket.on("data", (data) => {
    held = Buffer.concat([held, data])
    while (held.length >= 6 && held.length >= 6 + (held[1] & 127)) {
      const length = held[1] & 127
      const text = Buffer.from(held.subarray(6, 6 + length)).map((byte, i) => byte ^ held[2 + (i % 4)])
      socket.write(Buffer.concat([Buffer.from([held[0], length]), text]))
      if ((held[0] & 15) === 8) return socket.end()
      held = held.subarray(6 + length)
    }
  })
})
server.keepAliveTimeout = 120000
server.listen(0, "127.0.0.1", () => console.log("service on " + server.address().port))
' >"$work/service.log" 2>&1 &
pids+=($!)
service=$(await "$work/service.log" 'service on \([0-9]*\)') || fail "the service did not start"

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
    -keyout "$work/key.pem" -out "$work/cert.pem" 2>/dev/null || fail "openssl made no certificate"

cat >"$work/gateway.toml" <<END
[server]
listen = ["127.0.0.1:0"]
workers = 1
$tls
[admin]
listen = "127.0.0.1:0"
[token]
issuer = "https://api.example.com"
keys = "keys"
[store]
members = "sqlite:wxgate.db"
sessions = "sqlite:wxgate.db"
[wechat]
api_base = "$simulator"
open_base = "$simulator"
[[app]]
appid = "wx0123456789abcdef"
secret = "a-secret-of-an-app"
[[upstream]]
name = "service"
servers = ["http://127.0.0.1:$service"]
[[route]]
path = "/api/*"
upstream = "service"
END
gateway_binary=$(realpath "$binary")
pin=()
[ "$(nproc)" -lt 2 ] || pin=(taskset -c 0)
(cd "$work" && exec "${pin[@]+"${pin[@]}"}" "$gateway_binary" serve >"$work/gateway.log" 2>&1) &
gateway=$!
pids+=("$gateway")
url=$scheme://$(await "$work/gateway.log" '.*"public":"\[\([0-9.:]*\)\]".*') || fail "the gateway did not start"
admin=http://$(await "$work/gateway.log" '.*"admin":"\([0-9.:]*\)".*')

field() { sed "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/"; }

# One person: login, two requests, refresh, themselves, logout. Any answer that is not as it should be is noted.
person() {
    local user=$1 code tokens access refresh
    code=$(curl -ksf "$simulator/_sim/code?user=$user" | field code) || return 1
    tokens=$(curl -ksf "$url/auth/login" -H 'Content-Type: application/json' -d "{\"code\":\"$code\"}") || return 1
    access=$(field access_token <<<"$tokens")
    refresh=$(field refresh_token <<<"$tokens")
    curl -ksf -o /dev/null "$url/api/x" -H "Authorization: Bearer $access" || return 1
    tokens=$(curl -ksf "$url/auth/refresh" -H 'Content-Type: application/json' -d "{\"refresh_token\":\"$refresh\"}") || return 1
    access=$(field access_token <<<"$tokens")
    curl -ksf -o /dev/null "$url/auth/me" -H "Authorization: Bearer $access" || return 1
    curl -ksf -o /dev/null -X POST "$url/auth/logout" -H "Authorization: Bearer $access" || return 1
}

token=$(curl -ksf "$url/auth/login" -H 'Content-Type: application/json' \
    -d "{\"code\":\"$(curl -ksf "$simulator/_sim/code?user=alice" | field code)\"}" | field access_token)
[ -n "$token" ] || fail "nobody can log in"

load() { h2load -c "$clients" -t 1 -H "authorization: Bearer $token" "$@" "$url/api/x"; }

load --h1 -D 5 --warm-up-time 2 >"$work/peak.log" 2>&1 || fail "$(cat "$work/peak.log")"
peak=$(sed -n 's/^finished in .*, \([0-9.]*\) req\/s.*/\1/p' "$work/peak.log")
rate=$(awk -v peak="$peak" -v percent="$percent" -v clients="$clients" 'BEGIN { printf "%d", peak * percent / 100 / clients }')
[ "$rate" -gt 0 ] || fail "no peak found"
seconds=$((minutes * 60))
echo "peak $peak requests/s; offering $((rate * clients))/s for $minutes min"

# Each in the background; their process ids are in `loads`, their outputs in load-N.log.
loads=()
offer() {
    load -D "$seconds" "$@" >"$work/load-${#loads[@]}.log" 2>&1 &
    loads+=($!)
    pids+=($!)
}
if [ "$secure" = tls ]; then
    half=$(awk -v rate="$rate" 'BEGIN { printf "%d", (rate + 1) / 2 }')
    offer --h1 --rps "$half"
    offer -m 4 --rps "$half"
else
    offer --h1 --rps "$rate"
fi
address=${url#*://}
python3 scripts/streams.py "${address%:*}" "${address##*:}" "$token" "$((seconds - 5))" "$sockets" "$streams" "$secure" \
    >"$work/streams.log" 2>&1 &
staying=$!
pids+=("$staying")

memory() { sed -n 's/^VmRSS:[ \t]*\([0-9]*\) kB/\1/p' "/proc/$gateway/status"; }
files() { find "/proc/$gateway/fd" -mindepth 1 2>/dev/null | wc -l; }
threads() { find "/proc/$gateway/task" -mindepth 1 -maxdepth 1 2>/dev/null | wc -l; }

start=$(date +%s)
people=0 failed=0 first_memory= first_files= first_threads= first_people=0 most=0 next=$start
while [ $(($(date +%s) - start)) -lt "$seconds" ] && kill -0 "${loads[0]}" 2>/dev/null; do
    if [ "${SOAK_PEOPLE:-}" = 0 ]; then
        sleep 0.2
    else
        people=$((people + 1))
        person "user$((people % 500))" || failed=$((failed + 1))
    fi
    now=$(date +%s)
    if [ "$now" -ge "$next" ]; then
        next=$((now + 5))
        kib=$(memory)
        if [ $((now - start)) -ge $((seconds / 3)) ] && [ -z "$first_memory" ]; then
            first_memory=$kib first_files=$(files) first_threads=$(threads) first_people=$people
        fi
        [ "$kib" -le "$most" ] || most=$kib
        echo "$((now - start)) s: $kib KiB, $(files) descriptors, $(threads) threads, $people people"
    fi
done
for n in "${!loads[@]}"; do
    wait "${loads[$n]}" || fail "$(cat "$work/load-$n.log")"
done
stayed=0
wait "$staying" || stayed=1
# While those are counted that have just left.
sleep 3

last_memory=$(memory) last_files=$(files) last_threads=$(threads)
good=0 done=0
for n in "${!loads[@]}"; do
    log=$work/load-$n.log
    sed -n '/^finished/p;/^requests:/p;/^status codes:/p;/^time for request:/p' "$log"
    good=$((good + $(sed -n 's/^status codes: \([0-9]*\) 2xx.*/\1/p' "$log")))
    done=$((done + $(sed -n 's/^requests: .* \([0-9]*\) done.*/\1/p' "$log")))
done
cat "$work/streams.log"
bad=$(curl -ksf "$admin/metrics" | awk '/^wxgate_requests_total\{status="5/ { n += $2 } END { print n + 0 }')
panics=$(curl -ksf "$admin/metrics" | sed -n 's/^wxgate_panics_total //p')
echo "memory $first_memory -> $last_memory KiB (at most $most), descriptors $first_files -> $last_files, threads $first_threads -> $last_threads, $people people"

# What was refused, and as what.
sed -n 's/.*"status":[45][0-9]*.*"code":"\([a-z_]*\)".*/\1/p' "$work/gateway.log" | sort | uniq -c

[ "$failed" -eq 0 ] || fail "$failed of $people people were not served"
[ "$good" = "$done" ] || fail "$good of $done requests were good"
[ "$bad" -eq 0 ] || fail "$bad answers of 5xx"
[ "$stayed" = 0 ] || fail "sockets or event streams had faults"
[ "$panics" = 0 ] || fail "$panics panics"
allowed=$((grow_kib + grow_kib_each * (people - first_people)))
[ $((last_memory - first_memory)) -le "$allowed" ] ||
    fail "memory grew by $((last_memory - first_memory)) KiB, where $allowed are for $((people - first_people)) people"
[ $((last_files - first_files)) -le "$grow_files" ] || fail "descriptors grew by $((last_files - first_files))"
[ $((last_threads - first_threads)) -le 4 ] || fail "threads grew by $((last_threads - first_threads))"
echo "soak: PASSED"
