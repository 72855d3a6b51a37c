#!/usr/bin/env bash
# The gateway beside other proxies that do the same work, in alternating rounds, as one table: scripts/bench.sh
#
#   scripts/bench.sh [--case small|100k|newconn|idle] [--rounds 8] [--secs 2] [--tokens 1000] [--conns 64|10000] [--wxgate BINARY]...
#
# Takes part what is installed of: haproxy (with the token checked, and as a relay of bytes), nginx (no token). Needs wrk,
# nginx (the service behind them), openssl, taskset, and two cores: proxies run on core 0, load and service on core 1. Several
# --wxgate compare builds. How to read the numbers: benches/README.md
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case=small rounds=8 secs=2 tokens=1000 conns='' binaries=()
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
for tool in wrk nginx openssl taskset; do
    command -v "$tool" >/dev/null || { echo "Missing: $tool (apt-get install wrk nginx openssl util-linux)" >&2; exit 1; }
done
if [ ${#binaries[@]} -eq 0 ]; then
    cargo build --release --locked --bin wxgate
    binaries=(target/release/wxgate)
fi

. scripts/servers.sh

issuer=https://auth.example.test audience=wxgate base=${BENCH_PORT:-18400}
upstream=$base
secret=$(openssl rand -hex 32)
printf %s "$secret" >"$work/secret"
small=$(printf '{"orders":[%s]}' "$(printf '"%s",' {1000..1025} | head -c 187)" | tr -d '\n')
head -c 102400 /dev/zero | tr '\0' x >"$work/100k"
chmod 755 "$work"

fill() { # template -> file, with @NAME@ filled in
    sed -e "s|@PORT@|${port:-0}|g; s|@ADMIN@|$((${port:-0} + 1))|g; s|@INTERNAL@|$((${port:-0} + 2))|g" \
        -e "s|@UPSTREAM@|$upstream|g; s|@WORK@|$work|g; s|@STATE@|$work/$2.state|g; s|@SMALL@|$small|g" \
        -e "s|@SECRET@|$secret|g; s|@ISSUER@|$issuer|g; s|@AUDIENCE@|$audience|g" "benches/peers/$1" >"$work/$2"
}

encode() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
# The key's id (RFC 7638), by which the gateway finds it.
kid=$(printf '{"k":"%s","kty":"oct"}' "$(printf %s "$secret" | encode)" | openssl dgst -sha256 -binary | encode)
token() { # n, seconds until it expires
    local now signed
    now=$(date +%s)
    signed=$(printf '{"typ":"at+jwt","alg":"HS256","kid":"%s"}' "$kid" | encode).$(
        printf '{"iss":"%s","aud":"%s","sub":"0192f5a0-0000-7000-8000-%012d","client_id":"wx0123456789abcdef","appid":"wx0123456789abcdef","openid":"o6_bmasdasdsad6_2s%08d","unionid":"oGZUI0egBJY1zhBYw2KhdU%06d","sid":"0192f5a1-0000-7000-8000-%012d","jti":"%022d","auth_time":%d,"iat":%d,"exp":%d}' \
            "$issuer" "$audience" "$1" "$1" "$1" "$1" "$1" "$now" "$now" $((now + $2)) | encode)
    printf '%s.%s\n' "$signed" "$(printf %s "$signed" | openssl dgst -sha256 -mac HMAC -macopt "key:$secret" -binary | encode)"
}

start() { # core, command...: a process that is ended with the script; its id is in $!
    taskset -c "$1" "${@:2}" >>"$work/out.log" 2>&1 &
    pids+=($!)
}
listening() {
    for _ in $(seq 200); do
        (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
        sleep 0.05
    done
    echo "Nothing listens on $1:" >&2
    tail -5 "$work/out.log" >&2
    exit 1
}

fill upstream.conf upstream.conf
start 1 nginx -e stderr -c "$work/upstream.conf"
listening "$upstream"

names=() ports=() ids=() checked=()
add() { # name, port, checks tokens (1 or 0)
    listening "$2"
    names+=("$1") ports+=("$2") ids+=("${pids[-1]}") checked+=("$3")
}
port=$base
for binary in "${binaries[@]}"; do
    port=$((port + 10)) name=wxgate
    [ ${#binaries[@]} -gt 1 ] && name="wxgate ($binary)"
    fill wxgate.toml "wxgate$port.toml"
    mkdir -m 700 "$work/wxgate$port.toml.state"
    "$binary" keys import --config "$work/wxgate$port.toml" --hs256 "$work/secret" >"$work/imported"
    start 0 "$binary" serve --config "$work/wxgate$port.toml"
    add "$name" "$port" 1
done
if command -v haproxy >/dev/null; then
    for peer in haproxy-jwt haproxy-tcp; do
        port=$((port + 10))
        fill "$peer.cfg" "$peer.cfg"
        start 0 haproxy -db -f "$work/$peer.cfg"
        add "$peer" "$port" "$([ $peer = haproxy-jwt ] && echo 1 || echo 0)"
    done
fi
port=$((port + 10))
fill nginx.conf nginx.conf
start 0 nginx -e stderr -c "$work/nginx.conf"
add "nginx, no token" "$port" 0

for n in $(seq "$tokens"); do token "$n" 86400; done >"$work/tokens"
expired=$(token 1 -10)

ask() { # port, token -> status and body
    curl -s -o - -w ' %{http_code}' -H "Authorization: Bearer $2" -H 'X-WX-OPENID: forged' "http://127.0.0.1:$1/echo"
}
good=$(head -1 "$work/tokens")
for i in "${!names[@]}"; do
    [ "${checked[$i]}" = 1 ] || continue
    [ "$(ask "${ports[$i]}" "$good")" = 'openid=o6_bmasdasdsad6_2s00000001 200' ] ||
        { echo "${names[$i]} does not take a good token: $(ask "${ports[$i]}" "$good")" >&2; exit 1; }
    for bad in "$expired" "${good}x" ''; do
        case "$(ask "${ports[$i]}" "$bad")" in *401) ;; *) echo "${names[$i]} takes a bad token" >&2; exit 1 ;; esac
    done
done

tree() { # a process and its children
    echo "$1"
    for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do tree "$child"; done
}
ticks() { # user and system time of a process and its children, in ticks
    for pid in $(tree "$1"); do sed 's/.*) //' "/proc/$pid/stat"; done | awk '{u += $12; s += $13} END {print u, s}'
}
resident() { for pid in $(tree "$1"); do awk '/^VmRSS/ {print $2}' "/proc/$pid/status"; done | awk '{n += $1} END {print n}'; }

echo "$(nproc) cores, $(awk -F: '/model name/ {print $2; exit}' /proc/cpuinfo | xargs), Linux $(uname -r); load $(cut -d' ' -f1 /proc/loadavg) before"
if [ "$case" = idle ]; then
    conns=${conns:-10000}
    ulimit -n "$((conns * 2 + 1000))" 2>/dev/null || ulimit -n "$(ulimit -Hn)"
    echo "KiB of resident memory per idle connection, $conns held after one request each:"
    for i in "${!names[@]}"; do
        before=$(resident "${ids[$i]}")
        python3 - "${ports[$i]}" "$conns" "$good" <<'PY' >"$work/idle" &
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
case $case in
    small) ;;
    100k) export TARGET=/100k ;;
    newconn) export CLOSE=1 ;;
    *) echo "Unknown case $case" >&2; exit 64 ;;
esac
hz=$(getconf CLK_TCK)
run() { # index, seconds -> requests, user, system ticks, microseconds, p99
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
printf '| | requests/s (min–max) | CPU µs/request (user + system) | min–max | ratio (min–max) | p99 µs | errors |\n| --- | --- | --- | --- | --- | --- | --- |\n'
for i in "${!names[@]}"; do
    awk -v want="$i" -v reference="$reference" -v hz="$hz" -v name="${names[$i]}" '
        function median(a, n,   i, j, t) { for (i = 1; i <= n; i++) for (j = i + 1; j <= n; j++) if (a[j] < a[i]) { t = a[i]; a[i] = a[j]; a[j] = t }
            return n % 2 ? a[(n + 1) / 2] : (a[n / 2] + a[n / 2 + 1]) / 2 }
        { us = 1e6 / hz / $6; cost = ($4 + $5 - $2 - $3) * us; round[$1]++ }
        $1 == reference { base[round[$1]] = cost }
        $1 == want { n++; c[n] = cost; at[n] = cost; u[n] = ($4 - $2) * us; s[n] = ($5 - $3) * us; r[n] = $6 / $7 * 1e6; p[n] = $8; bad += $9 }
        END { for (k = 1; k <= n; k++) q[k] = base[k] / at[k]
            mc = median(c, n); mr = median(r, n); mq = median(q, n)
            printf "| %s | %d (%d–%d) | %.1f (%.1f + %.1f) | %.1f–%.1f | %.2f (%.2f–%.2f) | %d | %d |\n", name, mr, r[1], r[n], mc,
                median(u, n), median(s, n), c[1], c[n], mq, q[1], q[n], median(p, n), bad }' "$work/rounds"
done
