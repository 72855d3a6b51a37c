#!/usr/bin/env bash
# Twice as much as the gateway can do: what is answered well has to stay as much, and in time.
#
#   scripts/overload.sh [SECONDS] [TIMES]        default: 15 seconds at 2 times the peak
#
# It builds the release binary and runs it with one worker on core 0 in front of a small service of its own kind (nginx),
# everything else on the other cores. First the peak (h2load, 64 requests at once), then TIMES that at a constant rate, whether
# or not answers come (an open loop: HTTP/2, 256 connections with 100 requests at once on each), then the peak again, which
# tells whether the machine was quiet. What counts is the rate of 200s (goodput) and their times; 503 is what the gateway
# refuses (shed_above). Goals: goodput at least 90 % of the peak, 99 % of the 200s within one second. Reading and refusing a
# request costs, too: if that is r of what forwarding one costs, no more than (1 - 2r) / (1 - r) of the peak can be left at twice the
# load. Needs h2load (nghttp2-client), nginx, curl, Linux, and a quiet machine of at least two, better four cores: run it three
# times, and take the middle one. Not a part of scripts/test.sh.
#
# The upstream has max_connections and a queue, as it should have in production: without, each request that waits holds a
# connection of its own to the service.
#
# WXGATE names another binary, OVERLOAD_SHED another shed_above ("0s" shows the same without shedding). The last line is
# "overload: PASSED" or "overload: FAILED" and why; exit code 0 or 1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${1:-15}
times=${2:-2}
connections=256
warm=3

nginx=$(command -v nginx || echo /usr/sbin/nginx)
for tool in h2load curl "$nginx"; do
    command -v "$tool" >/dev/null || { echo "Missing: $tool"; exit 1; }
done
binary=${WXGATE:-target/release/wxgate}
[ -n "${WXGATE:-}" ] || cargo build --release --quiet
binary=$(realpath "$binary")
shed=
[ -z "${OVERLOAD_SHED:-}" ] || shed="shed_above = \"$OVERLOAD_SHED\""

. scripts/servers.sh

fail() {
    echo "overload: FAILED: $*"
    exit 1
}

others=()
cores=$(nproc)
[ "$cores" -lt 2 ] || others=(taskset -c "1-$((cores - 1))")

# --- a service that is not the bottleneck, and the gateway ---------------------------------------------------------

port=
for try in $(seq 20000 20100); do
    (exec 3<>"/dev/tcp/127.0.0.1/$try") 2>/dev/null || { port=$try; break; }
done
cat >"$work/nginx.conf" <<END
daemon off;
worker_processes 1;
pid $work/nginx.pid;
error_log $work/nginx.log;
events { worker_connections 4096; }
http {
    access_log off;
    client_body_temp_path $work; proxy_temp_path $work; fastcgi_temp_path $work; uwsgi_temp_path $work; scgi_temp_path $work;
    keepalive_requests 100000000;
    server { listen 127.0.0.1:$port; location / { default_type application/json; return 200 '{"hello":"world"}'; } }
}
END
"${others[@]+"${others[@]}"}" "$nginx" -e "$work/nginx.log" -c "$work/nginx.conf" &
pids+=($!)
cat >"$work/gateway.toml" <<END
[server]
listen = ["127.0.0.1:0"]
workers = 1
$shed
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
secret = "not-asked-for-here"
[[upstream]]
name = "service"
servers = ["http://127.0.0.1:$port"]
max_connections = 256
queue = { size = 1024, timeout = "500ms" }
[[route]]
path = "/public/*"
upstream = "service"
auth = "none"
END
pin=()
[ "$cores" -lt 2 ] || pin=(taskset -c 0)
(cd "$work" && exec "${pin[@]+"${pin[@]}"}" "$binary" serve >"$work/gateway.log" 2>&1) &
pids+=($!)
for _ in $(seq 200); do
    url=$(sed -n 's/.*"public":"\[\([0-9.:]*\)\]".*/\1/p' "$work/gateway.log")
    admin=$(sed -n 's/.*"admin":"\([0-9.:]*\)".*/\1/p' "$work/gateway.log")
    [ -z "$admin" ] || break
    sleep 0.1
done
[ -n "${admin:-}" ] || fail "the gateway did not start: $(tail -n 3 "$work/gateway.log")"
for _ in $(seq 100); do
    [ "$(curl -s -o /dev/null -w '%{http_code}' "http://$url/public/x")" != 200 ] || break
    sleep 0.1
done

load() { "${others[@]+"${others[@]}"}" h2load -t 1 "$@" "http://$url/public/x"; }

# Of a log of h2load (start, status, time, in microseconds): how many 200s a second came after the warm-up, the median and
# the 99th percentile of their times in milliseconds, how many 503s, and how many others.
figures() {
    sort -n "$1" | awk -v warm="$warm" -v seconds="$seconds" '
        NR == 1 { from = $1 + warm * 1000000; to = from + seconds * 1000000 }
        $1 < from || $1 >= to { next }
        $2 == 200 { print $3; good++ }
        $2 == 503 { refused++ }
        $2 != 200 && $2 != 503 { other++ }
        END { printf "%d %d %d\n", good, refused, other >"/dev/stderr" }' 2>"$1.counts" | sort -n >"$1.times"
    read -r good refused other <"$1.counts"
    median=$(awk -v n="$good" 'NR == int(n * 0.5) + 1 { printf "%.1f", $1 / 1000; exit }' "$1.times")
    p99=$(awk -v n="$good" 'NR == int(n * 0.99) + 1 { printf "%.1f", $1 / 1000; exit }' "$1.times")
    goodput=$((good / seconds))
}

# As many at once as keep it busy, and no more: the rate of that is what it can do.
peak_of() { # FILE
    load -c 16 -m 4 -D "$seconds" --warm-up-time "$warm" --log-file "$work/$1" >"$work/$1.log" 2>&1 || fail "$(cat "$work/$1.log")"
    figures "$work/$1"
    [ "$goodput" -gt 0 ] || fail "no peak found: $(cat "$work/$1.log")"
    [ "$refused" = 0 ] || fail "it refused $refused requests at its peak"
    echo "peak: $goodput good answers a second, p50 $median ms, p99 $p99 ms"
}
peak_of before
peak=$goodput

rate=$(awk -v peak="$peak" -v times="$times" -v n="$connections" 'BEGIN { printf "%d", peak * times / n + 1 }')
load -c "$connections" -m 100 -D "$((seconds + warm))" --rps "$rate" --log-file "$work/over" >"$work/over.log" 2>&1 ||
    fail "$(cat "$work/over.log")"
figures "$work/over"
offered=$(((good + refused + other) / seconds))
part=$((100 * goodput / peak))
echo "$((rate * connections)) a second wanted, $offered a second came: $goodput good ($part % of the peak), $((refused / seconds)) refused, $((other / seconds)) others; p50 $median ms, p99 $p99 ms"
curl -s "http://$admin/metrics" | grep -E '^wxgate_(shed_total|panics_total|problems_total|upstream_queue_)' || true
health=$(curl -s -o /dev/null -w '%{http_code} in %{time_total} s' "http://$url/healthz")
echo "health afterwards: $health"
over="$part $p99 $other $offered"
peak_of after
read -r part p99 other offered <<<"$over"
apart=$((100 * (goodput > peak ? goodput - peak : peak - goodput) / peak))
[ "$apart" -le 15 ] || fail "the peak was $peak before and $goodput after: the machine is not quiet, so this says nothing"

[ "$other" = 0 ] || fail "$other answers were neither 200 nor 503"
[ "$part" -ge 90 ] || fail "goodput fell to $part % of the peak"
awk -v p99="$p99" 'BEGIN { exit !(p99 <= 1000) }' || fail "p99 of the good answers is $p99 ms"
[ "$offered" -ge $((peak * 12 / 10)) ] ||
    fail "only $offered a second came: h2load could not offer more, so nobody overloaded it"
echo "overload: PASSED"
