#!/usr/bin/env bash
# What CI runs: `test.sh` for all of it, `test.sh lint|deny|packets|policy-live|growth` (or packets-build) for one part.
set -euo pipefail
source "$(dirname "$0")/env.sh"

# The eBPF programs compile for their own target only; heddle-datapath's build script builds them.
workspace=(--workspace --exclude heddle-bpf)

format() {
	say "${1:-}cargo fmt --all --check"
	# Not `cargo fmt`: cargo looks for its subcommands in ~/.cargo/bin first, where rustup's have their place.
	cargo-fmt fmt --all --check
}

clippy() {
	say "${1:-}cargo clippy"
	cargo-clippy clippy "${workspace[@]}" --all-targets --locked -- -D warnings
}

# The fuzz targets have a workspace and a lock file of their own; `make fuzz` builds them with instruments. With the
# profile of the root manifest and in the same folder, half of what they need has been checked for clippy.
fuzz_targets() {
	say "${1:-}cargo check of the fuzz targets"
	# A check links nothing: without this, libfuzzer-sys would compile the fuzzer, which needs a C++ compiler.
	CUSTOM_LIBFUZZER_PATH=$CARGO_TARGET_DIR/fuzz/libfuzzer.a \
		cargo check --manifest-path fuzz/Cargo.toml --locked \
		--config 'profile.dev.debug="line-tables-only"' --config 'profile.dev.package."*".debug=false'
}

deny() {
	say "cargo deny check bans licenses sources"
	# Advisories need a database from the network; they are checked by hand before a release.
	cargo deny --offline --all-features check bans licenses sources
}

# build_tests [STEP]: everything that tests need, the binaries that they run, too. Writes what there is
# to run into $list: folder, program and name of each, what takes longest first.
build_tests() {
	say "${1:-}cargo test --no-run"
	list=$(mktemp)
	trap 'rm -f "$list"' EXIT
	cargo test "${workspace[@]}" --locked --no-run --message-format=json-render-diagnostics | jq -r '
		select(.reason == "compiler-artifact" and .profile.test and .executable)
		| (.manifest_path | rtrimstr("/Cargo.toml")) as $folder
		| [(if (.target.name | IN("upgrade", "wire", "matrix")) then 0 elif ($folder | endswith("/tests/netns")) then 1
			elif ($folder | endswith("/node/datapath")) then 2 else 3 end),
		   $folder, .executable, "\($folder | split("/") | .[-2:] | join("/")) \(.target.kind[0]) \(.target.name)"]
		| @tsv' | LC_ALL=C sort | cut -f 2- >"$list"
	# The other ABI version that the upgrade test sets beside this one. With the whole workspace chosen, its dependencies
	# have the same features, so that none of them is compiled again.
	cargo build "${workspace[@]}" --locked --features heddle-datapath/next-abi --example next_abi_node
	cargo build "${workspace[@]}" --locked --features heddle-datapath/former-abi --example former_abi_node
	export HEDDLE=$CARGO_TARGET_DIR/debug/heddle HEDDLE_CNI=$CARGO_TARGET_DIR/debug/heddle-cni
}

# choose NAMES: keeps the test programs whose name matches the regular expression, which holds no `#`.
choose() { sed -i -n -E "\\#\t$1\$#p" "$list"; }

document_tests() {
	say "${1:-}cargo test --doc"
	cargo test "${workspace[@]}" --locked --doc
}

case ${1:-all} in
lint)
	format
	clippy
	fuzz_targets
	;;
deny) deny ;;
packets | packets-build)
	# All are built, as for the whole suite, so that nothing is built twice; those with real packets are run.
	build_tests
	choose '(node/datapath|tests/netns|tools/lab) test .*'
	[ "$1" = packets-build ] || scripts/run-tests.sh "$list"
	;;
policy-live)
	sets=${HEDDLE_POLICY_SETS:-20}
	[[ $sets =~ ^[1-9][0-9]{0,5}$ ]] || fail setup/usage "'$sets' is no number of policy sets" "make test-policy-live SETS=100"
	build_tests
	choose 'tests/netns test matrix'
	# Each set takes some seconds, in two labs.
	export HEDDLE_TEST_LIMIT=${HEDDLE_TEST_LIMIT:-$((1200 + 60 * sets))}
	say "$sets policy sets, within $HEDDLE_TEST_LIMIT s"
	scripts/run-tests.sh "$list" --nocapture
	;;
growth)
	say "cargo test -p heddle-agent"
	cargo test -p heddle-agent --locked --lib ledger::growth -- --ignored --nocapture
	;;
all)
	format "step 2 of 6: "
	if [ -x "$HEDDLE_CACHE/bin/cargo-deny" ]; then
		deny
	else
		say "cargo deny is not installed, so it is left out here; 'make deny' installs and runs it. tests/house checks the banned and duplicate crates."
	fi
	build_tests "step 3 of 6: "
	# Not beside the tests, which have deadlines.
	clippy "step 4 of 6: "
	fuzz_targets "and "
	say "step 5 of 6: $(wc -l <"$list") test programs"
	scripts/selftest.sh
	scripts/run-tests.sh "$list"
	document_tests "step 6 of 6: "
	;;
*) fail setup/usage "test.sh does not know '$1'" "use lint, deny, packets, policy-live, growth, or nothing for all" ;;
esac
say "passed"
