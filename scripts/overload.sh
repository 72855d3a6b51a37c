#!/usr/bin/env bash
# Twice as much as can be done: what is answered well has to stay as much, and in time.
#
#   scripts/overload.sh [SECONDS] [TIMES] [gateway|service|both]        default: 15 seconds at 2 times the peak, both
#
# Two cases. `gateway`: the gateway is what has too much to do. It runs with one worker on core 0, beside a process that only
# counts and takes half of that core, so that load and service (nginx), on the other cores, always have time to spare, also where
# there is only one other. `service`: a service of 40 slots and 20 ms of work each (2,000 requests a second; node), in which everything
# beyond waits without end, as in most; the gateway knows by max_connections what it can bear.
#
# First the peak (h2load, a closed loop), then TIMES that at a constant rate, whether or not answers come (an open loop:
# HTTP/2, 256 connections with 100 requests at once on each: when 25,600 wait, h2load waits, too), then the peak again, which
# tells whether the machine was quiet. What counts is the rate of 200s (goodput) and their times; 503 is what the gateway
# refuses (shed_above, queue). Goals: goodput at least 90 % of the peak, 99 % of the 200s within one second. Needs h2load
# (nghttp2-client), nginx, node, curl, Linux, and a quiet machine of at least two cores: run it three times, and take the
# middle one. Not a part of scripts/test.sh.
#
# WXGATE names another binary, OVERLOAD_SHED another shed_above ("0s" shows the same without refusals), OVERLOAD_H1=1 loads by
# HTTP/1.1 (2,000 connections with one request at once on each). The last line is "overload: PASSED" or "overload: FAILED" and
# why; exit code 0 or 1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${1:-15}
times=${2:-2}
cases=${3:-both}
warm=3
case "$cases" in both) cases="gateway service" ;; gateway | service) ;; *)
    echo "gateway, service or both, not $cases"
    exit 1
    ;;
esac

nginx=$(command -v nginx || echo /usr/sbin/nginx)
for tool in h2load curl node "$nginx"; do
    command -v "$tool" >/dev/null || { echo "Missing: $tool"; exit 1; }
done
cores=$(nproc)
[ "$cores" -ge 2 ] || { echo "This needs two cores: one for the gateway, one for all others."; exit 1; }
others=(taskset -c "1-$((cores - 1))")
binary=${WXGATE:-target/release/wxgate}
[ -n "${WXGATE:-}" ] || cargo build --release --quiet
binary=$(realpath "$binary")
shed=
[ -z "${OVERLOAD_SHED:-}" ] || shed="shed_above = \"$OVERLOAD_SHED\""
if [ -n "${OVERLOAD_H1:-}" ]; then
    connections=2000 open=(--h1 -c 2000) closed=(--h1 -c 256)
else
    connections=256 open=(-c 256 -m 100) closed=(-c 32 -m 8)
fi

. scripts/servers.sh

fail() {
    echo "overload: FAILED: $*"
    exit 1
}

# --- services ------------------------------------------------------------------------------------------------------

nginx_port() {
    local try
    for try in $(seq 20000 20100); do
        (exec 3<>"/dev/tcp/127.0.0.1/$try") 2>/dev/null || { echo "$try"; return; }
    done
}

# One that is not the bottleneck: sets `port`.
start_fast() {
    port=$(nginx_port)
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
    "${others[@]}" "$nginx" -e "$work/nginx.log" -c "$work/nginx.conf" &
    pids+=($!)
}

# One that is: sets `port`.
start_slow() {
    "${others[@]}" node -e '
const waiting = []
let free = 40
const work = (answer) => setTimeout(() => {
  answer.writeHead(200, { "content-type": "application/json", "content-length": 17 })
  answer.end("{\"hello\":\"world\"}")
  const next = waiting.shift()
  if (next) work(next)
  else free++
}, 20)
const server = require("http").createServer((request, answer) => {
  if (free === 0) return void waiting.push(answer)
  free--
  work(answer)
})
server.keepAliveTimeout = 120000
server.listen(0, "127.0.0.1", 4096, () => console.log("service on " + server.address().port))
' >"$work/service.log" 2>&1 &
    pids+=($!)
    port=$(await "$work/service.log" 'service on \([0-9]*\)') || fail "the service did not start"
}

# --- the gateway ---------------------------------------------------------------------------------------------------

# In front of the service on `port`: sets `url` and `admin`.
start_gateway() { # CASE LIMITS
    local folder=$work/$1
    mkdir "$folder"
    cat >"$folder/gateway.toml" <<END
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
$2
[[route]]
path = "/public/*"
upstream = "service"
auth = "none"
END
    (cd "$folder" && exec taskset -c 0 "$binary" serve >"$folder/gateway.log" 2>&1) &
    gateway=$!
    pids+=("$gateway")
    url=$(await "$folder/gateway.log" '.*"public":"\[\([0-9.:]*\)\]".*') || fail "the gateway did not start"
    admin=$(await "$folder/gateway.log" '.*"admin":"\([0-9.:]*\)".*') || fail "the gateway did not start"
    for _ in $(seq 100); do
        [ "$(curl -s -o /dev/null -w '%{http_code}' "http://$url/public/x")" != 200 ] || break
        sleep 0.1
    done
}

# --- load ----------------------------------------------------------------------------------------------------------

# Sets `share`: how much of a core the gateway had meanwhile.
load() {
    local before after from to
    before=$(ticks) from=$(date +%s%N)
    "${others[@]}" h2load -t 1 "$@" "http://$url/public/x" || return
    after=$(ticks) to=$(date +%s%N)
    share=$(awk -v t=$((after - before)) -v hz="$(getconf CLK_TCK)" -v ns=$((to - from)) 'BEGIN { printf "%.2f", t / hz / (ns / 1e9) }')
}

# CPU time of the gateway so far (proc(5): utime and stime; the name of the program may hold blanks).
ticks() { sed 's/.*) //' "/proc/$gateway/stat" | awk '{ print $12 + $13 }'; }

# Of a log of h2load (start, status, time, in microseconds): how many 200s a second came after the warm-up, the median and
# the 99th percentile of their times in milliseconds, how many 503s, and how many others.
figures() {
    sort -n "$1" | awk -v warm="$warm" -v seconds="$seconds" '
        NR == 1 { from = $1 + warm * 1000000; to = from + seconds * 1000000 }
        $1 + $3 < from || $1 + $3 >= to { next }
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
    load "${closed[@]}" -D "$((seconds + warm))" --log-file "$work/$1" >"$work/$1.log" 2>&1 || fail "$(cat "$work/$1.log")"
    figures "$work/$1"
    [ "$goodput" -gt 0 ] || fail "no peak found: $(cat "$work/$1.log")"
    [ "$refused" = 0 ] || fail "it refused $refused requests at its peak"
    echo "  peak: $goodput good answers a second, p50 $median ms, p99 $p99 ms; the gateway had $share of a core"
}

measure() { # CASE
    local peak rate part over
    peak_of "$1-before"
    peak=$goodput
    rate=$(awk -v peak="$peak" -v times="$times" -v n="$connections" 'BEGIN { printf "%.2f", peak * times / n }')
    load "${open[@]}" -D "$((seconds + warm))" --rps "$rate" --log-file "$work/$1-over" >"$work/$1-over.log" 2>&1 ||
        fail "$(cat "$work/$1-over.log")"
    figures "$work/$1-over"
    part=$((100 * goodput / peak))
    echo "  $(awk -v r="$rate" -v n="$connections" 'BEGIN { printf "%d", r * n }') a second wanted: $goodput good ($part % of the peak), $((refused / seconds)) refused, $((other / seconds)) others; p50 $median ms, p99 $p99 ms; the gateway had $share of a core"
    curl -s "http://$admin/metrics" | sed -n -E '/^wxgate_(shed_total|panics_total|problems_total|upstream_queue)/s/^/    /p' || true
    echo "  health afterwards: $(curl -s -o /dev/null -w '%{http_code} in %{time_total} s' "http://$url/healthz")"
    over="$part $p99 $other $refused"
    peak_of "$1-after"
    local apart=$((100 * (goodput > peak ? goodput - peak : peak - goodput) / peak))
    read -r part p99 other refused <<<"$over"
    [ "$apart" -le 15 ] || fail "$1: the peak was $peak before and $goodput after: the machine is not quiet, so this says nothing"
    [ "$other" = 0 ] || fail "$1: $other answers were neither 200 nor 503"
    [ "$part" -ge 90 ] || fail "$1: goodput fell to $part % of the peak"
    awk -v p99="$p99" 'BEGIN { exit !(p99 <= 1000) }' || fail "$1: p99 of the good answers is $p99 ms"
    [ -n "$shed" ] || [ "$refused" -gt 0 ] || fail "$1: nothing was refused: h2load could not offer more, so nobody overloaded it"
}

for case in $cases; do
    echo "$case:"
    if [ "$case" = gateway ]; then
        # Half of the gateway's core is not its own.
        taskset -c 0 bash -c 'while :; do :; done' &
        counting=$!
        pids+=("$counting")
        start_fast
        start_gateway "$case" 'max_connections = 256
queue = { size = 1024, timeout = "500ms" }'
        measure "$case"
        kill "$counting"
    else
        start_slow
        start_gateway "$case" 'max_connections = 40
queue = { size = 1024, timeout = "500ms" }'
        [ -n "${OVERLOAD_H1:-}" ] && closed=(--h1 -c 40) || closed=(-c 10 -m 4)
        measure "$case"
    fi
done
echo "overload: PASSED"
