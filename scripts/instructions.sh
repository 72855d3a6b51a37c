#!/usr/bin/env bash
# How many instructions one proxied request takes, beside the figure that is kept: scripts/instructions.sh
#
#   scripts/instructions.sh [--debug] [--keep] [--wxgate BINARY]
#
# Not a timed test: valgrind counts, so a busy machine changes nothing. One client asks 2,000 times on one connection, with
# one token, through a gateway with its defaults; what the gateway's process executes meanwhile is divided by 2,000. More than
# 3 % over benches/instructions.txt is an error (exit 1); --keep writes the figure found. Another compiler makes other code, and
# another processor takes other branches in the libraries (AVX2, AVX-512): where either is not that of the kept figure, nothing
# is compared.
#
# --debug counts the debug build (1,000 requests, 15 %), which scripts/test.sh has anyway: some twelve times as many, with a figure of its own. It
# finds much work that was added; what the compiler makes of it is not in it, and on a machine with ten times too much to do the
# figure was 5 % higher than on a quiet one, since what goes by time is in it, too. Needs valgrind, curl, nginx (the service).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

keep=0 binary='' build=release requests=2000 warm=500 most=3
while [ $# -gt 0 ]; do
    case $1 in
        --keep) keep=1; shift ;;
        --debug) build=debug requests=1000 warm=200 most=15; shift ;;
        --wxgate) binary=$2; shift 2 ;;
        *) echo "Unknown option $1; the head of this file names them." >&2; exit 64 ;;
    esac
done
. scripts/servers.sh
for tool in valgrind callgrind_control curl nginx; do
    command -v "$tool" >/dev/null || { echo "Missing: $tool (apt-get install valgrind curl nginx)" >&2; exit 1; }
done
if [ -z "$binary" ]; then
    if [ $build = release ]; then cargo build --release --locked --bin wxgate; else cargo build --locked --bin wxgate; fi
    binary=${CARGO_TARGET_DIR:-target}/$build/wxgate
fi
. scripts/surroundings.sh
valgrind --tool=callgrind --instr-atstart=no --callgrind-out-file="$work/counted" "$binary" serve --config "$work/gateway.toml" \
    >"$work/gateway.log" 2>&1 &
gateway=$!
pids+=("$gateway")
ask "http://127.0.0.1:$port/healthz" >/dev/null
ask "http://127.0.0.1:$simulator/_sim/code?user=alice" >/dev/null
token=$(ask -H 'Content-Type: application/json' -d '{"code":"demo-alice"}' "http://127.0.0.1:$port/auth/login" |
    sed 's/.*"access_token":"\([^"]*\)".*/\1/')
many() {
    curl -sf -o /dev/null -H "Authorization: Bearer $token" -H 'Content-Type: application/json' -H 'X-Requested-With: XMLHttpRequest' \
        -H 'Referer: https://servicewechat.com/wx0123456789abcdef/17/page-frame.html' -H 'Accept-Language: zh-CN,zh;q=0.9' \
        -A 'Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 MicroMessenger/8.0.49 NetType/WIFI' \
        "http://127.0.0.1:$port/api/orders/[1-$1]"
}
many "$warm"
callgrind_control -i on "$gateway" >/dev/null 2>&1
many "$requests"
callgrind_control -i off "$gateway" >/dev/null 2>&1
kill -TERM "$gateway"
wait "$gateway" || true
total=$(awk '/^(summary|totals):/ {n = $2} END {print n}' "$work/counted")
found=$((total / requests))
on="$(rustc --version | cut -d' ' -f2), $(awk -F: '/model name/ {print $2; exit}' /proc/cpuinfo | xargs)"
line=$(grep "^proxied request, $build build: " benches/instructions.txt || true)
kept=$(sed 's/.*: \([0-9]*\) instructions.*/\1/' <<<"$line") kept_on=$(sed 's/.*(\(.*\))$/\1/' <<<"$line")
echo "proxied request, $build build: $found instructions ($on); kept: ${kept:-none} (${kept_on:-nowhere})"
if [ "$keep" = 1 ]; then
    others=$(grep -v "^proxied request, $build build: " benches/instructions.txt || true)
    printf '%s\nproxied request, %s build: %s instructions (%s)\n' "$others" "$build" "$found" "$on" | sed '/^$/d' >benches/instructions.txt
elif [ "$kept_on" != "$on" ]; then
    echo "No figure is kept of this compiler on this processor: nothing is compared. --keep makes one."
elif [ $((found * 100)) -gt $((kept * (100 + most))) ]; then
    echo "More than $most % over the figure that is kept: find out why, or keep the new one with --keep and say why in the commit." >&2
    exit 1
fi
