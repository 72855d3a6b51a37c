#!/usr/bin/env bash
# Every check that a change must pass. Run it from anywhere: scripts/test.sh
#
# Needs Rust (the version in Cargo.toml), a C compiler, curl (the tests run the lines that `wxgate demo` prints), nginx and
# caddy (the tests put them in front), h2load and openssl (for real peers), Redis 7 and PostgreSQL 13 or newer (the tests
# start their own on free ports), valgrind (which counts instructions), Node 20 with npm and Chromium (the SDKs), Python 3.10
# with venv (an example, tokens, gRPC), and the network once for crates and packages. Where apt-get can be used, what is missing
# of the compiler, curl, nginx, caddy, h2load, openssl, Redis, PostgreSQL, valgrind, Chromium and venv is installed. cargo-deny,
# systemd-analyze and docker-compose are run when they are there.
#
# Every phase runs, also after one has failed. The last line is "N passed, N failed": all tests of the run, and one
# failure for each other phase that failed. Exit code 1 when anything failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The same for every phase, so that all share one target folder and nothing is built twice.
export CARGO_TERM_COLOR=never

. scripts/servers.sh

say() { printf '%s\n' "$*"; }

missing() {
    say "Missing: $1"
    say "0 passed, 1 failed"
    exit 1
}

# Runs a command as a phase; its output goes to the screen and to $work/<n>.log.
failed=()
phases=0
phase() {
    local name=$1
    shift
    phases=$((phases + 1))
    say ""
    say "== $name"
    # In an `if`, so that a failure is noted and the next phase runs.
    if "$@" 2>&1 | tee "$work/$phases.log"; then
        say "-- $name: ok"
    else
        failed+=("$name")
        say "-- $name: FAILED"
    fi
}

# A phase whose tests are counted one by one; when they do not even build or start, it counts once.
counted=()
counted_phase() {
    counted+=("$1:$((phases + 1))")
    phase "$@"
}

# --- what is needed ---------------------------------------------------------------------------------------------

need_rust() {
    if ! command -v cargo >/dev/null && [ -f "${CARGO_HOME:-$HOME/.cargo}/env" ]; then
        # shellcheck source=/dev/null
        . "${CARGO_HOME:-$HOME/.cargo}/env"
    fi
    command -v cargo >/dev/null || missing "cargo. Install Rust (https://rustup.rs), then run this again."
    local part
    for part in fmt:rustfmt clippy:clippy; do
        cargo "${part%%:*}" --version >/dev/null 2>&1 && continue
        command -v rustup >/dev/null || missing "${part##*:}. Install it beside your Rust toolchain."
        rustup component add "${part##*:}"
    done
}

need_cc() {
    command -v cc >/dev/null && return
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev
    else
        missing "a C compiler named cc. Install gcc or clang, and the C library's headers."
    fi
}

# Programs that the tests start beside the gateway: real ones, because their habits are what is tested.
need_program() {
    command -v "$1" >/dev/null && return
    [ -x "/usr/sbin/$1" ] && return
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2"
    else
        missing "$1. Install it (Debian: apt-get install $2), then run this again."
    fi
}

# Debian puts Postgres's programs beside the search path; the tests look there, too.
need_postgres() {
    command -v initdb >/dev/null && return
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null && return
    need_program initdb postgresql
}

# A real Chromium for the pages: $CHROMIUM, one that is installed, Debian's, or the one that playwright downloads.
need_chromium() {
    local name
    for name in "${CHROMIUM:-}" chromium chromium-browser google-chrome; do
        CHROMIUM=$(command -v "${name:-/nowhere}") && export CHROMIUM && return
    done
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] && apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; then
        CHROMIUM=$(command -v chromium)
    else
        need_npm && npx --yes playwright-core@1 install --with-deps chromium-headless-shell || return
        CHROMIUM=$(find "${PLAYWRIGHT_BROWSERS_PATH:-$HOME/.cache/ms-playwright}" -type f \( -name headless_shell -o -name chrome-headless-shell \) | head -n 1)
    fi
    [ -x "$CHROMIUM" ] && export CHROMIUM && return
    say "Missing: Chromium. Install it (Debian: apt-get install chromium), or name it in CHROMIUM."
    return 1
}

# --- phases -----------------------------------------------------------------------------------------------------

# `set -e` does not reach into what is called from an `if`, as phases are: a function says `|| return` itself.
shell_syntax() {
    local script
    for script in .ci/run scripts/*.sh; do
        bash -n "$script" || return
        say "$script"
    done
}

docs() { RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked --document-private-items; }

deny() { cargo deny --all-features check; }

# The units, with the binary of this build in place of the installed one, which has to be there.
units() {
    cargo build --locked || return
    local target=${CARGO_TARGET_DIR:-target}
    [[ $target == /* ]] || target=$PWD/$target
    mkdir -p "$work/units" || return
    sed "s#/usr/local/bin/wxgate#$target/debug/wxgate#" deploy/wxgate.service >"$work/units/wxgate.service" || return
    cp deploy/wxgate.socket "$work/units/" || return
    systemd-analyze verify "$work/units/wxgate.service" "$work/units/wxgate.socket"
}

compose() { WX_SECRET=secret POSTGRES_PASSWORD=secret docker-compose -f deploy/compose.yaml config --quiet; }

# The SDKs for mini programs and for web pages. Their tests run the built file against the gateway's own binary; those of
# the second run it in Chromium.

need_npm() {
    command -v npm >/dev/null && return
    say "Missing: npm. Install Node 20 or newer."
    return 1
}

sdk_build() {
    need_npm || return
    npm --prefix "$1" ci --ignore-scripts --no-audit --no-fund --loglevel=error || return
    npm --prefix "$1" run --silent check || return
    npm --prefix "$1" run --silent build || return
    say "$(wc -c <"$1/dist/index.js") bytes"
}

# Runs the tests of a folder, which start the gateway themselves.
node_tests() {
    cargo build --locked || return
    local target=${CARGO_TARGET_DIR:-target}
    [[ $target == /* ]] || target=$PWD/$target
    WXGATE=$target/debug/wxgate npm --prefix "$1" test --silent
}

sdk_tests() {
    need_npm || return
    node_tests "$1"
}

web_tests() {
    need_chromium || return
    sdk_tests sdk/web
}

# The operators' page.
page_tests() {
    need_chromium || return
    need_npm || return
    npm --prefix tests/page ci --ignore-scripts --no-audit --no-fund --loglevel=error || return
    node_tests tests/page
}

# What /openapi.json says, held against what the endpoints do.
openapi() {
    need_venv || return
    cargo build --locked || return
    local target=${CARGO_TARGET_DIR:-target}
    [[ $target == /* ]] || target=$PWD/$target
    WXGATE=$target/debug/wxgate scripts/openapi.sh
}

need_venv() {
    python3 -c 'import ensurepip' 2>/dev/null && return
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv
    else
        say "Missing: Python 3.10 or newer with venv (Debian: apt-get install python3-venv)."
        return 1
    fi
}

# Each example is started as a whole. What they share is made ready first, since their tests run at the same time.
examples() {
    need_npm && need_venv && need_chromium || return
    cargo build --locked --workspace || return
    npm --prefix examples/service-node ci --ignore-scripts --no-audit --no-fund --loglevel=error || return
    local target=${CARGO_TARGET_DIR:-target}
    [[ $target == /* ]] || target=$PWD/$target
    WXGATE=$target/debug/wxgate CARGO_TARGET_DIR=$target \
        node --test --test-reporter=tap --test-timeout=300000 \
        examples/services.test.mjs examples/miniprogram/test/pages.test.mjs examples/web/page.test.mjs
}

# Tokens in the hands of libraries that services use.
verifiers() {
    need_npm && need_venv || return
    python3 -m venv "$work/python" || return
    "$work/python/bin/pip" install --quiet --disable-pip-version-check 'pyjwt[crypto]==2.*' || return
    mkdir -p "$work/jose" && npm --prefix "$work/jose" install --ignore-scripts --no-audit --no-fund --loglevel=error jose@6 || return
    WXGATE_PYTHON=$work/python/bin/python WXGATE_JOSE=$work/jose \
        cargo test --locked --test gateway -- --ignored verifiers::
}

# Clients and services that others have written.
peers() {
    need_npm && need_venv || return
    cargo build --locked || return
    local target=${CARGO_TARGET_DIR:-target}
    [[ $target == /* ]] || target=$PWD/$target
    python3 -m venv "$work/peers" || return
    "$work/peers/bin/pip" install --quiet --disable-pip-version-check 'grpcio==1.*' || return
    mkdir -p "$work/ws" && npm --prefix "$work/ws" install --ignore-scripts --no-audit --no-fund --loglevel=error ws@8 || return
    WXGATE=$target/debug/wxgate scripts/peers.sh "$work/peers/bin/python" "$work/ws"
}

# What a request costs, counted and not timed; of the debug build, which is there.
instructions() {
    cargo build --locked || return
    scripts/instructions.sh --debug
}

need_rust
need_cc
need_program curl curl
need_program nginx nginx-light
need_program caddy caddy
need_program h2load nghttp2-client
need_program openssl openssl
need_program valgrind valgrind
need_program redis-server redis-server
need_program redis-cli redis-tools
need_postgres
cargo --version

phase "shell scripts" shell_syntax
phase "format" cargo fmt --all --check
phase "lints" cargo clippy --workspace --all-targets --locked -- -D warnings
phase "documentation" docs
counted_phase "tests" cargo test --locked --no-fail-fast
counted_phase "tokens, with PyJWT and jose" verifiers
phase "instructions of a request" instructions
counted_phase "h2load, curl, grpcio and ws" peers
phase "mini-program SDK: types and build" sdk_build sdk/miniprogram
counted_phase "mini-program SDK: tests" sdk_tests sdk/miniprogram
phase "web SDK: types and build" sdk_build sdk/web
counted_phase "web SDK: tests, in Chromium" web_tests
counted_phase "examples" examples
counted_phase "admin page, in Chromium" page_tests
phase "endpoints against /openapi.json" openapi
if compgen -G 'benches/*.rs' >/dev/null; then
    phase "benches build" cargo build --benches --locked
fi
if command -v cargo-deny >/dev/null; then
    phase "dependencies" deny
else
    say ""
    say "== dependencies: skipped, cargo-deny is not installed"
fi

# Checked with the tools that are there.
if command -v systemd-analyze >/dev/null; then
    phase "systemd units" units
else
    say ""
    say "== systemd units: skipped, systemd-analyze is not installed"
fi
if command -v docker-compose >/dev/null; then
    phase "compose file" compose
else
    say ""
    say "== compose file: skipped, docker-compose is not installed"
fi

# --- result -----------------------------------------------------------------------------------------------------

# cargo prints one such line for each test binary and for the doc tests:
# test result: ok. 23 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.02s
# node prints, at the end: "# pass 23", "# fail 0", "# cancelled 0".
count() {
    awk '
        /^test result: / {
            for (i = 2; i <= NF; i++) {
                if ($i == "passed;") passed += $(i - 1)
                if ($i == "failed;") failed += $(i - 1)
            }
        }
        /^# pass [0-9]+$/ { passed += $3 }
        /^# (fail|cancelled) [0-9]+$/ { failed += $3 }
        END { print passed + 0, failed + 0 }' "$1"
}
passed=0
not_passed=0
has_failed_tests=" "
for each in "${counted[@]}"; do
    read -r good bad < <(count "$work/${each##*:}.log")
    passed=$((passed + good))
    not_passed=$((not_passed + bad))
    [ "$bad" = 0 ] || has_failed_tests+="[${each%:*}] "
done

say ""
for name in ${failed[@]+"${failed[@]}"}; do
    say "FAILED: $name"
    [[ $has_failed_tests == *"[$name]"* ]] || not_passed=$((not_passed + 1))
done
if [ "$passed" = 0 ] && [ "$not_passed" = 0 ]; then
    say "FAILED: no test ran"
    not_passed=1
fi
say "$passed passed, $not_passed failed"
[ "$not_passed" = 0 ]
