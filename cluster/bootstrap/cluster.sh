# What the scripts of this folder share. Sourced, never run.
#
# Settings, all by environment:
#   GAVEL        the binary              (target/release/gavel of this checkout)
#   GAVEL_RUN    run folder: data, logs, pids, addresses   (/tmp/gavel-cluster)
#   GAVEL_HOSTS  network namespaces that stand for hosts: 0 = everything on this machine's loopback; 2 or more =
#                voters, nodes and routers spread round-robin over so many namespaces (needs root)

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
GAVEL=${GAVEL:-$here/../../target/release/gavel}
GAVEL_RUN=${GAVEL_RUN:-/tmp/gavel-cluster}
GAVEL_HOSTS=${GAVEL_HOSTS:-0}

CONTROLS=${CONTROLS:-3}
NODES=${NODES:-4}
ROUTERS=${ROUTERS:-2}
SHARDS=${SHARDS:-2}
REPLICAS=${REPLICAS:-2}

BRIDGE=gavelbr0
SUBNET=10.77.0

die() { echo "$(basename "$0"): $*" >&2; exit 1; }

[ -x "$GAVEL" ] || die "$GAVEL is not there: cargo build --release --locked, or set GAVEL"

# The address of host N (from 1): a namespace's, or the loopback.
host_address() { if [ "$GAVEL_HOSTS" -gt 0 ]; then echo "$SUBNET.$(( ($1 - 1) % GAVEL_HOSTS + 1 ))"; else echo 127.0.0.1; fi; }

# Becomes a command on host N: the pid of the caller is then that of the command.
exec_on_host() {
    local host=$1; shift
    if [ "$GAVEL_HOSTS" -gt 0 ]; then exec ip netns exec "gavel$(( (host - 1) % GAVEL_HOSTS + 1 ))" "$@"; else exec "$@"; fi
}

# Voters as ctl wants them.
control_addresses() { cat "$GAVEL_RUN/control"; }

ctl() { "$GAVEL" ctl --control "$(control_addresses)" "$@"; }

# start_process NAME HOST ARGS...: starts one process, records its pid, waits until it listens.
start_process() {
    local name=$1 host=$2; shift 2
    mkdir -p "$GAVEL_RUN/data/$name"
    exec_on_host "$host" "$GAVEL" "$@" --data-dir "$GAVEL_RUN/data/$name" >"$GAVEL_RUN/$name.out" 2>>"$GAVEL_RUN/$name.log" </dev/null &
    echo $! >"$GAVEL_RUN/$name.pid"
    for _ in $(seq 300); do
        grep -q '^READY ' "$GAVEL_RUN/$name.out" && { echo "$name: $(cat "$GAVEL_RUN/$name.out")"; return; }
        kill -0 "$(cat "$GAVEL_RUN/$name.pid")" 2>/dev/null || die "$name ended: $(tail -n 3 "$GAVEL_RUN/$name.log")"
        sleep 0.1
    done
    die "$name does not listen: see $GAVEL_RUN/$name.log"
}
