#!/usr/bin/env bash
# Runs every fuzz target for FUZZ_SECONDS (60) each, with the stable compiler: coverage by its own flags, no sanitizer,
# which safe code has no need of. What was found before is kept in $HEDDLE_CACHE/fuzz and goes on from there.
#
#   fuzz/run.sh             all targets
#   fuzz/run.sh selector    one of them
#
# `cargo +nightly fuzz run TARGET` does the same with the address sanitizer, where a nightly is at hand.
set -euo pipefail
source "$(dirname "$0")/../scripts/env.sh"
use_declared_path fuzz
cd "$root/fuzz"

command -v c++ >/dev/null || fail fuzz/no-compiler "there is no C++ compiler, which libFuzzer needs" "run 'make fuzz', or install g++"

seconds=${FUZZ_SECONDS:-60}
host=$(host_triple)
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(policy_object manifest selector)

coverage="--cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1"
for argument in -sanitizer-coverage-level=4 -sanitizer-coverage-inline-8bit-counters -sanitizer-coverage-pc-table \
	-sanitizer-coverage-trace-compares; do
	coverage+=" -Cllvm-args=$argument"
done
# With --target the flags do not reach build scripts, which would not link.
RUSTFLAGS=$coverage cargo build --release --locked --target "$host" --target-dir "$CARGO_TARGET_DIR/fuzz"

for target in "${targets[@]}"; do
	corpus=$HEDDLE_CACHE/fuzz/$target
	mkdir -p "$corpus"
	say "fuzz $target for $seconds s"
	"$CARGO_TARGET_DIR/fuzz/$host/release/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=16384 \
		-print_final_stats=1 -verbosity=0 -artifact_prefix="$corpus-" "$corpus" "seeds/$target"
done
