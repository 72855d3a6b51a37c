#!/usr/bin/env bash
# What a request costs where there is much of something, against where there is little: scripts/growth.sh
#
#   scripts/growth.sh [--cpu] [--only NAME,NAME] [--requests 2000] [--rounds 8] [--secs 2] [--wxgate BINARY]
#
# Cases: routes-100, routes-10000, servers-1000, sessions-1000000, revocations-1000000, connections-10000; each beside "one", which is
# one route, one server, nobody logged in, ten connections. Goal: flat, or logarithmic.
#
# By instructions, as scripts/instructions.sh counts them (valgrind: a busy machine changes nothing, but what the kernel does and
# what memory takes is not seen); connections, tokens (100), routes and servers are used in turn. With --cpu by CPU time per
# request instead, kernel and memory included, on a quiet machine of two cores: wrk with 64 connections, all cases in alternating
# rounds; connections-10000 are held by somebody else meanwhile. A gateway without valgrind also says how soon it was ready, and
# with how much memory. Sessions and revocations are written into SQLite's tables directly. Needs valgrind (or wrk), nginx, openssl,
# python3, curl, taskset, and 25,000 file descriptors for the connections.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

by=instructions only='' requests=2000 rounds=8 secs=2 binaries=()
while [ $# -gt 0 ]; do
    case $1 in
        --cpu) by=cpu; shift; continue ;;
        --only) only=$2 ;;
        --requests) requests=$2 ;;
        --rounds) rounds=$2 ;;
        --secs) secs=$2 ;;
        --wxgate) binaries=("$2") ;;
        *) echo "Unknown option $1; the head of this file names them." >&2; exit 64 ;;
    esac
    shift 2
done
if [ $by = instructions ]; then
    command -v valgrind >/dev/null || { echo "Missing: valgrind (apt-get install valgrind)" >&2; exit 1; }
fi
ulimit -n "$(ulimit -Hn)"

. scripts/servers.sh
. scripts/proxies.sh
binary=${binaries[0]}
cases=(one routes-100 routes-10000 servers-1000 sessions-1000000 revocations-1000000 connections-10000)
[ -z "$only" ] || IFS=, read -ra cases <<<"one,$only"
for case in "${cases[@]}"; do
    case $case in one | routes-[0-9]* | servers-[0-9]* | sessions-[0-9]* | revocations-[0-9]* | connections-[0-9]*) ;; *)
        echo "Unknown case $case; the head of this file names them." >&2
        exit 64
        ;;
    esac
done

# The n-th address of loopback: 127.0.0.1, 127.0.0.2, … 127.0.3.232.
addresses() { awk -v n="$1" 'BEGIN { for (i = 1; i <= n; i++) printf "127.0.%d.%d\n", i / 256, i % 256 }'; }
most=1
for case in "${cases[@]}"; do case $case in servers-*) [ "${case#*-}" -le $most ] || most=${case#*-} ;; esac; done

fill upstream.conf upstream.conf
# The service is at each of these addresses.
addresses "$most" | sed "s|.*|        listen &:$upstream;|" >"$work/listen"
sed -i -e "/listen 127/{r $work/listen
d}" "$work/upstream.conf"
start 1 nginx -e stderr -c "$work/upstream.conf"
listening "$upstream"
make_tokens "$([ $by = cpu ] && echo 1000 || echo 100)"

# Writes the configuration of a case, its keys, and what is in its database.
prepare() { # case; its port is in $port
    local n=${1#*-} file="$1.toml"
    fill wxgate.toml "$file"
    # Under valgrind it takes its time until a connection's turn comes again.
    sed -i 's/^workers = .*/&\nkeep_alive = "1h"/' "$work/$file"
    mkdir -m 700 "$work/$file.state"
    "$binary" keys import --config "$work/$file" --hs256 "$work/secret" >>"$work/out.log"
    case $1 in
        routes-*) awk -v n="$n" 'BEGIN { for (i = 0; i < n; i++) printf "[[route]]\npath = \"/r%d/*\"\nupstream = \"bench\"\n", i }' >>"$work/$file" ;;
        servers-*)
            sed -i "s|^servers = .*|servers = [$(addresses "$n" | sed "s|.*|\"http://&:$upstream\"|" | paste -sd,)]|" "$work/$file"
            ;;
        sessions-* | revocations-*)
            # The first start makes the tables.
            "$binary" serve --config "$work/$file" >"$work/$1.first" 2>&1 &
            local first=$!
            pids+=("$first")
            listening "$port"
            kill "$first"
            wait "$first" || true
            python3 - "$work/$file.state/wxgate.db" "${1%-*}" "$n" <<'PY'
import sqlite3, sys, time
file, what, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
db = sqlite3.connect(file, isolation_level=None)
now = int(time.time() * 1000)
end = now + 30 * 86_400_000
ids = (f"{now - i:012x}" for i in range(n))
ids = (f"{hex[:8]}-{hex[8:]}-7000-8000-{i:012d}" for i, hex in enumerate(ids))
db.execute("BEGIN")
if what == "revocations":
    db.executemany("INSERT INTO revocations VALUES (?, ?)", ((id, now + 7_200_000) for id in ids))
else:
    db.executemany(
        "INSERT INTO sessions (session_id, member_id, appid, openid, created_at, expires_at, access_until) "
        "VALUES (?, 'm' || ?, 'wx0123456789abcdef', 'o' || ?, ?, ?, ?)",
        ((id, i, i, now, end, now + 7_200_000) for i, id in enumerate(ids)),
    )
    db.executemany(
        "INSERT INTO refresh_tokens (hash, session_id, issued_at, expires_at) SELECT ?, ?, ?, ?",
        ((i.to_bytes(32), f"s{i}", now, end) for i in range(n)),
    )
db.execute("COMMIT")
PY
            ;;
    esac
}

# Asks in turn: so many times, on so many connections, below so many routes; with "hold" it stays when it is done.
cat >"$work/ask.py" <<'PY'
import socket, sys
port, tokens, times, connections, routes = int(sys.argv[1]), open(sys.argv[2]).read().split(), *map(int, sys.argv[3:6])
held = []
head = (
    "Host: bench.example.test\r\nAccept: */*\r\nAccept-Language: zh-CN,zh;q=0.9\r\nContent-Type: application/json\r\n"
    "User-Agent: Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 MicroMessenger/8.0.49 NetType/WIFI\r\n"
    "Referer: https://servicewechat.com/wx0123456789abcdef/17/page-frame.html\r\nX-WX-OPENID: forged\r\n\r\n"
)
def ask(n):
    if len(held) < connections:
        held.append(socket.create_connection(("127.0.0.1", port)))
    at = held[n % connections]
    path = f"/r{n * 7919 % routes}/orders" if routes else "/api/orders"
    at.sendall(f"GET {path}?page=1 HTTP/1.1\r\nAuthorization: Bearer {tokens[n % len(tokens)]}\r\n{head}".encode())
    answer = b""
    while b"\r\n\r\n{" not in answer or not answer.endswith(b"}"):
        more = at.recv(65536)
        assert more, f"request {n}: {answer}"
        answer += more
    assert answer.startswith(b"HTTP/1.1 200 "), answer
def many(from_, times):
    for n in range(from_, from_ + times):
        ask(n)
# Everything is used before it counts.
warm = max(500, connections, int(sys.argv[6]))
many(0, warm)
print("warm", flush=True)
for line in sys.stdin:
    many(warm, times)
    print("done", flush=True)
PY

shape() { # case -> connections, routes, requests before it counts
    local n=${1#*-}
    case $1 in
        routes-*) echo "10 $n 1000" ;;
        # Drawn at random: after eight times as many hardly one has never been asked.
        servers-*) echo "10 0 $((n * 8))" ;;
        connections-*) echo "$n 0 0" ;;
        *) echo "10 0 0" ;;
    esac
}

machine
if [ $by = instructions ]; then
    echo "| | instructions/request | over one |"
    echo "| --- | ---: | ---: |"
    for case in "${cases[@]}"; do
        port=$((port + 10))
        prepare "$case"
        valgrind --tool=callgrind --instr-atstart=no --callgrind-out-file="$work/$case.counted" \
            "$binary" serve --config "$work/$case.toml" >"$work/$case.log" 2>&1 &
        gateway=$!
        pids+=("$gateway")
        await "$work/$case.log" '.*\(wxgate is ready\).*' 600 "$gateway" >/dev/null
        read -r connections routes warm <<<"$(shape "$case")"
        mkfifo "$work/$case.go"
        python3 "$work/ask.py" "$port" "$work/tokens" "$requests" "$connections" "$routes" "$warm" \
            <"$work/$case.go" >"$work/$case.asked" 2>&1 &
        asking=$!
        pids+=("$asking")
        exec 9>"$work/$case.go"
        await "$work/$case.asked" '\(warm\)' 600 "$asking" >/dev/null
        callgrind_control -i on "$gateway" >/dev/null 2>&1
        echo go >&9
        await "$work/$case.asked" '\(done\)' 600 "$asking" >/dev/null
        callgrind_control -i off "$gateway" >/dev/null 2>&1
        exec 9>&-
        wait "$asking"
        kill -TERM "$gateway"
        wait "$gateway" || true
        found=$(($(awk '/^(summary|totals):/ {n = $2} END {print n}' "$work/$case.counted") / requests))
        [ "$case" != one ] || first=$found
        awk -v name="$case" -v n="$found" -v first="$first" 'BEGIN { printf "| %s | %d | %+.1f %% |\n", name, n, 100 * (n - first) / first }'
        [ -z "${GROWTH_KEEP:-}" ] || cp "$work/$case.counted" "$GROWTH_KEEP/"
    done
    exit
fi

echo "| | ready after, ms | memory, MiB |"
echo "| --- | ---: | ---: |"
for case in "${cases[@]}"; do
    port=$((port + 10))
    prepare "$case"
    begun=$(date +%s%N)
    start 0 "$binary" serve --config "$work/$case.toml"
    until curl -sf -o /dev/null "http://127.0.0.1:$port/healthz"; do
        kill -0 "${pids[-1]}" || { tail -n 3 "$work/out.log" >&2; exit 1; }
    done
    ready=$((($(date +%s%N) - begun) / 1000000))
    add "$case" "$port" 1
    awk -v name="$case" -v ready="$ready" -v kib="$(resident "${pids[-1]}")" 'BEGIN { printf "| %s | %d | %.1f |\n", name, ready, kib / 1024 }'
    case $case in connections-*)
        mkfifo "$work/hold"
        python3 "$work/ask.py" "$port" "$work/tokens" 0 "${case#*-}" 0 0 <"$work/hold" >"$work/held" 2>&1 &
        holder=$!
        pids+=("$holder")
        exec 8>"$work/hold"
        await "$work/held" '\(warm\)' 120 "$holder" >/dev/null
        ;;
    esac
done
export TOKENS="$work/tokens" TARGET='/api/orders?page=1'
run() { # index, seconds -> index, ticks, requests, errors
    local before after result routes
    read -r _ routes _ <<<"$(shape "${names[$1]}")"
    before=$(ticks "${ids[$1]}")
    result=$(ROUTES=$routes taskset -c 1 wrk -t1 -c 64 -d "${2}s" -s benches/peers/load.lua "http://127.0.0.1:${ports[$1]}" |
        awk '/^RESULT/ {print $2, $5}')
    after=$(ticks "${ids[$1]}")
    echo "$1 $before $after $result"
}
for i in "${!names[@]}"; do run "$i" 2 >/dev/null; done
for _ in $(seq "$rounds"); do
    for i in "${!names[@]}"; do run "$i" "$secs"; done
done >"$work/rounds"
echo
echo "load $(cut -d' ' -f1 /proc/loadavg) after; $rounds rounds of ${secs} s, median (min–max); over one: round by round"
echo "| | CPU µs/request | over one | errors |"
echo "| --- | --- | --- | --- |"
for i in "${!names[@]}"; do
    awk -v want="$i" -v hz="$hz" -v name="${names[$i]}" "$median_awk"'
        { cost = ($4 + $5 - $2 - $3) * 1e6 / hz / $6; round[$1]++ }
        $1 == 0 { base[round[0]] = cost }
        $1 == want { n++; c[n] = cost; over[n] = cost / base[n]; bad += $7 }
        END { m = median(c, n); o = median(over, n)
            printf "| %s | %.1f (%.1f–%.1f) | %.2f (%.2f–%.2f) | %d |\n", name, m, c[1], c[n], o, over[1], over[n], bad }' "$work/rounds"
done
