#!/usr/bin/env bash
# Publishes a model and loads a catalogue: the demo's, or BUNDLE and CATALOGUE.
. "$(dirname "$0")/cluster.sh"

ctl model publish "${BUNDLE:-$here/demo/bundle}"
ctl load "${CATALOGUE:-$here/demo/catalogue}" --shards "$SHARDS" --replicas "$REPLICAS" --work-dir "$GAVEL_RUN/load"
ctl status
