#!/usr/bin/env bash
# Builds wxgate as it is released: the compiler is told what a gateway under load does most (profile-guided optimisation).
#
#   scripts/release.sh [OUT]             default: target/profiled/wxgate
#
# Two builds and half a minute of work between them: a build that counts what it executes, then logins, proxied requests with
# tokens known and new, with and without bodies, by HTTP/1.1 and HTTP/2, new connections, refreshes and refusals against it, then
# the build that uses the counts. The source is the same as for `cargo build --release`, and so is what the gateway does; only the
# machine code is laid out by what is used. Needs curl, nginx, wrk and h2load (apt-get install curl nginx wrk nghttp2-client), and the compiler's llvm-tools, which it adds with
# rustup where they are missing. The last line names the binary.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=${1:-target/profiled/wxgate}
case $out in
    -*) echo "Unknown option $out; the head of this file says how it is used." >&2; exit 64 ;;
esac
. scripts/servers.sh
for tool in curl nginx wrk h2load rustc cargo; do
    command -v "$tool" >/dev/null || { echo "Missing: $tool (apt-get install curl nginx wrk nghttp2-client; https://rustup.rs)" >&2; exit 1; }
done
host=$(rustc -vV | sed -n 's/^host: //p')
profdata=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata
[ -x "$profdata" ] || rustup component add llvm-tools
build=${CARGO_TARGET_DIR:-target}/profiled
mkdir -p "$build"
build=$(cd "$build" && pwd)
counts=$build/counts
rm -rf "$counts"

# With --target the flags are for the gateway alone, and not for what runs while it is built.
compile() {
    CARGO_TARGET_DIR=$build/$1 RUSTFLAGS="${RUSTFLAGS:-} $2" cargo build --release --locked --bin wxgate --target "$host"
}
compile counting "-Cprofile-generate=$counts"
binary=$build/counting/$host/release/wxgate

head -c 100000 /dev/zero >"$work/100k"
. scripts/surroundings.sh
LLVM_PROFILE_FILE=$counts/gateway-%p.profraw "$binary" serve --config "$work/gateway.toml" >"$work/gateway.log" 2>&1 &
gateway=$!
pids+=("$gateway")

field() { sed "s/.*\"$1\":\"\([^\"]*\)\".*/\1/"; }
ask "http://127.0.0.1:$port/healthz" >/dev/null
for n in $(seq 200); do
    code=$(ask "http://127.0.0.1:$simulator/_sim/code?user=person$n" | field code)
    ask -H 'Content-Type: application/json' -d "{\"code\":\"$code\"}" "http://127.0.0.1:$port/auth/login" >"$work/pair"
    refresh=$(field refresh_token <"$work/pair")
    echo "$(ask -H 'Content-Type: application/json' -d "{\"refresh_token\":\"$refresh\"}" "http://127.0.0.1:$port/auth/refresh" |
        field access_token)" >>"$work/tokens"
done
token=$(head -n 1 "$work/tokens")
# load CONNECTIONS SECONDS TARGET: requests with these tokens.
load() { TARGET=$3 wrk -t1 -c"$1" -d"$2s" -s benches/peers/load.lua "http://127.0.0.1:$port" >>"$work/load.log"; }
export TOKENS=$work/tokens
load 64 12 '/api/v1/orders?page=1'
# After a reload every token is verified anew, as those are that were not seen before.
(for _ in $(seq 40); do kill -HUP "$gateway"; sleep 0.05; done) &
load 64 2 /api/v1/orders
wait $!
BODY=1024 load 64 3 /upload
load 32 2 /100k
CLOSE=1 load 64 3 /api/v1/orders
h2load -D 4 -c 8 -m 16 -H "authorization: Bearer $token" "http://127.0.0.1:$port/api/v1/orders" >>"$work/load.log"
echo no.valid.token >"$work/bad"
TOKENS=$work/bad load 16 1 /api/v1/orders
kill -TERM "$gateway"
wait "$gateway" || true

"$profdata" merge -o "$counts/all.profdata" "$counts"/*.profraw
compile using "-Cprofile-use=$counts/all.profdata"
mkdir -p "$(dirname "$out")"
cp "$build/using/$host/release/wxgate" "$out"
echo "release: $out"
