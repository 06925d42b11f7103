//! One end's part of the path: what its node's kernel has, beside what the datapath relies on.

use super::{
    Check, Code, Device, Inside, Observed, Place, Seen, Status, Subject,
    routes::{devices, leaves_elsewhere},
};
use crate::Family;
use std::net::IpAddr;

/// RFC 8200, 5: a link with less carries no IPv6.
const IPV6_MIN_MTU: u32 = 1280;

/// The end whose part is evaluated.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// Its node.
    pub node: &'a str,
    /// Its name.
    pub own: &'a str,
    /// It is a node, or a pod in its node's network.
    pub is_node: bool,
    /// Its address.
    pub address: Option<IpAddr>,
    /// The other end's name.
    pub peer: &'a str,
    /// The other end's address, where it has one.
    pub peer_address: Option<IpAddr>,
    /// The family.
    pub family: Family,
    /// Whether it is the destination.
    pub receives: bool,
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port.
    pub port: u16,
}

/// What the datapath relies on to get a packet from the end to the peer.
pub(super) struct Way<'a> {
    pub(super) uplink: bool,
    /// Encapsulated, to the node where the peer is.
    pub(super) overlay: bool,
    pub(super) route: Expected<'a>,
}

/// Where the node's route to the peer must lead.
#[derive(Clone, Copy)]
pub(super) enum Expected<'a> {
    /// No packet asks it.
    Unused,
    /// The kernel decides.
    Any,
    Device(&'a str),
    /// The interface that Heddle gave the pod, or another one that is somebody else's.
    OfPod(&'a str),
}

/// Evaluates one end's part of the path.
pub fn checks(side: &Side<'_>, seen: &Observed<Seen>) -> Vec<Check> {
    let mut found = Found {
        side,
        checks: Vec::new(),
    };
    if found.refuses(seen) {
        return found.checks;
    }
    match seen {
        Observed::Seen(seen) => found.look_at(seen),
        Observed::Failed(reason) => found.not_done(
            Subject::Path,
            format!("devices, routes, next hops and listeners: {reason}"),
        ),
    }
    found.checks
}

/// The checks of one end so far.
pub(super) struct Found<'a> {
    pub(super) side: &'a Side<'a>,
    pub(super) checks: Vec<Check>,
}

impl<'a> Found<'a> {
    pub(super) fn add(
        &mut self,
        subject: Subject,
        status: Status,
        code: Option<Code>,
        seen: String,
    ) -> &mut Check {
        self.checks.push(Check {
            subject,
            status,
            code,
            node: self.side.node.to_owned(),
            families: vec![self.side.family],
            stops: false,
            seen,
            help: None,
        });
        let last = self.checks.len() - 1;
        &mut self.checks[last]
    }

    pub(super) fn pass(&mut self, subject: Subject, seen: String) {
        self.add(subject, Status::Pass, None, seen);
    }

    pub(super) fn not_done(&mut self, subject: Subject, seen: String) {
        self.add(subject, Status::NotDone, None, seen);
    }

    pub(super) fn fail(
        &mut self,
        subject: Subject,
        code: Code,
        stops: bool,
        seen: String,
        help: String,
    ) {
        let check = self.add(subject, Status::Fail, Some(code), seen);
        check.stops = stops;
        check.help = Some(help);
    }

    fn look_at(&mut self, seen: &'a Seen) {
        let way = self.way(seen);
        let is_whole = self.devices(seen, &way);
        // Without its devices there are no routes, and nothing else to be learnt from that.
        if is_whole {
            self.routes(seen, &way);
            if !leaves_elsewhere(seen) {
                self.mtu(seen, &way);
            }
        }
        self.listeners(seen);
    }

    fn way(&self, seen: &'a Seen) -> Way<'a> {
        let direct = seen.host_routing && !self.side.is_node;
        let name = |device: &'a Option<Observed<Device>>| match device {
            Some(Observed::Seen(device)) => Expected::Device(device.name.as_str()),
            _ => Expected::Any,
        };
        let (uplink, overlay, route) = match &seen.place {
            Place::Pod | Place::ThisNode | Place::Unknown => (false, false, Expected::Unused),
            Place::RemotePod { .. } if seen.overlay.is_some() => {
                let by_stack = name(&seen.overlay);
                let route = if direct { Expected::Unused } else { by_stack };
                (true, true, route)
            }
            Place::RemoteNode { .. } if seen.overlay.is_some() && !self.side.is_node => {
                (true, true, Expected::Unused)
            }
            Place::RemotePod { .. } => (true, false, name(&seen.uplink)),
            Place::RemoteNode { .. } if !self.side.is_node => (true, false, name(&seen.uplink)),
            Place::Outside if direct => (true, false, name(&seen.uplink)),
            Place::RemoteNode { .. } | Place::Outside => (false, false, Expected::Any),
        };
        if leaves_elsewhere(seen) {
            // What comes to the pod may still take the node's devices.
            let receives = self.side.receives;
            return Way {
                uplink: uplink && receives,
                overlay: overlay && receives,
                route: Expected::Unused,
            };
        }
        Way {
            // Where outer packets may go by another device, each next hop's is looked at with the route.
            uplink: uplink && !(overlay && may_go_beside_uplink(seen)),
            overlay,
            route,
        }
    }

    /// Whether every device of the way can carry packets.
    fn devices(&mut self, seen: &Seen, way: &Way<'_>) -> bool {
        let own = self.side.own;
        let role = format!("the host side of the link of {own}");
        let link = seen.pod_link.as_ref();
        // Both sides of a link go together: that is told once.
        let is_gone = link
            .and_then(Observed::seen)
            .is_some_and(|device| device.state.is_none());
        let inside = seen.inside.as_ref().filter(|_| !is_gone);
        let mut whole = match inside {
            Some(Observed::Seen(Inside { device, .. })) => {
                let role = format!("the interface of {own}");
                // Where the host side is down, this one has no carrier.
                self.device(&role, device, false, true)
            }
            Some(Observed::Failed(reason)) => {
                let what = format!("the network namespace of {own}: {reason}");
                self.not_done(Subject::Device, what);
                true
            }
            None => true,
        };
        // Too small for IPv6 inside is as good as told of both sides.
        whole &= self.observed_device(&role, link, false, whole);
        if way.overlay {
            whole &= self.observed_device("the overlay device", seen.overlay.as_ref(), false, true);
        }
        if way.uplink {
            // Outer headers are of the underlay's family.
            let carries_inner = !way.overlay;
            whole &= self.observed_device("the uplink", seen.uplink.as_ref(), true, carries_inner);
        }
        whole
    }

    fn observed_device(
        &mut self,
        role: &str,
        device: Option<&Observed<Device>>,
        needs_carrier: bool,
        carries_inner: bool,
    ) -> bool {
        match device {
            Some(Observed::Seen(device)) => self.device(role, device, needs_carrier, carries_inner),
            Some(Observed::Failed(reason)) => {
                self.not_done(Subject::Device, format!("{role}: {reason}"));
                true
            }
            None => true,
        }
    }

    /// Whether a device can carry packets of the family.
    pub(super) fn device(
        &mut self,
        role: &str,
        device: &Device,
        needs_carrier: bool,
        carries_inner: bool,
    ) -> bool {
        let name = &device.name;
        let Some(state) = device.state else {
            self.fail(
                Subject::Device,
                Code::DeviceMissing,
                true,
                format!("{role}, {name}, is not there"),
                if name.starts_with("hd") || role.starts_with("the interface") {
                    "somebody removed it: delete the pod, so that it is made anew".to_owned()
                } else {
                    "restart the node's agent: it makes the overlay device, and says what is wrong with the uplink"
                        .to_owned()
                },
            );
            return false;
        };
        if !state.up || (needs_carrier && !state.carrier) {
            let (what, help) = if state.up {
                (
                    "has no carrier",
                    "look at its other side: the cable, the switch, the host's virtual port"
                        .to_owned(),
                )
            } else {
                (
                    "is down",
                    format!("`ip link set dev {name} up` where it is; then see who set it down"),
                )
            };
            self.fail(
                Subject::Device,
                Code::DeviceDown,
                true,
                format!("{role}, {name}, {what}"),
                help,
            );
            return false;
        }
        if carries_inner && self.side.family == Family::V6 && state.mtu < IPV6_MIN_MTU {
            self.fail(
                Subject::Mtu,
                Code::MtuBelow1280,
                true,
                format!(
                    "{role}, {name}, has MTU {}: less than {IPV6_MIN_MTU}, so the kernel carries no IPv6 there",
                    state.mtu
                ),
                format!(
                    "give it an MTU of {IPV6_MIN_MTU} at least; its IPv6 addresses and routes do not come back by themselves"
                ),
            );
            return false;
        }
        self.pass(
            Subject::Device,
            format!("{role}, {name}, is up, MTU {}", state.mtu),
        );
        true
    }
}

/// Whether encapsulated packets may leave the node by another device than the uplink.
fn may_go_beside_uplink(seen: &Seen) -> bool {
    let uplink = seen.uplink.as_ref().and_then(Observed::seen);
    let outer = seen.to_node.as_ref().map(devices).unwrap_or_default();
    uplink.is_some_and(|uplink| outer.iter().any(|device| device.name != uplink.name))
}
