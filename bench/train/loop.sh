#!/usr/bin/env bash
# From traffic to the next bundle, on the demo: a cluster with its logs on, traffic, next_bundle.sh, and traffic again.
# Everything is kept below LOOP_RUN. A cluster of your own needs next_bundle.sh alone.
#
#   GAVEL      the binary                      (target/release/gavel of this checkout)
#   PYTHON     with requirements.txt installed (python3)
#   LOOP_RUN   folder                          (/tmp/gavel-loop)
#   REQUESTS   requests that are asked         (3000)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
GAVEL=${GAVEL:-$here/../../target/release/gavel}
PYTHON=${PYTHON:-python3}
LOOP_RUN=${LOOP_RUN:-/tmp/gavel-loop}
REQUESTS=${REQUESTS:-3000}

rm -rf "$LOOP_RUN"
mkdir -p "$LOOP_RUN"
"$GAVEL" up --scored-log "$LOOP_RUN/scored" --scored-log-share 1 --event-log "$LOOP_RUN/events" >"$LOOP_RUN/up.out" 2>"$LOOP_RUN/up.log" &
cluster=$!
trap 'kill "$cluster" 2>/dev/null || true' EXIT
for _ in $(seq 1200); do
    grep -q '^READY ' "$LOOP_RUN/up.out" && break
    kill -0 "$cluster" || { cat "$LOOP_RUN/up.log" >&2; exit 1; }
    sleep 0.1
done
address() { sed -n "s/^READY .* $1=\([^ ]*\).*/\1/p" "$LOOP_RUN/up.out"; }

began=$(date +%s)
"$PYTHON" "$here/traffic.py" --router "$(address http)" --count "$REQUESTS" \
    --requests "$here/../../cluster/bootstrap/demo/catalogue/requests.jsonl.zst"
# Twenty periods over the traffic, two of them for validation; nothing comes after it, so windows need not end.
period=$(( ($(date +%s) - began) * 1000 / 20 + 1 ))ms
sleep 1 # what waits for the logs' threads is written at once
# A few batches an epoch, so many epochs: the table is small.
GAVEL=$GAVEL PYTHON=$PYTHON "$here/next_bundle.sh" --scored "$LOOP_RUN/scored" --events "$LOOP_RUN/events" \
    --control "$(address control)" --schema "$here/schemas/scored.toml" --out "$LOOP_RUN/next" --activate \
    --join-options "--open keep --period $period" \
    --train-options "--retrieval-label click --tower-epochs 20 --ranker-epochs 40"
# The same users meet what the bundle of their own clicks chooses.
"$PYTHON" "$here/traffic.py" --router "$(address http)" --count "$((REQUESTS / 3))" --seed 2 \
    --requests "$here/../../cluster/bootstrap/demo/catalogue/requests.jsonl.zst"
"$GAVEL" ctl --control "$(address control)" model status
