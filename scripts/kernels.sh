#!/usr/bin/env bash
# The datapath's tests on another kernel than this machine's: Debian's kernel of this release boots in QEMU, which
# interprets (nothing of this machine is virtualized), with an initial file system of the test programs and what they
# call. Functions only; an interpreter's times say nothing.
#
#   scripts/kernels.sh [TEST PROGRAM...]     of node/datapath, without `upgrade`, which builds programs, and `links`,
#                                            which is about tcx (Linux 6.6)
set -euo pipefail
source "$(dirname "$0")/env.sh"
use_declared_path kernels

[ "$(uname -m)" = x86_64 ] || fail test/machine "kernels are booted on x86_64 only, and this is $(uname -m)" "run it on another machine"
[ $# -gt 0 ] || set -- frames hostile connections host host_ports node nodes wire

# In seconds: a kernel that hangs must not hang who waits for it.
longest=${HEDDLE_KERNEL_LIMIT:-2400}
[[ $longest =~ ^[1-9][0-9]*$ ]] || fail setup/usage "HEDDLE_KERNEL_LIMIT is '$longest', which is no number of seconds" "HEDDLE_KERNEL_LIMIT=2400"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# fetch_kernel: the newest kernel of this release, kept in the cache. It is unpacked, never installed.
fetch_kernel() {
	local package
	package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/^ *Depends: linux-image-/ { print $2; exit }')
	[ -n "$package" ] || fail setup/apt "the package lists name no kernel (linux-image-cloud-amd64)" "apt-get update"
	kernel=$HEDDLE_CACHE/kernels/$package
	[ -d "$kernel" ] && return
	say "apt-get download $package"
	mkdir -p "$HEDDLE_CACHE/kernels" "$work/kernel"
	(cd "$work" && apt-get download -q -o APT::Sandbox::User=root "$package" >&2) ||
		fail setup/apt "$package could not be fetched" "see the lines above"
	dpkg-deb -x "$work/$package"_*.deb "$work/kernel"
	mv "$work/kernel" "$kernel"
}

# copy_libraries PROGRAM: what it is linked to, into the new root.
copy_libraries() {
	local library
	while read -r library; do
		[ -e "$new$library" ] || install -D -m 755 "$(readlink -f "$library")" "$new$library"
	done < <(ldd "$1" 2>/dev/null | grep -o '/[^ ]*')
}

fetch_kernel
say "cargo test --no-run -p heddle-datapath"
declare -A programs=()
while IFS=$'\t' read -r name program; do
	programs[$name]=$program
done < <(cargo test -p heddle-datapath --locked --no-run --message-format=json-render-diagnostics | jq -r '
	select(.reason == "compiler-artifact" and .profile.test and .executable and .target.kind[0] == "test")
	| [.target.name, .executable] | @tsv')

new=$work/root
mkdir -p "$new"/{dev,proc,sys,run,tmp,etc,root,tests,usr/{bin,sbin,lib/modules,lib64}}
ln -s usr/{bin,sbin,lib,lib64} "$new"
cp "$(readlink -f "$(command -v busybox)")" "$new/bin/busybox"
for program in $("$new/bin/busybox" --list); do
	[ "$program" = busybox ] || ln -s busybox "$new/bin/$program"
done
ln -s ../bin/busybox "$new/sbin/modprobe"
# What the tests call and busybox lacks, or does otherwise.
for program in sh bash ip tc ping mountpoint iptables ip6tables; do
	rm -f "$new/bin/$program"
	found=$(readlink -f "$(command -v "$program")")
	install -D -m 755 "$found" "$new$found"
	copy_libraries "$found"
	[ -e "$new/bin/$program" ] || ln -s "$found" "$new/bin/$program"
done
# iptables loads its matches and targets by name.
extensions=/usr/lib/x86_64-linux-gnu/xtables
if [ -d "$extensions" ]; then
	mkdir -p "$new$extensions"
	cp "$extensions"/*.so "$new$extensions"
fi
for name in "$@"; do
	[ -n "${programs[$name]:-}" ] || fail setup/usage "node/datapath has no test program '$name'" "choose of: ${!programs[*]}"
	strip -o "$new/tests/$name" "${programs[$name]}"
	copy_libraries "${programs[$name]}"
done
version=$(basename "$kernel"/boot/vmlinuz-*)
version=${version#vmlinuz-}
mkdir -p "$new/lib/modules/$version/kernel"
for part in net drivers/net lib crypto arch; do
	# Merged-/usr kernels have them in usr/lib; what is built in has no folder.
	for modules in "$kernel"{,/usr}"/lib/modules/$version/kernel/$part"; do
		[ -d "$modules" ] || continue
		mkdir -p "$new/lib/modules/$version/kernel/$part"
		cp -r "$modules/." "$new/lib/modules/$version/kernel/$part"
	done
done
busybox depmod -b "$new" "$version"
cat >"$new/init" <<-'INIT'
	#!/bin/busybox sh
	export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root RUST_BACKTRACE=0 TERM=dumb
	mount -t proc proc /proc
	mount -t sysfs sys /sys
	mount -t devtmpfs dev /dev
	mount -t tmpfs run /run
	mount -t tmpfs tmp /tmp
	mount -t bpf bpf /sys/fs/bpf
	mkdir -p /run/netns
	for module in veth vxlan cls_bpf sch_ingress dummy 8021q bridge; do
	    modprobe "$module" || echo "kernels: module $module is missing"
	done
	ip link set lo up
	echo "kernels: Linux $(uname -r)"
	for test in $TESTS; do
	    echo "kernels: $test begins at $(cut -d. -f1 /proc/uptime) s"
	    cd /root
	    "/tests/$test" --test-threads=1 </dev/null 2>&1
	    echo "kernels: $test ended with code $?"
	done
	echo "kernels: end"
	poweroff -f
INIT
chmod 755 "$new/init"
# Root's in the archive, whoever makes it.
(cd "$new" && find . | cpio --quiet -o -H newc -R 0:0 | gzip -1) >"$work/initrd"

say "Linux $version: $*"
code=0
timeout --kill-after=10 "$longest" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 3G -nographic -no-reboot -nodefaults \
	-serial stdio -kernel "$kernel/boot/vmlinuz-$version" -initrd "$work/initrd" \
	-append "console=ttyS0 quiet panic=-1 no_timer_check rcupdate.rcu_expedited=1 TESTS=\"$*\"" </dev/null 2>&1 | tr -d '\r' | tee "$work/output" || code=$?
failed=()
for name in "$@"; do
	grep -q "^kernels: $name ended with code 0\$" "$work/output" || failed+=("$name")
done
[ ${#failed[@]} = 0 ] || fail test/kernel "on Linux $version these failed or did not end: ${failed[*]}" "their output is above (QEMU ended with $code)"
say "Linux $version: $(grep -c '^test .* ok$' "$work/output") tests passed"
