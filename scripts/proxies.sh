# shellcheck shell=bash
# The gateway and other proxies side by side, for the scripts that measure: starts each on core 0, the service behind them on core
# 1, makes tokens, and proves that those which check tokens do. Source it after scripts/servers.sh with `binaries`, the
# gateway's builds, filled. What is started is in `names`, `ports`, `ids` (process ids) and `checked` (1: reads the token).

for tool in wrk nginx openssl python3 taskset curl; do
    command -v "$tool" >/dev/null || { echo "Missing: $tool (apt-get install wrk nginx openssl python3 util-linux curl)" >&2; exit 1; }
done
if [ ${#binaries[@]} -eq 0 ]; then
    cargo build --release --locked --bin wxgate
    binaries=("${CARGO_TARGET_DIR:-target}/release/wxgate")
fi

issuer=https://auth.example.test audience=wxgate base=${BENCH_PORT:-$(free_ports 90)}
upstream=$base
port=$base
secret=$(openssl rand -hex 32)
printf %s "$secret" >"$work/secret"
small=$(printf '{"orders":[%s]}' "$(printf '"%s",' {1000..1025} | head -c 187)" | tr -d '\n')
chmod 755 "$work"

fill() { # template, file: writes it with @NAME@ filled in
    sed -e "s|@PORT@|${port:-0}|g; s|@ADMIN@|$((${port:-0} + 1))|g; s|@INTERNAL@|$((${port:-0} + 2))|g" \
        -e "s|@UPSTREAM@|$upstream|g; s|@WORK@|$work|g; s|@STATE@|$work/$2.state|g; s|@SMALL@|$small|g" \
        -e "s|@SECRET@|$secret|g; s|@ISSUER@|$issuer|g; s|@AUDIENCE@|$audience|g" "benches/peers/$1" >"$work/$2"
}

# Prints tokens (HS256) of that many people, good for so many seconds from now.
tokens() { # how many, seconds
    python3 - "$secret" "$issuer" "$audience" "$1" "$2" <<'PY'
import base64, hashlib, hmac, json, sys, time
secret, issuer, audience, many, life = sys.argv[1].encode(), sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")
def text(value):
    return json.dumps(value, separators=(",", ":")).encode()
# The key's id (RFC 7638), by which the gateway finds it.
kid = encode(hashlib.sha256(text({"k": encode(secret).decode(), "kty": "oct"})).digest()).decode()
now, app = int(time.time()), "wx0123456789abcdef"
head = encode(text({"typ": "at+jwt", "alg": "HS256", "kid": kid}))
for n in range(1, many + 1):
    claims = {"iss": issuer, "aud": audience, "sub": f"0192f5a0-0000-7000-8000-{n:012d}", "client_id": app, "appid": app,
              "openid": f"o6_bmasdasdsad6_2s{n:08d}", "unionid": f"oGZUI0egBJY1zhBYw2KhdU{n:06d}",
              "sid": f"0192f5a1-0000-7000-8000-{n:012d}", "jti": f"{n:022d}", "auth_time": now, "iat": now, "exp": now + life}
    signed = head + b"." + encode(text(claims))
    print((signed + b"." + encode(hmac.digest(secret, signed, "sha256"))).decode())
PY
}

start() { # core, command...: a process that is ended with the script
    taskset -c "$1" "${@:2}" >>"$work/out.log" 2>&1 &
    pids+=($!)
}
listening() { # port
    for _ in $(seq 200); do
        (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
        sleep 0.05
    done
    echo "Nothing listens on $1:" >&2
    tail -5 "$work/out.log" >&2
    exit 1
}

# The service: short JSON, files of 100 KB and 10 MB, and one that takes a body whole before it answers.
start_service() {
    head -c 102400 /dev/zero | tr '\0' x >"$work/100k"
    head -c 10000000 /dev/zero | tr '\0' x >"$work/10m"
    fill upstream.conf upstream.conf
    start 1 nginx -e stderr -c "$work/upstream.conf"
    listening "$upstream"
}

names=() ports=() ids=() checked=()
add() { # name, port, whether it checks tokens (1 or 0)
    listening "$2"
    names+=("$1") ports+=("$2") ids+=("${pids[-1]}") checked+=("$3")
}
start_gateways() {
    local binary name
    for binary in "${binaries[@]}"; do
        port=$((port + 10)) name=wxgate
        [ ${#binaries[@]} -eq 1 ] || name="wxgate ($binary)"
        fill wxgate.toml "wxgate$port.toml"
        mkdir -m 700 "$work/wxgate$port.toml.state"
        "$binary" keys import --config "$work/wxgate$port.toml" --hs256 "$work/secret" >"$work/imported"
        start 0 "$binary" serve --config "$work/wxgate$port.toml"
        add "$name" "$port" 1
    done
}
start_haproxy() { # haproxy-jwt or haproxy-tcp
    port=$((port + 10))
    fill "$1.cfg" "$1.cfg"
    start 0 haproxy -db -f "$work/$1.cfg"
    add "$1" "$port" "$([ "$1" = haproxy-jwt ] && echo 1 || echo 0)"
}
start_nginx() {
    port=$((port + 10))
    fill nginx.conf nginx.conf
    start 0 nginx -e stderr -c "$work/nginx.conf"
    add "nginx, no token" "$port" 0
}
# Everything that is installed.
start_all() {
    start_gateways
    if command -v haproxy >/dev/null; then
        start_haproxy haproxy-jwt
        start_haproxy haproxy-tcp
    fi
    start_nginx
}

make_tokens() { # how many; good for a day, in $work/tokens
    tokens "$1" 86400 >"$work/tokens"
}

ask() { # port, token -> status and body
    curl -s -o - -w ' %{http_code}' -H "Authorization: Bearer $2" -H 'X-WX-OPENID: forged' "http://127.0.0.1:$1/echo"
}
# A good token is taken, its caller named to the service, whatever the client claimed; a bad one is refused.
check_all() {
    local i bad good expired
    good=$(head -n 1 "$work/tokens")
    expired=$(tokens 1 -10)
    for i in "${!names[@]}"; do
        [ "${checked[$i]}" = 1 ] || continue
        [ "$(ask "${ports[$i]}" "$good")" = 'openid=o6_bmasdasdsad6_2s00000001 200' ] ||
            { echo "${names[$i]} does not take a good token: $(ask "${ports[$i]}" "$good")" >&2; exit 1; }
        for bad in "$expired" "${good}x" ''; do
            case "$(ask "${ports[$i]}" "$bad")" in *401) ;; *) echo "${names[$i]} takes a bad token" >&2; exit 1 ;; esac
        done
    done
}

tree() { # a process and its children
    local child
    echo "$1"
    for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do tree "$child"; done
}
ticks() { # user and system time of a process and its children, in ticks
    local pid
    for pid in $(tree "$1"); do sed 's/.*) //' "/proc/$pid/stat"; done | awk '{u += $12; s += $13} END {print u, s}'
}
hz=$(getconf CLK_TCK)
resident() { # KiB of a process and its children
    local pid
    for pid in $(tree "$1"); do awk '/^VmRSS/ {print $2}' "/proc/$pid/status"; done | awk '{n += $1} END {print n}'
}

machine() {
    echo "$(nproc) cores, $(awk -F: '/model name/ {print $2; exit}' /proc/cpuinfo | xargs), Linux $(uname -r); load $(cut -d' ' -f1 /proc/loadavg) before"
}

# For tables: sorts a[1..n], returns the median.
median_awk='
function median(a, n,   i, j, t) {
    for (i = 1; i <= n; i++) for (j = i + 1; j <= n; j++) if (a[j] < a[i]) { t = a[i]; a[i] = a[j]; a[j] = t }
    return n % 2 ? a[(n + 1) / 2] : (a[n / 2] + a[n / 2 + 1]) / 2
}'
