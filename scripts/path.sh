# Sourced by env.sh: PATH of the scripts and of everything that they start.
# shellcheck shell=bash
source "$root/scripts/packages.sh"

# declared_path [fuzz|kernels]: prints a folder with links to the programs of the declared packages (of those for fuzzing or
# for other kernels too, where asked), and of the packages that every Debian has (essential ones and those of priority required). A program
# that setup does not install is not found there, on any machine, whatever else is installed. The folder is made anew
# when one of these packages changes.
declared_path() {
	local names=("${given_packages[@]}" "${toolchain_packages[@]}" "${build_packages[@]}" "${lab_packages[@]}" "${test_packages[@]}")
	local required installed key folder made
	case ${1:-} in
	fuzz) names+=("${fuzz_packages[@]}") ;;
	kernels) names+=("${kernels_packages[@]}") ;;
	esac
	required=$(dpkg-query -W -f='${binary:Package} ${Essential} ${Priority}\n' | awk '$2 == "yes" || $3 == "required" { print $1 }') &&
		[ -n "$required" ] || return 1
	mapfile -t -O "${#names[@]}" names <<<"$required"
	# dpkg-query fails for names that it does not know, which are those that are not installed yet.
	installed=$(dpkg-query -W -f='${binary:Package} ${Version} ${db:Status-Status}\n' "${names[@]}" 2>/dev/null | grep ' installed$' | LC_ALL=C sort -u)
	key=$({
		printf '%s\n' "$installed"
		cat "$root/scripts/path.sh"
	} | sha256sum) || return 1
	folder=$HEDDLE_CACHE/path-${key:0:16}
	if [ ! -d "$folder" ]; then
		mkdir -p "$HEDDLE_CACHE" && made=$(mktemp -d "$HEDDLE_CACHE/path.XXXXXX") || return 1
		# Another run may have been quicker; its folder holds the same.
		! link_programs "$made" "$installed" || mv -T "$made" "$folder" 2>/dev/null || true
		rm -rf "$made"
		[ -d "$folder" ] || return 1
	fi
	printf '%s\n' "$folder"
}

# link_programs FOLDER PACKAGES: fills the folder with links to the programs of the packages, which the lines start
# with. `set -e` has no effect in a command substitution, so every step says itself when it fails.
link_programs() {
	local folder=$1 installed=$2 files name target
	chmod 0755 "$folder" || return 1
	# With the architecture where there may be several: without it, dpkg refuses the name.
	files=$(awk '{ print $1 }' <<<"$installed" | xargs dpkg -L) || return 1
	# The same file under /bin and /usr/bin is one file.
	grep -E '^(/usr)?/s?bin/[^/]+$' <<<"$files" | xargs ln -sf -t "$folder" || return 1
	# awk, cc and iptables are names that an administrator points at one of several programs.
	for name in /etc/alternatives/*; do
		target=$(readlink "$name") || continue
		if [[ $target =~ /s?bin/([^/]+)$ && -L $folder/${BASH_REMATCH[1]} && ! -e $folder/${name##*/} ]]; then
			ln -s "$target" "$folder/${name##*/}" || return 1
		fi
	done
}

# use_declared_path [fuzz|kernels]: PATH for what follows.
use_declared_path() {
	local folder cargo_home=${CARGO_HOME:-${HOME:-/root}/.cargo}
	if ! command -v dpkg-query >/dev/null; then
		say "no dpkg here: PATH is used as it is, so a program that setup does not declare is not noticed"
		PATH=$HEDDLE_CACHE/bin:$PATH:$cargo_home/bin
		return
	fi
	folder=$(declared_path "${1:-}") || fail setup/path "the folder of links to the declared programs could not be made in $HEDDLE_CACHE" \
		"look whether the disk is full, and whether 'dpkg --audit' says something"
	PATH=$HEDDLE_CACHE/bin:$folder
	# Where rustup's compiler serves instead of Debian's.
	[ -e "$folder/cargo" ] || PATH=$PATH:$cargo_home/bin
}
