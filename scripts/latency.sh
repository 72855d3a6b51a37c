#!/usr/bin/env bash
# What a proxy adds to the time of a request at half of its peak, by a constant rate that does not wait for answers (an open
# loop, so that coordinated omission has no place): scripts/latency.sh
#
#   scripts/latency.sh [--rounds 8] [--secs 5] [--tokens 1000] [--conns 64] [--wxgate BINARY]...
#
# First the peaks (wrk, closed loop, the middle of three). Then rounds: the service without a proxy, haproxy-jwt and the gateway, all
# at half of haproxy-jwt's peak; and the service and the gateway once more at half of the gateway's own. Added is p99 with the
# proxy less p99 without, of the same round and rate; the ratio is what the gateway adds over what haproxy-jwt adds at half of its
# own peak, round by round. Goal: at most 0.8 in the first. The generator (benches/open_loop) and the service are on core 1: "sent late"
# says by how much, in 99 of 100 cases, requests left after they were due, and is a part of every time. Where it is more than some
# hundred µs, or a p99 without a proxy is above one with, the machine was not quiet, and the run says nothing. A ratio is taken only
# of rounds in which both added something; their number stands beside it. Needs haproxy, nginx, wrk, openssl, taskset, two cores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

rounds=8 secs=5 tokens=1000 conns=64 binaries=()
while [ $# -gt 0 ]; do
    case $1 in
        --rounds) rounds=$2 ;;
        --secs) secs=$2 ;;
        --tokens) tokens=$2 ;;
        --conns) conns=$2 ;;
        --wxgate) binaries+=("$2") ;;
        *) echo "Unknown option $1; the head of this file names them." >&2; exit 64 ;;
    esac
    shift 2
done
. scripts/servers.sh
command -v haproxy >/dev/null || { echo "Missing: haproxy (apt-get install haproxy)" >&2; exit 1; }
cargo build --release --quiet --locked -p wxgate-open-loop
generator=${CARGO_TARGET_DIR:-target}/release/wxgate-open-loop

. scripts/proxies.sh
start_service
ids+=("${pids[-1]}") names+=("no proxy") ports+=("$upstream") checked+=(0)
start_haproxy haproxy-jwt
start_gateways
make_tokens "$tokens"
check_all

machine
export TOKENS="$work/tokens" TARGET='/api/orders?page=1'
peak() { # index -> requests/s
    taskset -c 1 wrk -t1 -c "$conns" -d 2s -s benches/peers/load.lua "http://127.0.0.1:${ports[$1]}" |
        awk '/^RESULT/ {printf "%d\n", $2 / $3 * 1e6}'
}
for _ in 1 2 3; do
    for i in "${!names[@]}"; do echo "$i $(peak "$i")"; done
done >"$work/peaks"
half=()
for i in "${!names[@]}"; do
    half+=("$(awk -v i="$i" '$1 == i {print $2}' "$work/peaks" | sort -n | awk 'NR == 2 {printf "%d", $1 / 2}')")
done
# One run: target, whose half, and what the generator says.
run() {
    local said
    said=$(taskset -c 1 "$generator" --address "127.0.0.1:${ports[$1]}" --rate "${half[$2]}" --seconds "$secs" \
        --connections "$conns" --tokens "$TOKENS") || { echo "$said" >&2; exit 1; }
    echo "$1 $2 $said"
}
for i in "${!names[@]}"; do run "$i" 1 >/dev/null; done
for _ in $(seq "$rounds"); do
    for rate in "${!half[@]}"; do
        # At half of its own peak each gateway, and all at half of haproxy-jwt's (the second).
        [ "$rate" != 0 ] || continue
        for i in "${!names[@]}"; do
            if [ "$rate" = 1 ] || [ "$i" = 0 ] || [ "$i" = "$rate" ]; then run "$i" "$rate"; fi
        done
    done
done >"$work/rounds"
echo "load $(cut -d' ' -f1 /proc/loadavg) after; $tokens tokens, $conns connections, $rounds rounds of ${secs} s; µs, median (min–max) of the rounds"
echo "| | at a constant rate of | p50 | p99 | p99.9 | p99 added | added, over what haproxy-jwt adds | not 200 | p99 sent late |"
echo "| --- | ---: | --- | --- | --- | --- | --- | --- | --- |"
for rate in "${!half[@]}"; do
    for i in "${!names[@]}"; do
        awk -v i="$i" -v rate="$rate" -v name="${names[$i]}" -v whose="${names[$rate]}" -v each="${half[$rate]}" "$median_awk"'
            function spread(a, n,   m) { m = median(a, n); return sprintf("%d (%d–%d)", m, a[1], a[n]) }
            { round[$1, $2]++; p99[$1, $2, round[$1, $2]] = $10 }
            $1 == i && $2 == rate { n++; half[n] = $8; most[n] = $10; rare[n] = $12; late[n] = $16; bad += $6 }
            END {
                if (!n) exit
                for (k = 1; k <= n; k++) {
                    added[k] = p99[i, rate, k] - p99[0, rate, k]
                    other = p99[1, 1, k] - p99[0, 1, k]
                    if (i > 1 && added[k] > 0 && other > 0) ratio[++both] = added[k] / other
                }
                over = (i > 1) ? "in no round" : "–"
                if (both) { m = median(ratio, both); over = sprintf("%.2f (%.2f–%.2f), %d of %d rounds", m, ratio[1], ratio[both], both, n) }
                printf "| %s | %d/s, half of %s | %s | %s | %s | %s | %s | %d | %s |\n", name, each, whose, spread(half, n), spread(most, n),
                    spread(rare, n), (i ? spread(added, n) : "–"), over, bad, spread(late, n)
            }' "$work/rounds"
    done
done
