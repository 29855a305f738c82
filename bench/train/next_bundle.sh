#!/usr/bin/env bash
# From what a running cluster has logged to its next bundle: the join, the trainer, the check, and if asked for the
# publication, and the activation of the very version that was published.
#
#   next_bundle.sh --scored DIR[,DIR] --events DIR[,DIR] --schema FILE --out DIR [--control HOST:PORT[,...] --publish|--activate]
#
#   --scored, --events   the logs of all routers: an event may have come to another router than served its ad
#   --schema             which column plays which role; bench/train/schemas/scored.toml is the demo's
#   --out                a new folder: table/, bundle/, join.json
#   --control            the cluster's voters, for --publish and --activate
#   --publish            every member loads the bundle, and it waits there for `gavel ctl model canary` or `activate`
#   --activate           the same, and it serves
#   --join-options, --train-options, --publish-options "..."
#                        more options of `gavel log join`, of train.py and of `gavel ctl model publish`, parted by blanks
#
#   GAVEL    the binary                      (gavel on PATH)
#   PYTHON   with requirements.txt installed (python3)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
fail() { echo "next_bundle.sh: $*" >&2; exit 2; }

scored='' events='' control='' schema='' out='' then=check
join_options=() train_options=() publish_options=()
while [ $# -gt 0 ]; do
    case $1 in
        --publish | --activate) then=${1#--}; shift; continue ;;
        -h | --help) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
        --scored | --events | --control | --schema | --out | --join-options | --train-options | --publish-options) ;;
        *) fail "$1 is no option: see --help" ;;
    esac
    [ $# -gt 1 ] || fail "$1 needs a value: see --help"
    case $1 in
        --scored) scored=$2 ;;
        --events) events=$2 ;;
        --control) control=$2 ;;
        --schema) schema=$2 ;;
        --out) out=$2 ;;
        --join-options) read -ra join_options <<<"$2" ;;
        --train-options) read -ra train_options <<<"$2" ;;
        --publish-options) read -ra publish_options <<<"$2" ;;
    esac
    shift 2
done

# All that can be wrong is said before the first hour of training.
[ -n "$scored" ] || fail "--scored DIR[,DIR] is missing: the folders of the routers' --scored-log"
[ -n "$events" ] || fail "--events DIR[,DIR] is missing: the folders of the routers' --event-log"
[ -n "$schema" ] || fail "--schema FILE is missing: $here/schemas/scored.toml is the demo's"
[ -n "$out" ] || fail "--out DIR is missing: a new folder for the table and the bundle"
IFS=, read -ra logs <<<"$scored,$events"
for log in "${logs[@]}"; do
    [ -e "$log" ] || fail "there is no log at $log: give the folders that routers write to, copied here from their machines"
    [ -f "$log" ] || [ -n "$(ls -A "$log")" ] || fail "$log is empty: nothing was logged there"
done
[ -f "$schema" ] || fail "there is no schema at $schema"
[ ! -e "$out" ] || { [ -d "$out" ] && [ -z "$(ls -A "$out")" ]; } || fail "$out is there and not empty: name a new folder"
gavel=$(command -v "${GAVEL:-gavel}") || fail "${GAVEL:-gavel} is no program: put gavel on PATH, or set GAVEL to the binary"
python=$(command -v "${PYTHON:-python3}") || fail "${PYTHON:-python3} is no program: set PYTHON to one with $here/requirements.txt installed"
"$python" -c 'import blake3, jax, onnx, onnxruntime, optax, pandas, sklearn, zstandard' 2>/dev/null \
    || fail "$python lacks what the trainer needs: $python -m pip install -r $here/requirements.txt"
if [ "$then" != check ]; then
    [ -n "$control" ] || fail "--$then needs --control HOST:PORT, a voter of the cluster"
    "$gavel" ctl --control "$control" model status >/dev/null \
        || fail "the cluster does not answer at $control: nothing was done"
fi

mkdir -p "$out"
"$gavel" log join --scored "$scored" --events "$events" --out "$out/table" --json "$out/join.json" "${join_options[@]}"
"$python" "$here/train.py" --schema "$schema" --data "$out/table" --out "$out/bundle" "${train_options[@]}"
"$gavel" model check "$out/bundle"
[ "$then" != check ] || { echo "$out/bundle is whole; serve it: gavel ctl model publish $out/bundle"; exit 0; }

# "version 7 is ready; ..." or, of the first bundle of a cluster, "version 1 serves".
published=$("$gavel" ctl --control "$control" model publish "$out/bundle" "${publish_options[@]}")
echo "$published"
[ "$then" = activate ] || exit 0
version=$(sed -n 's/^version \([0-9][0-9]*\) .*/\1/p' <<<"$published" | tail -n 1)
[ -n "$version" ] || fail "the publication names no version, so nothing is activated: see gavel ctl model status"
grep -q "^version $version serves" <<<"$published" || "$gavel" ctl --control "$control" model activate "$version"
