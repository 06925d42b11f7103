# Sourced by the other scripts: where tools, caches and build results are.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

export HEDDLE_CACHE=${HEDDLE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/heddle}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$HEDDLE_CACHE/target}

# Debian's compiler comes first: it builds both sides, and it is the one CI uses. rustup's proxies, if
# there are any, come last, where they can serve nothing that /usr/bin has.
case $PATH in
"$HEDDLE_CACHE"/bin:*) ;;
*) export PATH=$HEDDLE_CACHE/bin:/usr/bin:/usr/sbin:/bin:/sbin:$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin ;;
esac

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }
[ -t 2 ] && [ -z "${NO_COLOR:-}" ] || say() { printf '==> %s\n' "$*" >&2; }

# fail CODE MESSAGE HELP: the shape of every error that Heddle prints.
fail() {
	printf 'error[%s]: %s\nhelp: %s\n' "$1" "$2" "$3" >&2
	exit 1
}

# as_root CMD...: CMD with root's rights and this environment.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo -E env PATH="$PATH" "$@"
	else
		fail setup/not-root "this step needs root: $*" "run make as root, or install sudo"
	fi
}

# host_triple: the target that this machine's compiler builds for by default.
host_triple() { rustc -vV | sed -n 's/^host: //p'; }
