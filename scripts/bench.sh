#!/usr/bin/env bash
# The gateway beside other proxies that do the same work, in alternating rounds, as one table: scripts/bench.sh
#
#   scripts/bench.sh [--case small|post|100k|10m|post10m|newconn|idle] [--rounds 8] [--secs 2] [--tokens 1000] [--conns 64]
#                    [--wxgate BINARY]...
#
# Takes part what is installed of: haproxy (with the token checked, and as a relay of bytes), nginx (no token). Needs wrk,
# nginx (the service behind them), openssl, taskset, and two cores: proxies run on core 0, load and service on core 1. Several
# --wxgate compare builds. Bodies: post is 1 KB up, 10m and post10m 10 MB down and up (4 connections and rounds of 5 s where
# nothing else is said; their figures are per MB). How to read the numbers: benches/README.md
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case=small rounds=8 secs='' tokens=1000 conns='' binaries=()
while [ $# -gt 0 ]; do
    case $1 in
        --case) case=$2 ;;
        --rounds) rounds=$2 ;;
        --secs) secs=$2 ;;
        --tokens) tokens=$2 ;;
        --conns) conns=$2 ;;
        --wxgate) binaries+=("$2") ;;
        *) echo "Unknown option $1; the head of this file names them." >&2; exit 64 ;;
    esac
    shift 2
done
unit=request in_unit=1
export TARGET='/api/orders?page=1'
case $case in
    small | idle) ;;
    post) export BODY=1024 ;;
    100k) TARGET=/100k ;;
    10m) TARGET=/10m unit=MB in_unit=10 conns=${conns:-4} secs=${secs:-5} ;;
    # One request for all tokens would be ten gigabytes of them.
    post10m) TARGET=/upload unit=MB in_unit=10 conns=${conns:-4} secs=${secs:-5} tokens=1 && export BODY=10000000 ;;
    newconn) export CLOSE=1 ;;
    *) echo "Unknown case $case; the head of this file names them." >&2; exit 64 ;;
esac
secs=${secs:-2}

. scripts/servers.sh
. scripts/proxies.sh
start_service
start_all
make_tokens "$tokens"
check_all

machine
if [ "$case" = idle ]; then
    conns=${conns:-10000}
    ulimit -n "$((conns * 2 + 1000))" 2>/dev/null || ulimit -n "$(ulimit -Hn)"
    echo "KiB of resident memory per idle connection, $conns held after one request each:"
    for i in "${!names[@]}"; do
        before=$(resident "${ids[$i]}")
        python3 - "${ports[$i]}" "$conns" "$(head -n 1 "$work/tokens")" <<'PY' >"$work/idle" &
import socket, sys, time
port, n, token = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
held = []
for _ in range(n):
    s = socket.create_connection(("127.0.0.1", port))
    s.sendall(f"GET /api HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    held.append(s)
    while b"\r\n\r\n" not in s.recv(4096):
        pass
print("held", flush=True)
time.sleep(600)
PY
        holder=$!
        pids+=("$holder")
        until grep -q held "$work/idle"; do sleep 0.2; kill -0 "$holder"; done
        sleep 1
        after=$(resident "${ids[$i]}")
        kill "$holder"
        awk -v n="${names[$i]}" -v d=$((after - before)) -v c="$conns" 'BEGIN {printf "%-32s %6.1f\n", n, d / c}'
    done
    exit
fi
export TOKENS="$work/tokens"
run() { # index, seconds -> index, user and system ticks before and after, requests, microseconds, p99, errors
    local before after result
    before=$(ticks "${ids[$1]}")
    result=$(taskset -c 1 wrk -t1 -c "${conns:-64}" -d "${2}s" -s benches/peers/load.lua --latency "http://127.0.0.1:${ports[$1]}" |
        awk '/^RESULT/ {print $2, $3, $4, $5}')
    after=$(ticks "${ids[$1]}")
    echo "$1 $before $after $result"
}
for i in "${!names[@]}"; do run "$i" 1 >/dev/null; done
for _ in $(seq "$rounds"); do
    for i in "${!names[@]}"; do run "$i" "$secs"; done
done >"$work/rounds"
echo "load $(cut -d' ' -f1 /proc/loadavg) after; case $case, $tokens tokens, $rounds rounds of ${secs} s; ratio: CPU of haproxy-jwt over that of the row, round by round"
reference=0
for i in "${!names[@]}"; do [ "${names[$i]}" = haproxy-jwt ] && reference=$i; done
printf '| | %s/s (min–max) | CPU µs/%s (user + system) | min–max | ratio (min–max) | p99 µs | errors |\n| --- | --- | --- | --- | --- | --- | --- |\n' "$unit" "$unit"
for i in "${!names[@]}"; do
    awk -v want="$i" -v reference="$reference" -v hz="$hz" -v name="${names[$i]}" -v in_unit="$in_unit" "$median_awk"'
        { us = 1e6 / hz / $6 / in_unit; cost = ($4 + $5 - $2 - $3) * us; round[$1]++ }
        $1 == reference { base[round[$1]] = cost }
        $1 == want { n++; c[n] = cost; at[n] = cost; u[n] = ($4 - $2) * us; s[n] = ($5 - $3) * us; r[n] = $6 * in_unit / $7 * 1e6; p[n] = $8; bad += $9 }
        END { for (k = 1; k <= n; k++) q[k] = base[k] / at[k]
            mc = median(c, n); mr = median(r, n); mq = median(q, n)
            printf "| %s | %d (%d–%d) | %.1f (%.1f + %.1f) | %.1f–%.1f | %.2f (%.2f–%.2f) | %d | %d |\n", name, mr, r[1], r[n], mc,
                median(u, n), median(s, n), c[1], c[n], mq, q[1], q[n], median(p, n), bad }' "$work/rounds"
done
