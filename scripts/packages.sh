# Sourced: every Debian package whose programs the build, the tests, the scripts and the demo call, beside the
# packages that every Debian has. scripts/path.sh puts nothing else on PATH.
# shellcheck shell=bash disable=SC2034

# What a new machine has when it gets this far; sudo only where make is not run as root.
given_packages=(apt make git sudo)
# The compiler for both sides; libstd-rust-web-dev-bpf is `core` for the eBPF target.
toolchain_packages=(cargo-web rustc-web libstd-rust-web-dev-bpf rustfmt-web rust-web-clippy)
# To link (gcc, binutils, libc6-dev) and to reach the crates registry by TLS.
build_packages=(gcc binutils libc6-dev ca-certificates)
# What the demo calls beside Heddle itself.
lab_packages=(iproute2 curl jq)
# What the tests call beside that, and the reference plugins that they chain with Heddle's (portmap calls
# iptables) and that the benchmarks compare with.
test_packages=(iputils-ping iptables containernetworking-plugins)
# What compiles libFuzzer; only `make fuzz` finds it on PATH.
fuzz_packages=(g++)
# What boots another kernel, and makes the file system that it starts with; only `make kernels` finds it on PATH.
kernels_packages=(qemu-system-x86 busybox-static cpio)
