#!/usr/bin/env bash
# What CI runs: `test.sh` for all of it, `test.sh lint|deny|policy-live` for one part.
set -euo pipefail
source "$(dirname "$0")/env.sh"

# The eBPF programs compile for their own target only; heddle-datapath's build script builds them.
workspace=(--workspace --exclude heddle-bpf)

lint() {
	say "cargo fmt --all --check"
	cargo fmt --all --check
	say "cargo clippy"
	cargo clippy "${workspace[@]}" --all-targets --locked -- -D warnings
}

deny() {
	say "cargo deny check bans licenses sources"
	# Advisories need a database from the network; they are checked by hand before a release.
	cargo deny --offline --all-features check bans licenses sources
}

# build_tests: everything that tests need; the binaries that tests run, too.
build_tests() {
	local runner
	# Tests with real packets run as root; the build stays the user's.
	if [ "$(id -u)" != 0 ]; then
		command -v sudo >/dev/null || fail setup/not-root "the tests with real packets need root" "run make as root, or install sudo"
		runner=CARGO_TARGET_$(host_triple | tr 'a-z-' 'A-Z_')_RUNNER
		export "$runner=sudo -E env PATH=$PATH"
	fi
	say "cargo test --no-run"
	cargo test "${workspace[@]}" --locked --no-run
	export HEDDLE=$CARGO_TARGET_DIR/debug/heddle HEDDLE_CNI=$CARGO_TARGET_DIR/debug/heddle-cni
}

tests() {
	build_tests
	say "cargo test"
	cargo test "${workspace[@]}" --locked --no-fail-fast
}

policy_live() {
	build_tests
	say "cargo test --test matrix, ${HEDDLE_POLICY_SETS:-20} policy sets"
	cargo test "${workspace[@]}" --locked --test matrix -- --nocapture
}

started=$SECONDS
case ${1:-all} in
lint) lint ;;
deny) deny ;;
policy-live) policy_live ;;
all)
	lint
	if [ -x "$HEDDLE_CACHE/bin/cargo-deny" ]; then
		deny
	else
		say "SKIPPED: cargo deny (not installed; 'make deny' installs and runs it). tests/house checks the banned and duplicate crates."
	fi
	tests
	;;
*) fail setup/usage "test.sh does not know '$1'" "use lint, deny, policy-live, or nothing for all" ;;
esac
say "passed in $((SECONDS - started)) s"
