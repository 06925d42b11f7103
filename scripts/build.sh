#!/usr/bin/env bash
# Builds the binaries and puts them into bin/: `build.sh` the release, `build.sh bench` the benchmarks with it, and
# `build.sh lab` what a lab on this machine needs, in less time.
set -euo pipefail
source "$(dirname "$0")/env.sh"

# Copied, not linked: the build directory may serve several clones.
mkdir -p bin
put() { cmp -s "$1" "$2" || install -m 0755 "$1" "$2"; }

started=$SECONDS
if [ "${1:-}" = lab ]; then
	say "${STEP:-}cargo build (results in $CARGO_TARGET_DIR, for 'make test' too; 'make build' makes the release)"
	cargo build --locked -p heddle -p heddle-cni
	put "$CARGO_TARGET_DIR/debug/heddle" bin/heddle
	put "$CARGO_TARGET_DIR/debug/heddle-cni" bin/heddle-cni
	say "built in $((SECONDS - started)) s"
	exit
fi

say "cargo build --release (results in $CARGO_TARGET_DIR)"
packages=(-p heddle)
[ "${1:-}" != bench ] || packages+=(-p heddle-bench)
cargo build --release --locked "${packages[@]}"

# The plugin is static, because a runtime starts it from wherever it likes; the flag must not reach
# build scripts, which is what naming the target does.
triple=$(host_triple)
say "cargo build --release heddle-cni (static)"
RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" \
	cargo build --release --locked -p heddle-cni --bin heddle-cni --target "$triple"

put "$CARGO_TARGET_DIR/release/heddle" bin/heddle
put "$CARGO_TARGET_DIR/$triple/release/heddle-cni" bin/heddle-cni
[ "${1:-}" != bench ] || put "$CARGO_TARGET_DIR/release/heddle-bench" bin/heddle-bench
say "built in $((SECONDS - started)) s"
