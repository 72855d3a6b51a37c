# shellcheck shell=bash
# What a gateway needs around it to be asked by people who log in: nginx as the service, the built-in simulator as WeChat, and a
# configuration with its defaults in $work/gateway.toml. Source it after scripts/servers.sh with `binary` set. The gateway itself is
# started by whoever sources this; its port is in $port, the simulator's in $simulator, the service's in $base.

chmod 755 "$work"
base=${BENCH_PORT:-$(free_ports 5)}
port=$((base + 1)) simulator=$((base + 4))
sed -e "s|@UPSTREAM@|$base|g; s|@WORK@|$work|g; s|@SMALL@|$(printf '{"n":"%0190d"}' 0)|" benches/peers/upstream.conf >"$work/upstream.conf"
mkdir -m 700 "$work/state"
sed -e "s|@PORT@|$port|; s|@ADMIN@|$((base + 2))|; s|@INTERNAL@|$((base + 3))|; s|@UPSTREAM@|$base|; s|@STATE@|$work/state|g" \
    -e "s|@ISSUER@|http://127.0.0.1:$port|; s|@AUDIENCE@|wxgate|" benches/peers/wxgate.toml >"$work/gateway.toml"
printf '[wechat]\napi_base = "http://127.0.0.1:%s"\n' "$simulator" >>"$work/gateway.toml"
nginx -e stderr -c "$work/upstream.conf" &
pids+=($!)
"$binary" simulate --listen "127.0.0.1:$simulator" >"$work/simulator.log" 2>&1 &
pids+=($!)

# Asks until there is an answer; fails where it is a refusal.
ask() { curl -sf --retry 120 --retry-delay 1 --retry-connrefused --max-time 60 "$@"; }
