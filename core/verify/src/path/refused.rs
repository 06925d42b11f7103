//! Addresses for which the programs drop every packet before a policy is asked.

use super::{Code, Observed, Place, Seen, Subject, checks::Found};
use crate::unroutable::{nobodys_class, unroutable_class};
use heddle_abi::DropReason;

/// ICMPv6 types that `from_pod` answers or refuses before it looks at the destination (`ndp` in
/// bpf/programs/src/neighbour.rs): multicast listeners' and neighbour discovery's.
const HANDLED_ICMPV6: [u16; 9] = [130, 131, 132, 133, 134, 135, 136, 137, 143];
const ICMPV6: u8 = 58;

impl Found<'_> {
    /// Whether the address alone is why no packet gets through, whatever the kernels' devices and routes are. It needs no
    /// answer of a node.
    pub(super) fn refuses(&mut self, seen: &Observed<Seen>) -> bool {
        let side = self.side;
        let Some(address) = side.peer_address else {
            return false;
        };
        // The node's own stack sends wherever it likes, and says what it likes to itself.
        if side.is_node {
            return false;
        }
        let place = seen.seen().map(|seen| &seen.place);
        let own = side.own;
        let (what, reason) = if side.receives {
            // `from_network` asks this of what comes off the uplink: not of the node's own, nor of this node's pods.
            let class = nobodys_class(address).filter(|_| place == Some(&Place::Outside));
            let Some(class) = class else { return false };
            let what = format!("what comes to {own} from {address}, {class}");
            (what, DropReason::InvalidSourceIp)
        } else {
            if side.protocol == ICMPV6 && HANDLED_ICMPV6.contains(&side.port) {
                return false;
            }
            // `from_pod` looks for a pod of its node first.
            let class = unroutable_class(address).filter(|_| place != Some(&Place::Pod));
            let Some(class) = class else { return false };
            let what = format!("what {own} sends to {address}, {class}");
            (what, DropReason::StaleOrUnroutableIp)
        };
        self.fail(
            Subject::Path,
            Code::Unroutable,
            true,
            format!(
                "the programs drop {what}, before a policy is asked ({})",
                reason.hubble_name()
            ),
            "name an address that one host has and others can route to: a pod's, a node's, or one outside the cluster"
                .to_owned(),
        );
        true
    }
}
