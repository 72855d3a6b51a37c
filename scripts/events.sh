#!/usr/bin/env bash
# Many event streams at once, through the gateway and other proxies: memory of each stream, CPU of each event: scripts/events.sh
#
#   scripts/events.sh [--streams 1000] [--each 10] [--rounds 8] [--secs 5] [--wxgate BINARY]...
#
# Each stream gets --each events of some 100 bytes a second, spread over the second; its client reads them all. In each round and
# for each proxy, streams are opened (as many callers), held for --secs, and closed. Memory is that of the proxy's process with
# all of them open less that before, at the first round; CPU is user and system time over the events that arrived. An event that
# is not read within 5 s is a fault. Proxies run on core 0, service and clients (python3, epoll) on core 1. Takes part what is
# installed of haproxy (with the token checked, and as a relay of bytes) and nginx (no token; unbuffered, as the service asks).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

streams=1000 each=10 rounds=8 secs=5 binaries=()
while [ $# -gt 0 ]; do
    case $1 in
        --streams) streams=$2 ;;
        --each) each=$2 ;;
        --rounds) rounds=$2 ;;
        --secs) secs=$2 ;;
        --wxgate) binaries+=("$2") ;;
        *) echo "Unknown option $1; the head of this file names them." >&2; exit 64 ;;
    esac
    shift 2
done
ulimit -n "$(ulimit -Hn)"

. scripts/servers.sh
. scripts/proxies.sh

# Whoever asks for /events gets events for ever; everything else is answered as the service of scripts/bench.sh does.
cat >"$work/service.py" <<'PY'
import select, socket, sys, time
port, each = int(sys.argv[1]), float(sys.argv[2])
listener = socket.create_server(("127.0.0.1", port), backlog=4096)
listener.setblocking(False)
epoll = select.epoll()
epoll.register(listener, select.EPOLLIN)
SLOTS = 100  # of a period: who joined n-th is served in slot n % SLOTS
known, slots, joined = {}, [set() for _ in range(SLOTS)], 0
text = b"data: {\"orders\":[" + b"1000," * 15 + b"1000]}\n\n"
event = b"%x\r\n%s\r\n" % (len(text), text)
head = (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nX-Accel-Buffering: no\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n")

def forget(number):
    client, _, slot = known.pop(number)
    slots[slot].discard(number)
    client.close()

begun, served = time.monotonic(), 0
while True:
    due = begun + served / each / SLOTS
    for number, _ in epoll.poll(max(0, due - time.monotonic())):
        if number == listener.fileno():
            client, _ = listener.accept()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            known[client.fileno()] = [client, b"", joined % SLOTS]
            joined += 1
            epoll.register(client, select.EPOLLIN)
            continue
        client, come, slot = known[number]
        try:
            part = client.recv(65536)
        except ConnectionError:
            part = b""
        if not part:
            forget(number)
            continue
        come += part
        while b"\r\n\r\n" in come:
            asked, come = come.split(b"\r\n\r\n", 1)
            if asked.startswith(b"GET /events "):
                client.sendall(head)
                slots[slot].add(number)
            else:
                openid = [l.split(b": ", 1)[1] for l in asked.split(b"\r\n") if l.lower().startswith(b"x-wx-openid: ")]
                body = b"openid=" + b"".join(openid)
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        known[number][1] = come
    while time.monotonic() >= begun + served / each / SLOTS:
        for number in list(slots[served % SLOTS]):
            try:
                known[number][0].sendall(event)
            except ConnectionError:
                forget(number)
        served += 1
PY
# Opens streams; says "open" when each has had an event, and from then on, at each line of input, how many events came and the
# longest that any stream has been silent.
cat >"$work/clients.py" <<'PY'
import select, socket, sys, time
port, tokens, streams = int(sys.argv[1]), open(sys.argv[2]).read().split(), int(sys.argv[3])
epoll, clients, last = select.epoll(), {}, {}
events, silent, opened = 0, 0.0, False
for n in range(streams):
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(f"GET /events HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\nAuthorization: Bearer {tokens[n % len(tokens)]}\r\n\r\n".encode())
    clients[client.fileno()] = client
    epoll.register(client, select.EPOLLIN)
epoll.register(sys.stdin, select.EPOLLIN)
while True:
    for number, _ in epoll.poll():
        if number == sys.stdin.fileno():
            if not sys.stdin.readline():
                sys.exit()
            now = time.monotonic()
            print("figures", events, max(silent, max(now - at for at in last.values())), flush=True)
            events, silent = 0, 0.0
            continue
        part = clients[number].recv(65536)
        assert part and b"HTTP/1.1 4" not in part and b"HTTP/1.1 5" not in part, part
        now, found = time.monotonic(), part.count(b"data: ")
        if not found:
            continue
        events += found
        if number in last:
            silent = max(silent, now - last[number])
        last[number] = now
        if not opened and len(last) == streams:
            print("open", flush=True)
            opened = True
PY
start 1 python3 "$work/service.py" "$upstream" "$each"
listening "$upstream"
start_all
make_tokens "$streams"
check_all

machine
run() { # index -> index, KiB before and with all open, ticks before and after, events, longest silence
    local before during from to events silent clients
    before=$(resident "${ids[$1]}")
    rm -f "$work/go" && mkfifo "$work/go"
    : >"$work/said"
    taskset -c 1 python3 "$work/clients.py" "${ports[$1]}" "$work/tokens" "$streams" <"$work/go" >>"$work/said" 2>&1 &
    clients=$!
    exec 9>"$work/go"
    await "$work/said" '\(open\)' 60 >/dev/null || return
    echo >&9
    await "$work/said" 'figures \(.*\)' >/dev/null || return
    : >"$work/said"
    from=$(ticks "${ids[$1]}")
    sleep "$secs"
    to=$(ticks "${ids[$1]}")
    echo >&9
    read -r events silent <<<"$(await "$work/said" 'figures \(.*\)')"
    during=$(resident "${ids[$1]}")
    exec 9>&-
    wait "$clients" || { cat "$work/said" >&2; return 1; }
    echo "$1 $before $during $from $to $events $silent"
}
for i in "${!names[@]}"; do run "$i"; done >"$work/first"
for _ in $(seq "$rounds"); do
    for i in "${!names[@]}"; do run "$i"; done
done >"$work/rounds"
echo "load $(cut -d' ' -f1 /proc/loadavg) after; $streams streams with $each events a second each, $rounds rounds of ${secs} s; ratio: CPU of haproxy-jwt over that of the row, round by round"
reference=0
for i in "${!names[@]}"; do [ "${names[$i]}" = haproxy-jwt ] && reference=$i; done
echo "| | KiB each stream | CPU µs/event (min–max) | ratio (min–max) | events/s | longest silence, s |"
echo "| --- | --- | --- | --- | --- | --- |"
for i in "${!names[@]}"; do
    awk -v want="$i" -v reference="$reference" -v hz="$hz" -v name="${names[$i]}" -v streams="$streams" -v secs="$secs" "$median_awk"'
        FNR == NR { if ($1 == want) each = ($3 - $2) / streams; next }
        { cost = ($6 + $7 - $4 - $5) * 1e6 / hz / $8; round[$1]++ }
        $1 == reference { base[round[$1]] = cost }
        $1 == want { n++; c[n] = cost; at[n] = cost; r[n] = $8 / secs; if ($9 > silent) silent = $9 }
        END { for (k = 1; k <= n; k++) q[k] = base[k] / at[k]
            mc = median(c, n); mq = median(q, n)
            printf "| %s | %.1f | %.1f (%.1f–%.1f) | %.2f (%.2f–%.2f) | %d | %.1f |\n", name, each, mc, c[1], c[n], mq, q[1], q[n], median(r, n), silent }' \
        "$work/first" "$work/rounds"
done
awk '$9 > 5 { bad = 1 } END { exit bad }' "$work/rounds" || { echo "An event was more than 5 s late." >&2; exit 1; }
