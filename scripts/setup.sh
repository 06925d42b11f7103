#!/usr/bin/env bash
# Installs what is missing for `make lab|test|bench|build|fuzz|kernels|deny`, and says what it does. Idempotent; a
# second run only looks.
set -euo pipefail
source "$(dirname "$0")/env.sh"

purpose=${1:-build}

oldest_compiler=1.95
bpf_linker_version=0.10.3
cargo_deny_version=0.20.2

# apt CMD...: with the caller's PATH and the system's folders, because packages run programs of their own. It waits for
# another apt-get: a new machine often updates itself when it has started.
apt() {
	as_root env PATH="$caller_path:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" DEBIAN_FRONTEND=noninteractive \
		apt-get -o DPkg::Lock::Timeout=300 "$@"
}

# Read whole before it is searched: with pipefail, a reader that stops early fails the pipe.
has_candidate() { [[ $(LC_ALL=C apt-cache policy "$1" 2>/dev/null) == *Candidate:\ [0-9]* ]]; }

missing() {
	local name
	for name in "$@"; do
		# A line for each architecture that it is there for.
		[[ $'\n'$(dpkg-query -W -f='${db:Status-Status}\n' "$name" 2>/dev/null)$'\n' == *$'\n'installed$'\n'* ]] || echo "$name"
	done
}

apt_install() {
	say "apt-get install $*"
	# --no-remove: a `cargo` or `rustup` package conflicts with cargo-web; that is the owner's choice.
	apt install -y -q --no-install-recommends --no-remove "$@" >&2 ||
		fail setup/apt "apt-get could not install: $*" \
			"see the lines above; if a cargo or rustup package is in the way, remove it or use the rustup way in CONTRIBUTING.md"
}

setup_packages() {
	local wanted=("${build_packages[@]}") absent compiler
	case $purpose in
	lab) wanted+=("${lab_packages[@]}") ;;
	test | bench) wanted+=("${lab_packages[@]}" "${test_packages[@]}") ;;
	fuzz) wanted+=("${fuzz_packages[@]}") ;;
	kernels) wanted+=("${lab_packages[@]}" "${test_packages[@]}" "${kernels_packages[@]}") ;;
	esac
	mapfile -t absent < <(missing "${wanted[@]}")
	mapfile -t compiler < <(missing "${toolchain_packages[@]}")
	# One that is there may be too old; apt-get installs the newer one over it.
	dpkg --compare-versions "$(dpkg-query -W -f='${Version}' cargo-web 2>/dev/null)" ge "$oldest_compiler" || compiler=("${toolchain_packages[@]}")
	[ $((${#absent[@]} + ${#compiler[@]})) = 0 ] && return

	say "apt-get update"
	apt update -q >&2 || say "apt-get update failed; trying with the lists that are here"
	# Without cargo-web, check_compiler says what to do.
	! has_candidate cargo-web || absent+=("${compiler[@]}")
	[ ${#absent[@]} = 0 ] || apt_install "${absent[@]}"
}

# version_at_least WANTED GIVEN
version_at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

check_compiler() {
	local version
	command -v cargo >/dev/null || fail setup/no-compiler "no Rust compiler, and this distribution has no cargo-web package" \
		"install rustup as CONTRIBUTING.md describes under 'Toolchain without cargo-web', then run make again"
	version=$(cargo --version | awk '{print $2}')
	version_at_least "$oldest_compiler" "$version" || fail setup/old-compiler "cargo is $version ($(command -v cargo)), $oldest_compiler or newer is needed" \
		"install cargo-web, or a newer toolchain with rustup (CONTRIBUTING.md, 'Toolchain')"
	# The same question, in the same order, as node/datapath/build.rs asks it.
	if [ -z "${HEDDLE_BPF_CARGO:-}" ] && [ ! -d /usr/lib/rustlib/bpfel-unknown-none ]; then
		local nightly=${HEDDLE_BPF_TOOLCHAIN:-nightly}
		command -v rustup >/dev/null && [[ $'\n'$(rustup toolchain list) == *$'\n'"$nightly"* ]] ||
			fail setup/no-bpf-target "this compiler has no core library for bpfel-unknown-none, and rustup has no toolchain '$nightly' to build one" \
				"Debian: apt-get install libstd-rust-web-dev-bpf; elsewhere: CONTRIBUTING.md, 'Toolchain without cargo-web'"
	fi
}

setup_bpf_linker() {
	local found
	found=$(bpf-linker --version 2>/dev/null | awk '{print $2}') || true
	[ "$found" = "$bpf_linker_version" ] && return
	say "cargo install bpf-linker $bpf_linker_version into $HEDDLE_CACHE (about a minute, once)"
	# Its work is done by LLVM's library; optimizing it would take longer than it ever saves.
	CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_DEBUG=false CARGO_PROFILE_RELEASE_LTO=off \
		CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 cargo install bpf-linker --version "$bpf_linker_version" --locked --root "$HEDDLE_CACHE" ||
		fail setup/bpf-linker "bpf-linker $bpf_linker_version could not be built" \
			"see the compiler's lines above; the crates registry must be reachable the first time"
}

setup_cargo_deny() {
	[ -x "$HEDDLE_CACHE/bin/cargo-deny" ] && return
	say "cargo install cargo-deny $cargo_deny_version into $HEDDLE_CACHE (some minutes, once)"
	cargo install cargo-deny --version "$cargo_deny_version" --locked --root "$HEDDLE_CACHE" ||
		fail setup/cargo-deny "cargo-deny $cargo_deny_version could not be built" "see the compiler's lines above"
}

say "${STEP:-}what is needed to $([ "$purpose" = test ] && echo "build and test" || echo "$purpose")"
mkdir -p "$HEDDLE_CACHE"
if command -v dpkg-query >/dev/null; then
	setup_packages
	use_declared_path
else
	say "no dpkg here: not installing packages (CONTRIBUTING.md lists what is needed)"
fi
check_compiler
case $purpose in
fuzz) ;;
deny) setup_cargo_deny ;;
*) setup_bpf_linker ;;
esac
