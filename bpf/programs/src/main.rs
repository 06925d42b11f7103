//! The eBPF programs: one file in `hooks` per hook, each a few lines over the shared stages.
//!
//! | program | hook | sees |
//! |---|---|---|
//! | `from_pod` | tcx ingress of a pod's host-side link | what the pod sends |
//! | `to_pod` | tcx egress of a pod's host-side link | what the node's stack sends to the pod |
//! | `from_network` | tcx ingress of the uplink | what arrives from other nodes and from outside |
//! | `to_network` | tcx egress of the uplink, while host policies are in force | what the node itself sends |
//! | `from_overlay` | tcx ingress of the overlay device | what other nodes encapsulated |
//! | `to_overlay` | tcx egress of the overlay device | what is about to be encapsulated |
//!
//! A packet is parsed once into a [`packet::Packet`], admitted by [`connection::admit`] (connection
//! entry and policy of every local end), and then delivered. Whatever is not forwarded goes through
//! [`report::drop`].
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", allow(internal_features))]

#[cfg(target_arch = "bpf")]
mod connection;
#[cfg(target_arch = "bpf")]
mod deliver;
#[cfg(target_arch = "bpf")]
mod hooks;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod memory;
#[cfg(target_arch = "bpf")]
mod neighbour;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod policy;
#[cfg(target_arch = "bpf")]
mod report;
#[cfg(target_arch = "bpf")]
mod subprogram;
#[cfg(target_arch = "bpf")]
mod tunnel;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The compiler removes every panic; the verifier refuses a program where it could not.
    loop {}
}

#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual BSD/GPL\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {}
