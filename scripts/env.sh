# Sourced by the other scripts: where tools, caches and build results are.
# shellcheck shell=bash

root=$(CDPATH='' cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# The folder of the script that sources this, while a relative name still holds.
caller_folder=
[[ ${BASH_SOURCE[1]:-} != *.sh ]] || caller_folder=$(CDPATH='' cd -P "$(dirname "${BASH_SOURCE[1]}")" && pwd)
cd "$root"

export HEDDLE_CACHE=${HEDDLE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/heddle}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$HEDDLE_CACHE/target}

# say WHAT: a line of progress, with the time since make was started.
say() {
	local since=
	[ -z "${HEDDLE_STARTED:-}" ] || since=$(printf '[%d:%02d] ' $((($(date +%s) - HEDDLE_STARTED) / 60)) $((($(date +%s) - HEDDLE_STARTED) % 60)))
	if [ -t 2 ] && [ -z "${NO_COLOR:-}" ]; then
		printf '\033[1m==> %s%s\033[0m\n' "$since" "$*" >&2
	else
		printf '==> %s%s\n' "$since" "$*" >&2
	fi
}

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

# Scripts, and all that they start, find only the programs of declared packages. Who sources this file by hand keeps
# the own PATH, with Debian's compiler first: it builds both sides, and it is the one CI uses.
if [[ $caller_folder == "$root"/* ]]; then
	# For apt-get alone: what packages do when they are installed is theirs.
	caller_path=$PATH
	source "$root/scripts/path.sh"
	# A script that another script started has it already.
	[ "${HEDDLE_PATH:-}" = "$PATH" ] || use_declared_path
	export PATH HEDDLE_PATH=$PATH
else
	case $PATH in
	"$HEDDLE_CACHE"/bin:*) ;;
	*) export PATH=$HEDDLE_CACHE/bin:/usr/bin:/usr/sbin:/bin:/sbin:$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin ;;
	esac
fi
