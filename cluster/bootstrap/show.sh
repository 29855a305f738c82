#!/usr/bin/env bash
# Shows members, shards and versions, and asks every router once.
. "$(dirname "$0")/cluster.sh"

ctl status
for out in "$GAVEL_RUN"/router-*.out; do
    http=$(sed -n 's/^READY .* http=\([^ ]*\).*/\1/p' "$out")
    echo
    echo "$(basename "$out" .out): http://$http/v1/ads"
    curl -s --max-time 5 "http://$http/v1/ads" -H 'content-type: application/json' \
        -d '{"user_id":"900","placement":"home","terms":[{"dimension":"store","values":["330"]}],"slots":4,"deadline_ms":500}' || true
    echo
done
