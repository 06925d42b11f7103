//! Fragments: the ports of the first one, remembered for the others.

use crate::{
    maps::FRAGMENTS,
    packet::{IS_LATER_FRAGMENT, Packet, parse_transport},
};
use aya_ebpf::bindings::__sk_buff;
use heddle_abi::{DropReason, FragmentKey, FragmentPorts};

/// Fills in a fragment's ports: from its header when it is the first, else from what the first left.
///
/// The table is bounded and forgets the oldest; a fragment whose first is not known is dropped.
#[inline(never)]
pub fn ports(
    skb: *mut __sk_buff,
    packet: &mut Packet,
    identification: u32,
    is_later: bool,
) -> Result<(), DropReason> {
    let key = FragmentKey {
        source: packet.source,
        destination: packet.destination,
        identification,
        protocol: packet.protocol,
        reserved: [0; 3],
    };
    if is_later {
        packet.kind |= IS_LATER_FRAGMENT;
        // SAFETY: the entry is copied out at once; a torn read can at worst be dropped by policy.
        let Some(found) = (unsafe { FRAGMENTS.get(&key) }) else {
            return Err(DropReason::FirstLogicalDatagramFragmentNotFound);
        };
        packet.source_port = found.source;
        packet.destination_port = found.destination;
        return Ok(());
    }
    parse_transport(skb, packet)?;
    let ports = FragmentPorts {
        source: packet.source_port,
        destination: packet.destination_port,
    };
    // Without room the later fragments are dropped and counted; this one may still pass.
    let _ = FRAGMENTS.insert(&key, &ports, 0);
    Ok(())
}
