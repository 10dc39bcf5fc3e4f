#!/usr/bin/env bash
# Runs the L4 bench from the top of the repository, with hugepages if the machine has room for them. Their number is put back
# afterwards, however the bench ends. Arguments go to the bench, before them those in BENCH_ARGS; BENCH_SECONDS is how long each row is measured.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# 2 MiB each: frame buffers of the gateway, of testpmd and of the generator.
readonly WANTED=256
readonly NUMBER=/proc/sys/vm/nr_hugepages

before=$(cat "$NUMBER")
free=$(awk '/^HugePages_Free:/ { print $2 }' /proc/meminfo)
memory=()
restore() { echo "$before" >"$NUMBER"; }
if [ "$free" -lt "$WANTED" ]; then
    trap restore EXIT
    { echo $((before + WANTED - free)) >"$NUMBER"; } 2>/dev/null || true
    free=$(awk '/^HugePages_Free:/ { print $2 }' /proc/meminfo)
    if [ "$free" -lt "$WANTED" ]; then
        echo "bench-l4: only $free of $WANTED hugepages can be had: measuring with ordinary pages" >&2
        restore
        memory=(--ordinary-pages)
    fi
fi
# Words, as a shell would split them: BENCH_ARGS="--only 'streams udp'".
eval "arguments=(${BENCH_ARGS:-})"
target/release/bench-l4 --seconds "${BENCH_SECONDS:-6}" "${memory[@]}" "${arguments[@]}" "$@"
