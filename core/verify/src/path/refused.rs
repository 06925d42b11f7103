//! Packets that the programs always drop before a policy is asked: by the other end's address, or because they have the form of
//! the overlay's.

use super::{Code, Observed, Place, Seen, Subject, checks::Found, routes::leaves_elsewhere};
use crate::unroutable::{nobodys_class, unroutable_class};
use heddle_abi::{DropReason, OVERLAY_PORT};

/// ICMPv6 types that `from_pod` answers or refuses before it looks at the destination (`ndp` in
/// bpf/programs/src/neighbour.rs): multicast listeners' and neighbour discovery's.
const HANDLED_ICMPV6: [u16; 9] = [130, 131, 132, 133, 134, 135, 136, 137, 143];
const ICMPV6: u8 = 58;
const UDP: u8 = 17;

impl Found<'_> {
    /// Whether the question alone is why no packet gets through, whatever the kernels' devices and routes are.
    pub(super) fn refuses(&mut self, seen: &Observed<Seen>) -> bool {
        // The node's own stack sends wherever it likes, and says what it likes to itself.
        if self.side.is_node {
            return false;
        }
        // In the order in which `from_pod` asks.
        self.refuses_address(seen) || self.refuses_encapsulation(seen)
    }

    /// An address that nobody in particular has. As a destination that needs no answer of a node.
    fn refuses_address(&mut self, seen: &Observed<Seen>) -> bool {
        let side = self.side;
        let Some(address) = side.peer_address else {
            return false;
        };
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
        let help = "name an address that one host has and others can route to: a pod's, a node's, or one outside the cluster";
        self.refused(Code::Unroutable, &what, reason, help);
        true
    }

    /// What has the form of the overlay's packets, which nodes alone may send.
    fn refuses_encapsulation(&mut self, seen: &Observed<Seen>) -> bool {
        let side = self.side;
        let Some(seen) = seen.seen() else {
            return false;
        };
        if side.receives || side.protocol != UDP || side.port != OVERLAY_PORT {
            return false;
        }
        if !refuses_encapsulation_to(seen) || leaves_elsewhere(seen) {
            return false;
        }
        let to = match seen.place {
            Place::Outside => "out of the cluster, by nodes with an overlay",
            _ => "to a node",
        };
        let what = format!(
            "what {} sends to {} on {OVERLAY_PORT}/UDP, the overlay's port, {to}",
            side.own, side.peer
        );
        let reason = DropReason::EncapsulationTrafficIsProhibited;
        let help = "take another port: pods send nothing to nodes on this one, with an overlay also nothing out of the cluster";
        self.refused(Code::Encapsulation, &what, reason, help);
        true
    }

    fn refused(&mut self, code: Code, what: &str, reason: DropReason, help: &str) {
        self.fail(
            Subject::Path,
            code,
            true,
            format!(
                "the programs drop {what}, before a policy is asked ({})",
                reason.hubble_name()
            ),
            help.to_owned(),
        );
    }
}

/// The condition of `from_pod` (bpf/programs/src/hooks/from_pod.rs): to any node; with an overlay to all but pods, since the
/// node's device would take what comes back under a node's address.
fn refuses_encapsulation_to(seen: &Seen) -> bool {
    match seen.place {
        Place::ThisNode | Place::RemoteNode { .. } => true,
        Place::Outside => seen.overlay.is_some(),
        Place::Pod | Place::RemotePod { .. } | Place::Unknown => false,
    }
}
