//! Whether somebody takes the packet at the destination.

use super::{Code, Listener, Observed, Place, Route, Seen, Status, Subject, checks::Found};
use std::net::{IpAddr, Ipv6Addr};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

impl Found<'_> {
    pub(super) fn listeners(&mut self, seen: &Seen) {
        let side = self.side;
        let name = match side.protocol {
            TCP => "TCP",
            UDP => "UDP",
            SCTP => "SCTP",
            _ => return,
        };
        if !side.receives {
            return;
        }
        let (own, port) = (side.own, side.port);
        let inside = seen.inside.as_ref().and_then(Observed::seen);
        let listeners = match inside {
            Some(inside) => inside.listeners.as_ref(),
            None => seen.listeners.as_ref(),
        };
        let listeners = match listeners {
            Some(Observed::Seen(listeners)) => listeners,
            Some(Observed::Failed(reason)) => {
                let what = format!("who takes {name}/{port} in {own}: {reason}");
                return self.not_done(Subject::Listener, what);
            }
            None => {
                let what = format!("who takes {name}/{port} in {own}: the kernel was not asked");
                return self.not_done(Subject::Listener, what);
            }
        };
        let Some(address) = side.address else { return };
        let mut accepting = listeners
            .iter()
            .filter(|it| accepts(it, address))
            .peekable();
        if let Some(first) = accepting.peek() {
            let first = first.device.clone().unwrap_or_default();
            let comes_by = arrival(seen);
            let hears = |it: &Listener| it.device.is_none() || it.device.as_deref() == comes_by;
            if accepting.any(hears) {
                return self.pass(Subject::Listener, format!("{own} takes {name}/{port}"));
            }
            // It may hear by a way that is not looked at: several networks of a pod, a VRF, asymmetric routes.
            let what = format!(
                "who takes {name}/{port} in {own}: what listens is bound to device {first}, and whether packets come by it is not looked at"
            );
            return self.not_done(Subject::Listener, what);
        }
        let bound: Vec<String> = listeners.iter().map(|it| it.address.to_string()).collect();
        let nobody = if bound.is_empty() {
            format!("nothing in {own} listens on {name}/{port}")
        } else {
            format!(
                "what listens on {name}/{port} in {own} takes nothing for {address}: it is bound to {}",
                bound.join(", ")
            )
        };
        let help = if bound.is_empty() {
            format!(
                "see that its process runs, and on which port it listens; `ss -lnp` in {own} shows all"
            )
        } else {
            "let it listen on all addresses, 0.0.0.0 and ::".to_owned()
        };
        // Before a socket is looked up, a service, a host port or a mesh in the pod itself may send the packet elsewhere.
        let seen = format!("{nobody} (ports that rules translate are not looked at)");
        let check = self.add(
            Subject::Listener,
            Status::Warn,
            Some(Code::NoListener),
            seen,
        );
        check.help = Some(help);
    }
}

/// The device by which the peer's packets come, as far as it is known: the pod's interface; of a node the one by which its
/// answers go.
fn arrival(seen: &Seen) -> Option<&str> {
    if let Some(Observed::Seen(inside)) = &seen.inside {
        return Some(&inside.device.name);
    }
    match &seen.to_peer {
        Some(Observed::Seen(Route::Leads { device, hops, .. })) if hops.is_empty() => {
            Some(&device.name)
        }
        // Its own packets come by the loopback device, whichever of its addresses they are for.
        _ if seen.place == Place::ThisNode => Some("lo"),
        _ => None,
    }
}

/// Whether a socket takes what comes for an address.
fn accepts(listener: &Listener, address: IpAddr) -> bool {
    match (listener.address, address) {
        (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(_)) => !listener.ipv6_only,
        (IpAddr::V4(bound), IpAddr::V4(_)) if bound.is_unspecified() => true,
        (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(_)) => true,
        (bound, address) => bound.to_canonical() == address,
    }
}
