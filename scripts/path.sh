# Sourced by env.sh: PATH of the scripts and of everything that they start.
# shellcheck shell=bash
source "$root/scripts/packages.sh"

# declared_path: prints a folder with links to the programs of the declared packages, and of the packages that every
# Debian has (essential ones and those of priority required). A program that setup does not install is not found
# there, on any machine, whatever else is installed. The folder is made anew when one of these packages changes.
declared_path() {
	local names=("${given_packages[@]}" "${toolchain_packages[@]}" "${build_packages[@]}" "${lab_packages[@]}" "${test_packages[@]}")
	local installed key folder made name target
	mapfile -t -O "${#names[@]}" names < <(dpkg-query -W -f='${Package} ${Essential} ${Priority}\n' |
		awk '$2 == "yes" || $3 == "required" { print $1 }')
	installed=$(dpkg-query -W -f='${Package} ${Version} ${db:Status-Status}\n' "${names[@]}" 2>/dev/null | grep ' installed$' | LC_ALL=C sort -u)
	key=$({
		printf '%s\n' "$installed"
		cat "$root/scripts/path.sh"
	} | sha256sum)
	folder=$HEDDLE_CACHE/path-${key:0:16}
	if [ ! -d "$folder" ]; then
		mkdir -p "$HEDDLE_CACHE"
		made=$(mktemp -d "$HEDDLE_CACHE/path.XXXXXX")
		chmod 0755 "$made"
		# The same file under /bin and /usr/bin is one file.
		awk '{ print $1 }' <<<"$installed" | xargs dpkg -L | { grep -E '^(/usr)?/s?bin/[^/]+$' || true; } |
			xargs ln -sf -t "$made"
		# awk, cc and iptables are names that an administrator points at one of several programs.
		for name in /etc/alternatives/*; do
			target=$(readlink "$name")
			if [[ $target =~ /s?bin/([^/]+)$ && -L $made/${BASH_REMATCH[1]} && ! -e $made/${name##*/} ]]; then
				ln -s "$target" "$made/${name##*/}"
			fi
		done
		# Another run may have been quicker; its folder holds the same.
		mv -T "$made" "$folder" 2>/dev/null || rm -rf "$made"
	fi
	printf '%s\n' "$folder"
}

# use_declared_path: PATH for what follows.
use_declared_path() {
	local folder cargo_home=${CARGO_HOME:-${HOME:-/root}/.cargo}
	if ! command -v dpkg-query >/dev/null; then
		say "no dpkg here: PATH is used as it is, so a program that setup does not declare is not noticed"
		PATH=$HEDDLE_CACHE/bin:$PATH:$cargo_home/bin
		return
	fi
	folder=$(declared_path)
	PATH=$HEDDLE_CACHE/bin:$folder
	# Where rustup's compiler serves instead of Debian's.
	[ -e "$folder/cargo" ] || PATH=$PATH:$cargo_home/bin
}
