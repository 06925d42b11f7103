#!/usr/bin/env bash
# Plays a new machine: a minimal Debian with make, git and this machine's network, in which make targets run in a fresh
# clone of the last commit, with nothing built and nothing cached. Prints what they print, with the time since the start.
#
#   scripts/fresh.sh bookworm lab test
#
# The new machine has mount, process, cgroup, IPC and host name namespaces of its own, and its own BPF file system, so that
# ending it ends and removes everything in it. The kernel and the network are this machine's, with its name servers, proxies
# and certificate roots.
set -euo pipefail

# minutes SECONDS: as m:ss.
minutes() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

# Inside the new process and mount namespaces: enters the new root, and runs the targets there.
if [ "${1:-}" = --inside ]; then
	machine=$2 groups=$3
	shift 3
	mount --make-rprivate /
	# The lab changes the propagation of `/`, which only a mount point has; so chroot would not do.
	mount --bind "$machine" "$machine"
	cd "$machine"
	mount -t proc proc proc
	mount --rbind /sys sys
	mount --rbind /dev dev
	mount -t tmpfs -o mode=755 tmpfs run
	mount -t bpf bpf sys/fs/bpf
	# The cgroup namespace makes this machine's group the root of what is mounted here.
	if [ -n "$groups" ]; then
		umount -l ".$groups"
		mount -t cgroup2 cgroup2 ".$groups"
	fi
	mkdir -p .old
	pivot_root . .old
	umount -l /.old
	rmdir /.old
	cd /root/heddle
	hostname new-machine
	keep=()
	for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
		[ -z "${!name:-}" ] || keep+=("$name=${!name}")
	done
	failed=()
	summary=()
	for step in "$@"; do
		echo "\$ make $step"
		started=$SECONDS code=0
		TIMEFORMAT='%U s user, %S s system'
		{ time env -i "${keep[@]}" HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
			make "$step" </dev/null 2>&1; } 2>/run/cpu || code=$?
		outcome=passed
		[ "$code" = 0 ] || { outcome="FAILED with code $code"; failed+=("$step"); }
		summary+=("make $step: $outcome in $(minutes $((SECONDS - started))) on $(nproc) cores (CPU: $(</run/cpu))")
		[ "$step" != lab ] || env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin make down </dev/null 2>&1 || failed+=(down)
	done
	printf '%s\n' "${summary[@]}"
	[ ${#failed[@]} = 0 ]
	exit
fi

source "$(dirname "$0")/env.sh"
suite=${1:-bookworm}
shift || true
[ $# -gt 0 ] || set -- lab test
PATH=$caller_path:/usr/sbin:/usr/bin:/sbin:/bin
[ "$(id -u)" = 0 ] || fail setup/not-root "a new machine needs root: it is made of mounts and namespaces" "sudo make fresh SUITE=$suite"
if ! command -v mmdebstrap >/dev/null; then
	command -v apt-get >/dev/null ||
		fail setup/no-mmdebstrap "there is no mmdebstrap, which makes the new machine" "install mmdebstrap; it is made for Debian"
	say "apt-get install mmdebstrap"
	apt-get update -q >&2 || say "apt-get update failed; trying with the lists that are here"
	DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends mmdebstrap >&2 ||
		fail setup/apt "apt-get could not install mmdebstrap" "see the lines above"
fi
mkdir -p "$HEDDLE_CACHE"
# Two target folders, the crates and the packages.
needed=12
free=$(($(stat -f -c '%a * %S' "$HEDDLE_CACHE") / 1073741824))
[ "$free" -ge "$needed" ] || fail setup/disk "$free GiB are free for $HEDDLE_CACHE, the new machine needs $needed" \
	"make room, or name another folder with HEDDLE_CACHE"

machine=$(mktemp -d "$HEDDLE_CACHE/fresh.XXXXXX")
groups=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/self/mounts)
group=${groups:+$groups/heddle-${machine##*/}}
inside=
clean_up() {
	local try
	# The first process takes all others of its namespace with it.
	if [ -n "$inside" ]; then
		kill -KILL "$inside" 2>/dev/null || true
		wait "$inside" 2>/dev/null || true
	fi
	if [ -n "$group" ] && [ -d "$group" ]; then
		for try in {1..50}; do
			find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
			[ -d "$group" ] || break
			sleep 0.1
		done
	fi
	rm -rf --one-file-system "$machine"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

say "mmdebstrap: a minimal Debian $suite with make, git and ca-certificates, in $machine"
# This machine's proxies, checks and certificate roots of apt belong to its network.
options=()
for file in /etc/apt/apt.conf /etc/apt/apt.conf.d/*; do
	[ -f "$file" ] && grep -qiE '^[[:space:]]*Acquire::(https?|ftp|Check|Max|Retries)' "$file" && options+=(--aptopt="$file")
done
mmdebstrap --quiet --variant=minbase --include=make,git,ca-certificates "${options[@]}" "$suite" "$machine" >&2 ||
	fail fresh/mmdebstrap "mmdebstrap could not make a Debian $suite" "see the lines above"
for file in /etc/resolv.conf /etc/hosts; do
	rm -f "$machine$file"
	cat "$file" >"$machine$file"
done
for file in /usr/local/share/ca-certificates/*.crt; do
	[ -f "$file" ] && install -D -m 0644 "$file" "$machine$file"
done
chroot "$machine" update-ca-certificates >/dev/null 2>&1 || fail fresh/certificates "the certificate roots could not be set up" "run update-ca-certificates in $machine"
git -c safe.directory='*' clone --quiet --no-hardlinks "$root" "$machine/root/heddle"
say "the new machine has commit $(git -C "$machine/root/heddle" log -1 --format='%h %s')"
[ -z "$(git -C "$root" status --porcelain)" ] || say "changes that are not committed are not in it"

# Its processes are put into the group before the group becomes their root.
enter='[ -z "$1" ] || { mkdir "$1" && echo $$ >"$1/cgroup.procs"; }; shift; exec "$@"'
started=$SECONDS
exec {lines}> >(while IFS= read -r line; do printf '%6s  %s\n' "$(minutes $((SECONDS - started)))" "$line"; done)
printer=$!
bash -c "$enter" enter "$group" unshare --mount --pid --cgroup --ipc --uts --fork --kill-child \
	bash "$root/scripts/fresh.sh" --inside "$machine" "$groups" "$@" >&"$lines" {lines}>&- &
inside=$!
exec {lines}>&-
code=0
wait "$inside" || code=$?
inside=
# All that it printed comes before the result.
wait "$printer" || true
[ "$code" = 0 ] || fail fresh/failed "on a new Debian $suite not all of these passed: $(printf 'make %s ' "$@")" "the lines above say what failed"
say "on a new Debian $suite: passed in $(minutes $((SECONDS - started)))"
