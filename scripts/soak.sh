#!/usr/bin/env bash
# Load for some minutes, at a part of what the gateway can do: nothing may fail, and memory and descriptors may not grow.
#
#   scripts/soak.sh [MINUTES] [PERCENT]        default: 5 minutes at 70 % of the peak
#
# It builds the release binary, runs it with one worker on core 0 beside the WeChat simulator and a small service, finds the
# peak (h2load, closed loop), and then offers PERCENT of it at a constant rate while people log in, refresh, look at
# themselves and log out. Memory and descriptors are read every five seconds; what came before a third of the time is
# warm-up. Needs h2load (nghttp2-client), node, curl, Linux. Not a part of scripts/test.sh: it takes minutes, and a busy
# machine.
#
# The last line is "soak: PASSED" or "soak: FAILED" and why; exit code 0 or 1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

minutes=${1:-5}
percent=${2:-70}
clients=64
grow_kib=2048 # of resident memory, after the warm-up
grow_files=16

for tool in h2load node curl; do
    command -v "$tool" >/dev/null || { echo "Missing: $tool"; exit 1; }
done
binary=${WXGATE:-target/release/wxgate}
[ -n "${WXGATE:-}" ] || cargo build --release --quiet

work=$(mktemp -d)
pids=() # all that was started here: ended with the script
cleanup() {
    for pid in ${pids[@]+"${pids[@]}"}; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
    echo "soak: FAILED: $*"
    exit 1
}

# Waits for a line in a file; prints what the pattern's group matched.
await() {
    local file=$1 pattern=$2 found=
    for _ in $(seq 200); do
        found=$(sed -n "s|$pattern|\\1|p" "$file" 2>/dev/null | head -n 1)
        [ -z "$found" ] || { echo "$found"; return; }
        sleep 0.1
    done
    cat "$file" >&2
    return 1
}

"$binary" simulate --listen 127.0.0.1:0 >"$work/simulator.log" 2>&1 &
pids+=($!)
simulator=$(await "$work/simulator.log" 'WeChat simulator on \(http[^ ]*\)') || fail "the simulator did not start"

node -e '
const body = JSON.stringify({ hello: "x".repeat(180) })
const server = require("http").createServer((_, answer) => {
  answer.writeHead(200, { "content-type": "application/json", "content-length": body.length })
  answer.end(body)
})
server.keepAliveTimeout = 120000
server.listen(0, "127.0.0.1", () => console.log("service on " + server.address().port))
' >"$work/service.log" 2>&1 &
pids+=($!)
service=$(await "$work/service.log" 'service on \([0-9]*\)') || fail "the service did not start"

cat >"$work/gateway.toml" <<END
[server]
listen = ["127.0.0.1:0"]
workers = 1
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
url=http://$(await "$work/gateway.log" '.*"public":"\[\([0-9.:]*\)\]".*') || fail "the gateway did not start"
admin=http://$(await "$work/gateway.log" '.*"admin":"\([0-9.:]*\)".*')

field() { sed "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/"; }

# One person: login, two requests, refresh, themselves, logout. Any answer that is not as it should be is noted.
person() {
    local user=$1 code tokens access refresh
    code=$(curl -sf "$simulator/_sim/code?user=$user" | field code) || return 1
    tokens=$(curl -sf "$url/auth/login" -H 'Content-Type: application/json' -d "{\"code\":\"$code\"}") || return 1
    access=$(field access_token <<<"$tokens")
    refresh=$(field refresh_token <<<"$tokens")
    curl -sf -o /dev/null "$url/api/x" -H "Authorization: Bearer $access" || return 1
    tokens=$(curl -sf "$url/auth/refresh" -H 'Content-Type: application/json' -d "{\"refresh_token\":\"$refresh\"}") || return 1
    access=$(field access_token <<<"$tokens")
    curl -sf -o /dev/null "$url/auth/me" -H "Authorization: Bearer $access" || return 1
    curl -sf -o /dev/null -X POST "$url/auth/logout" -H "Authorization: Bearer $access" || return 1
}

token=$(curl -sf "$url/auth/login" -H 'Content-Type: application/json' \
    -d "{\"code\":\"$(curl -sf "$simulator/_sim/code?user=alice" | field code)\"}" | field access_token)
[ -n "$token" ] || fail "nobody can log in"

load() { h2load --h1 -c "$clients" -t 1 -H "authorization: Bearer $token" "$@" "$url/api/x"; }

load -D 5 --warm-up-time 2 >"$work/peak.log" 2>&1 || fail "$(cat "$work/peak.log")"
peak=$(sed -n 's/^finished in .*, \([0-9.]*\) req\/s.*/\1/p' "$work/peak.log")
rate=$(awk -v peak="$peak" -v percent="$percent" -v clients="$clients" 'BEGIN { printf "%d", peak * percent / 100 / clients }')
[ "$rate" -gt 0 ] || fail "no peak found"
seconds=$((minutes * 60))
echo "peak $peak requests/s; offering $((rate * clients))/s for $minutes min"

load -D "$seconds" --rps "$rate" >"$work/load.log" 2>&1 &
loading=$!
pids+=("$loading")

memory() { sed -n 's/^VmRSS:[ \t]*\([0-9]*\) kB/\1/p' "/proc/$gateway/status"; }
files() { find "/proc/$gateway/fd" -mindepth 1 2>/dev/null | wc -l; }

start=$(date +%s)
people=0 failed=0 first_memory= first_files= most=0 next=$start
while kill -0 "$loading" 2>/dev/null; do
    people=$((people + 1))
    person "user$((people % 500))" || failed=$((failed + 1))
    now=$(date +%s)
    if [ "$now" -ge "$next" ]; then
        next=$((now + 5))
        kib=$(memory)
        if [ $((now - start)) -ge $((seconds / 3)) ] && [ -z "$first_memory" ]; then
            first_memory=$kib first_files=$(files)
        fi
        [ "$kib" -le "$most" ] || most=$kib
        echo "$((now - start)) s: $kib KiB, $(files) descriptors, $people people"
    fi
done
wait "$loading" || fail "$(cat "$work/load.log")"
sleep 2

last_memory=$(memory) last_files=$(files)
sed -n '/^finished/p;/^requests:/p;/^status codes:/p;/^time for request:/p' "$work/load.log"
good=$(sed -n 's/^status codes: \([0-9]*\) 2xx.*/\1/p' "$work/load.log")
done=$(sed -n 's/^requests: .* \([0-9]*\) done.*/\1/p' "$work/load.log")
bad=$(curl -sf "$admin/metrics" | awk '/^wxgate_requests_total\{status="5/ { n += $2 } END { print n + 0 }')
panics=$(curl -sf "$admin/metrics" | sed -n 's/^wxgate_panics_total //p')
echo "memory $first_memory -> $last_memory KiB (at most $most), descriptors $first_files -> $last_files, $people people"

[ "$failed" -eq 0 ] || fail "$failed of $people people were not served"
[ "$good" = "$done" ] || fail "$good of $done requests were good"
[ "$bad" -eq 0 ] || fail "$bad answers of 5xx"
[ "$panics" = 0 ] || fail "$panics panics"
[ $((last_memory - first_memory)) -le "$grow_kib" ] || fail "memory grew by $((last_memory - first_memory)) KiB"
[ $((last_files - first_files)) -le "$grow_files" ] || fail "descriptors grew by $((last_files - first_files))"
echo "soak: PASSED"
