#!/usr/bin/env bash
# Fuzzes the parsers: run.sh [target|all] [seconds each]. Needs a C++ compiler for libFuzzer, and stable Rust only.
#
# Fails if an input crashes a target, makes it take longer than 10 s or more than 2 GiB, and keeps that input below
# target/fuzz/artifacts. Put it into loadtests/fuzz/corpus/<target> once the fault is mended: the tests replay it for ever.
# What the fuzzer learns stays in target/fuzz/corpus for the next run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

which=${1:-all}
seconds=${2:-${FUZZ_SECONDS:-60}}
readonly which seconds work=$PWD/target/fuzz
host=$(rustc -vV | awk '/^host: / { print $2 }')
readonly host

mapfile -t targets < <(basename -s .rs loadtests/fuzz/fuzz_targets/*.rs)
if [ "$which" != all ]; then
    if ! printf '%s\n' "${targets[@]}" | grep -qx -- "$which"; then
        echo "no fuzz target $which; there are: ${targets[*]}" >&2
        exit 2
    fi
    targets=("$which")
fi

# Counters at every edge and comparisons traced: what makes libFuzzer find its way. With --target, build scripts and macros are spared.
# No AddressSanitizer, as that needs nightly Rust; overflow checks and debug assertions are on.
coverage=(
    -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
    -Ccodegen-units=16
)
bins=()
for target in "${targets[@]}"; do bins+=(--bin "$target"); done
echo "building ${targets[*]}"
RUSTFLAGS="${coverage[*]}" CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_OPT_LEVEL=1 \
    cargo build --locked --quiet -p fuzz --features libfuzzer --target "$host" --target-dir "$work" "${bins[@]}"
# Without instrumentation, which only a binary with libFuzzer in it can be linked with.
cargo run --locked --quiet -p fuzz --bin seeds -- "$work"

failed=0
for target in "${targets[@]}"; do
    mkdir -p "$work/corpus/$target" "$work/artifacts/$target"
    known=("$work/corpus/$target" "$work/seeds/$target")
    [ -d "loadtests/fuzz/corpus/$target" ] && known+=("loadtests/fuzz/corpus/$target")
    [[ $target == config_* ]] && known+=(deploy/examples)
    dictionary=()
    [ -s "$work/$target.dict" ] && dictionary=("-dict=$work/$target.dict")
    log=$work/$target.log
    printf '%-16s ' "$target"
    if "$work/$host/debug/$target" "${known[@]}" "${dictionary[@]}" -artifact_prefix="$work/artifacts/$target/" \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=16384 -print_final_stats=1 >"$log" 2>&1; then
        awk -v file="$log" '
            /INITED/ { for (i = 1; i < NF; i++) if ($i == "cov:") first = $(i + 1) }
            / cov: / { for (i = 1; i < NF; i++) if ($i == "cov:") last = $(i + 1); else if ($i == "ft:") features = $(i + 1) }
            /number_of_executed_units/ { runs = $2 }
            END {
                if (runs == 0 || last == 0) { print "did not run, or without coverage; see " file; exit 1 }
                printf "%9d inputs, %5d edges (%d from the seeds), %6d features\n", runs, last, first, features
            }' "$log" || failed=1
    else
        failed=1
        echo "FAILED; the input is in target/fuzz/artifacts/$target, the whole story in target/fuzz/$target.log:"
        grep -m 3 -E 'panicked at|ERROR: libFuzzer|ALARM' -A 1 "$log" || tail -5 "$log"
    fi
done
exit "$failed"
