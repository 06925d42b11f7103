//! Packet sockets in a network namespace.

use crate::bed::in_netns;
use nix::{
    libc,
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{FromRawFd, OwnedFd},
    sync::atomic::{AtomicUsize, Ordering},
};

static PINNED: AtomicUsize = AtomicUsize::new(0);

/// Keeps this thread on one CPU: what it sends over virtual links is then received in that order.
pub fn keep_to_one_cpu() {
    let here = Pid::from_raw(0);
    let allowed = sched_getaffinity(here).expect("CPU set");
    let all: Vec<usize> = (0..CpuSet::count())
        .filter(|cpu| allowed.is_set(*cpu).unwrap_or(false))
        .collect();
    let mut one = CpuSet::new();
    one.set(all[PINNED.fetch_add(1, Ordering::Relaxed) % all.len()])
        .expect("CPU");
    sched_setaffinity(here, &one).expect("affinity");
}

/// A link of a namespace, to send frames on and to see those that arrive there.
pub struct Wire {
    sender: File,
    watch: File,
    pub mac: [u8; 6],
}

impl Wire {
    pub fn open(netns: &str, interface: &'static str) -> Self {
        let (sender, watch) = in_netns(netns, move || {
            (socket(interface, 0), socket(interface, libc::ETH_P_ALL))
        });
        let said = crate::bed::said(&format!("ip -n {netns} -o link show dev {interface}"));
        let text = said
            .split_whitespace()
            .skip_while(|word| !word.starts_with("link/"))
            .nth(1)
            .expect("MAC address");
        let bytes: Vec<u8> = text
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16).expect("byte"))
            .collect();
        Self {
            sender,
            watch,
            mac: bytes.try_into().expect("six bytes"),
        }
    }

    pub fn send(&self, frame: &[u8]) {
        (&self.sender).write_all(frame).expect("frame is sent");
    }

    /// The frames that arrived since the last look.
    pub fn arrived(&self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let mut buffer = [0; 65_536];
        while let Ok(length) = (&self.watch).read(&mut buffer) {
            all.push(buffer[..length].to_vec());
        }
        all
    }
}

#[allow(unsafe_code)]
fn socket(interface: &str, protocol: i32) -> File {
    let protocol = (protocol as u16).to_be();
    let index = nix::net::if_::if_nametoindex(interface).expect("interface");
    // SAFETY: plain system calls; the address is a whole sockaddr_ll, for which zero is a value, and the
    // descriptor is owned by nobody else.
    unsafe {
        let flags = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let descriptor = libc::socket(libc::AF_PACKET, flags, 0);
        assert!(descriptor >= 0, "packet socket");
        let owned = OwnedFd::from_raw_fd(descriptor);
        let on: i32 = 1;
        let size = size_of::<i32>() as u32;
        // What the namespace itself sends is of no interest.
        let option = libc::PACKET_IGNORE_OUTGOING;
        let set = libc::setsockopt(
            descriptor,
            libc::SOL_PACKET,
            option,
            (&raw const on).cast(),
            size,
        );
        assert_eq!(set, 0, "PACKET_IGNORE_OUTGOING");
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = index as i32;
        let size = size_of::<libc::sockaddr_ll>() as u32;
        let bound = libc::bind(descriptor, (&raw const address).cast(), size);
        assert_eq!(bound, 0, "bind to {interface}");
        File::from(owned)
    }
}
