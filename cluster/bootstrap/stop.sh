#!/usr/bin/env bash
# Stops what start.sh started, by the recorded pids and nothing else. Data stays; --wipe removes the run folder.
. "$(dirname "$0")/cluster.sh"

for pid in "$GAVEL_RUN"/router-*.pid "$GAVEL_RUN"/node-*.pid "$GAVEL_RUN"/control-*.pid; do
    [ -e "$pid" ] || continue
    kill -TERM "$(cat "$pid")" 2>/dev/null || true
done
for pid in "$GAVEL_RUN"/*.pid; do
    [ -e "$pid" ] || continue
    for _ in $(seq 100); do kill -0 "$(cat "$pid")" 2>/dev/null || break; sleep 0.1; done
    kill -KILL "$(cat "$pid")" 2>/dev/null || true
    rm -f "$pid"
done
if [ -e "$GAVEL_RUN/hosts" ]; then
    for host in $(seq "$(cat "$GAVEL_RUN/hosts")"); do ip netns del "gavel$host" 2>/dev/null || true; done
    ip link del "$BRIDGE" 2>/dev/null || true
    rm -f "$GAVEL_RUN/hosts"
fi
[ "${1:-}" = --wipe ] && rm -rf "$GAVEL_RUN"
exit 0
