#!/usr/bin/env bash
# Every check that a change must pass. Run it from anywhere: scripts/test.sh
#
# Needs Rust (the version in Cargo.toml), a C compiler, curl (the tests run the lines that `wxgate demo` prints), and the
# network once for the crates. Where apt-get can be used, a missing compiler or curl is installed. cargo-deny is run when it is there.
#
# Every phase runs, also after one has failed. The last line is "N passed, N failed": all tests of the run, and one
# failure for each other phase that failed. Exit code 1 when anything failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The same for every phase, so that all share one target folder and nothing is built twice.
export CARGO_TERM_COLOR=never

work=$(mktemp -d)
pids=() # servers that a phase has started (on free ports): ended with the script
cleanup() {
    for pid in ${pids[@]+"${pids[@]}"}; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

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

need_curl() {
    command -v curl >/dev/null && return
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        apt-get update -qq && apt-get install -y -qq --no-install-recommends curl
    else
        missing "curl. Install it, then run this again."
    fi
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

need_rust
need_cc
need_curl
cargo --version

phase "shell scripts" shell_syntax
phase "format" cargo fmt --check
phase "lints" cargo clippy --all-targets --locked -- -D warnings
phase "documentation" docs
phase "tests" cargo test --locked --no-fail-fast
tests_log=$work/$phases.log
if compgen -G 'benches/*.rs' >/dev/null; then
    phase "benches build" cargo build --benches --locked
fi
if command -v cargo-deny >/dev/null; then
    phase "dependencies" deny
else
    say ""
    say "== dependencies: skipped, cargo-deny is not installed"
fi

# --- result -----------------------------------------------------------------------------------------------------

# cargo prints one such line for each test binary and for the doc tests:
# test result: ok. 23 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.02s
read -r passed not_passed < <(awk '
    /^test result: / {
        for (i = 2; i <= NF; i++) {
            if ($i == "passed;") passed += $(i - 1)
            if ($i == "failed;") failed += $(i - 1)
        }
    }
    END { print passed + 0, failed + 0 }' "$tests_log")

say ""
tests_failed=$not_passed
for name in ${failed[@]+"${failed[@]}"}; do
    say "FAILED: $name"
    # Failed tests are counted one by one; tests that do not even build count once.
    if [ "$name" != "tests" ] || [ "$tests_failed" = 0 ]; then
        not_passed=$((not_passed + 1))
    fi
done
if [ "$passed" = 0 ] && [ "$not_passed" = 0 ]; then
    say "FAILED: no test ran"
    not_passed=1
fi
say "$passed passed, $not_passed failed"
[ "$not_passed" = 0 ]
