# shellcheck shell=bash
# What the scripts share that start servers: a folder ($work), the list of processes to be ended with the script ($pids), and
# waiting for a line of a log. Source it; it is no command.

# Debian's nginx and haproxy are not in everybody's path.
PATH=$PATH:/usr/sbin

work=$(mktemp -d)
pids=() # add to it what is started: pids+=($!)
cleanup() {
    local pid
    for pid in ${pids[@]+"${pids[@]}"}; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# await FILE PATTERN [SECONDS [PROCESS]]: waits for a line in a file (30 s), which that process is to write; prints what the
# pattern's group matched.
await() {
    local file=$1 pattern=$2 found=
    for _ in $(seq $((${3:-30} * 10))); do
        found=$(sed -n "s|$pattern|\\1|p" "$file" 2>/dev/null | head -n 1)
        [ -z "$found" ] || { echo "$found"; return; }
        [ -z "${4:-}" ] || kill -0 "$4" 2>/dev/null || break
        sleep 0.1
    done
    cat "$file" >&2
    return 1
}

# free_ports N: the first of N neighbouring ports on which nobody listens.
free_ports() {
    local first port
    for first in $(seq 18600 "$1" 19600); do
        for ((port = first; port < first + $1; port++)); do
            ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || continue 2
        done
        echo "$first"
        return
    done
    echo "No $1 neighbouring ports are free from 18600 on." >&2
    return 1
}
