//! One end's part of the path: what its node's kernel has, beside what the datapath relies on.

use super::{
    Check, Code, Device, Inside, Listener, Neighbour, NoRoute, Observed, Place, Route, Seen,
    Status, Subject,
};
use crate::Family;
use std::net::{IpAddr, Ipv6Addr};

/// RFC 8200, 5: a link with less carries no IPv6.
const IPV6_MIN_MTU: u32 = 1280;
/// Bytes of the outer headers over IPv4 and over IPv6 (reference 3.4).
const OVERHEAD_IPV4: u32 = 50;
const OVERHEAD_IPV6: u32 = 70;
const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

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
struct Way<'a> {
    uplink: bool,
    /// Encapsulated, to the node where the peer is.
    overlay: bool,
    route: Expected<'a>,
}

/// Where the node's route to the peer must lead.
#[derive(Clone, Copy)]
enum Expected<'a> {
    /// No packet asks it.
    Unused,
    /// The kernel decides.
    Any,
    Device(&'a str),
}

/// Evaluates one end's part of the path.
pub fn checks(side: &Side<'_>, seen: &Observed<Seen>) -> Vec<Check> {
    let mut found = Found {
        side,
        checks: Vec::new(),
    };
    match seen {
        Observed::Seen(seen) => found.look_at(seen),
        Observed::Failed(reason) => found.not_done(
            Subject::Path,
            format!("devices, routes, next hops and listeners: {reason}"),
        ),
    }
    found.checks
}

struct Found<'a> {
    side: &'a Side<'a>,
    checks: Vec<Check>,
}

impl<'a> Found<'a> {
    fn add(
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

    fn pass(&mut self, subject: Subject, seen: String) {
        self.add(subject, Status::Pass, None, seen);
    }

    fn not_done(&mut self, subject: Subject, seen: String) {
        self.add(subject, Status::NotDone, None, seen);
    }

    fn fail(&mut self, subject: Subject, code: Code, stops: bool, seen: String, help: String) {
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
            self.mtu(seen, &way);
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
        Way {
            uplink,
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
    fn device(
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

    fn routes(&mut self, seen: &Seen, way: &Way<'_>) {
        let (own, peer) = (self.side.own, self.side.peer);
        let peer = match self.side.peer_address {
            Some(address) if address.to_string() != peer => format!("{peer} ({address})"),
            _ => peer.to_owned(),
        };
        if let Some(Observed::Seen(Inside {
            device,
            to_peer: Some(route),
            ..
        })) = &seen.inside
        {
            let expected = Expected::Device(&device.name);
            let help = "the pod's own routes were changed: delete the pod, so that it is made anew";
            self.route(
                &format!("the route of {own} to {peer}"),
                expected,
                route,
                true,
                help,
            );
        }
        let network = "restore the route that the network between the nodes needs: a default route, or one to the address";
        match (&seen.to_peer, way.route) {
            (_, Expected::Unused) => {}
            (Some(route), expected) => {
                let help = if way.overlay { OVERLAY_ROUTE } else { network };
                self.route(
                    &format!("the node's route to {peer}"),
                    expected,
                    route,
                    true,
                    help,
                );
            }
            (None, _) => self.not_done(
                Subject::Route,
                format!("the route to {peer}: no address of it is known; ask with an address"),
            ),
        }
        if seen.place == Place::Unknown {
            self.not_done(
                Subject::Route,
                format!("the route to {peer}: the node's datapath knows no address of it; ask with an address"),
            );
        }
        if let (true, Some(route)) = (way.overlay, &seen.to_node) {
            let uplink = seen.uplink.as_ref().and_then(Observed::seen);
            let expected = uplink.map_or(Expected::Any, |device| Expected::Device(&device.name));
            let what =
                format!("the node's route to the node of {peer}, where encapsulated packets go,");
            self.route(&what, expected, route, true, network);
        }
        if let (Some(route), Some(Observed::Seen(link))) = (&seen.to_own, &seen.pod_link) {
            // With host routing the programs put packets straight into the pod; only the node's own take this route.
            let stops = !seen.host_routing || seen.place == Place::ThisNode;
            let what = format!("the node's route to its pod {own}");
            let help = pod_route(self.side.address, &link.name);
            self.route(&what, Expected::Device(&link.name), route, stops, &help);
        }
    }

    /// Evaluates a route and its next hop. What does not stop this connection is a warning.
    fn route(
        &mut self,
        what: &str,
        expected: Expected<'_>,
        route: &Observed<Route>,
        stops: bool,
        help: &str,
    ) {
        let before = self.checks.len();
        match route {
            Observed::Failed(reason) => self.not_done(Subject::Route, format!("{what}: {reason}")),
            Observed::Seen(Route::Refused(reason)) => {
                let reason = match reason {
                    NoRoute::Missing => "is missing: the kernel has none",
                    NoRoute::Unreachable => "is of type unreachable",
                    NoRoute::Prohibited => "is of type prohibit",
                    NoRoute::Blackhole => "is of type blackhole",
                };
                self.fail(
                    Subject::Route,
                    Code::NoRoute,
                    stops,
                    format!("{what} {reason}"),
                    help.to_owned(),
                );
            }
            Observed::Seen(Route::Leads {
                device,
                gateway,
                neighbour,
                ..
            }) => {
                let by = match gateway {
                    Some(gateway) => format!("{} by {gateway}", device.name),
                    None => device.name.clone(),
                };
                match expected {
                    Expected::Device(name) if name != device.name => self.fail(
                        Subject::Route,
                        Code::WrongDevice,
                        stops,
                        format!("{what} leads to {by}, and must lead to {name}"),
                        help.to_owned(),
                    ),
                    Expected::Any
                        if device
                            .state
                            .is_some_and(|state| !state.up || !state.carrier) =>
                    {
                        self.device("the device of the route", device, true, true);
                    }
                    _ => {
                        self.pass(Subject::Route, format!("{what} leads to {by}"));
                        self.next_hop(*gateway, device, *neighbour, stops);
                    }
                }
            }
        }
        if !stops {
            for check in &mut self.checks[before..] {
                if check.status == Status::Fail {
                    check.status = Status::Warn;
                    check.seen.push_str("; this connection does not take it, the node's own to the pod do (probes, host ports)");
                }
            }
        }
    }

    fn next_hop(
        &mut self,
        gateway: Option<IpAddr>,
        device: &Device,
        neighbour: Neighbour,
        stops: bool,
    ) {
        let hop = match gateway {
            Some(gateway) => format!("the next hop {gateway} on {}", device.name),
            None => format!("the next hop on {}, the address itself,", device.name),
        };
        let help = || {
            format!(
                "see that the address of the route's next hop is right and that the host is there; `ip neigh show dev {}` shows its entry",
                device.name
            )
        };
        match neighbour {
            Neighbour::Known => self.pass(Subject::NextHop, format!("{hop} is known")),
            Neighbour::Absent => {
                self.pass(Subject::NextHop, format!("{hop} was not asked for lately"));
            }
            Neighbour::Failed => self.fail(
                Subject::NextHop,
                Code::NeighbourFailed,
                stops,
                format!("{hop} did not answer when its link-layer address was asked for (neighbour entry FAILED)"),
                help(),
            ),
            Neighbour::Incomplete => self.fail(
                Subject::NextHop,
                Code::NeighbourIncomplete,
                stops,
                format!("{hop} has not told its link-layer address yet (neighbour entry INCOMPLETE)"),
                help(),
            ),
        }
    }

    /// Whether what the pod may send fits through what its node has of the way.
    fn mtu(&mut self, seen: &Seen, way: &Way<'_>) {
        let own = self.side.own;
        let mut limits: Vec<(u32, String)> = Vec::new();
        let state = |device: Option<&Observed<Device>>| {
            let device = device.and_then(Observed::seen)?;
            Some((device.name.clone(), device.state?))
        };
        if let Some((name, link)) = state(seen.pod_link.as_ref()) {
            limits.push((
                link.mtu,
                format!("{name}, the host side of its link, has MTU {}", link.mtu),
            ));
        }
        let overlay = state(seen.overlay.as_ref()).filter(|_| way.overlay);
        if let Some((name, device)) = &overlay {
            limits.push((device.mtu, format!("{name} has MTU {}", device.mtu)));
        }
        let outer = seen.to_node.as_ref().filter(|_| way.overlay);
        let inner = seen
            .to_peer
            .as_ref()
            .filter(|_| !matches!(way.route, Expected::Unused));
        for (route, is_outer) in [(outer, true), (inner, false)] {
            let Some(Observed::Seen(Route::Leads { device, mtu, .. })) = route else {
                continue;
            };
            let Some(device_state) = device.state else {
                continue;
            };
            let node = match &seen.place {
                Place::RemotePod { node } | Place::RemoteNode { node } if is_outer => Some(node),
                _ => None,
            };
            let (overhead, beside) = match node {
                Some(IpAddr::V6(_)) => (OVERHEAD_IPV6, ", less 70 bytes of outer headers"),
                Some(IpAddr::V4(_)) => (OVERHEAD_IPV4, ", less 50 bytes of outer headers"),
                None => (0, ""),
            };
            for (mtu, whose) in [
                (Some(device_state.mtu), device.name.as_str()),
                (*mtu, "the route"),
            ] {
                if let Some(mtu) = mtu {
                    limits.push((
                        mtu.saturating_sub(overhead),
                        format!("{whose} has MTU {mtu}{beside}"),
                    ));
                }
            }
        }
        let sender = match &seen.inside {
            Some(Observed::Seen(_)) => seen.pod_mtu(),
            // What the node's stack sends is told the MTU of the device; encapsulated it must fit as well.
            None => overlay.map(|(_, state)| state.mtu),
            Some(Observed::Failed(_)) => None,
        };
        let Some(sender) = sender else { return };
        match limits.into_iter().min() {
            Some((limit, why)) if limit < sender => self.fail(
                Subject::Mtu,
                Code::MtuTooSmall,
                false,
                format!(
                    "{own} sends packets of up to {sender} bytes, and those of more than {limit} do not fit: {why}"
                ),
                "give every device of the way the MTU of the pods at least, or the pods a smaller one (pods get the uplink's, less the outer headers with VXLAN, when they are made)".to_owned(),
            ),
            Some(_) => self.pass(Subject::Mtu, format!("what {own} sends, up to {sender} bytes, fits")),
            None => {}
        }
    }

    fn listeners(&mut self, seen: &Seen) {
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
        if listeners.iter().any(|it| accepts(it, address)) {
            return self.pass(Subject::Listener, format!("{own} takes {name}/{port}"));
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
        if side.is_node {
            // A service or a host port may be translated before a socket is looked up.
            let seen = format!("{nobody} (ports that rules translate are not looked at)");
            let check = self.add(
                Subject::Listener,
                Status::Warn,
                Some(Code::NoListener),
                seen,
            );
            check.help = Some(help);
        } else {
            self.fail(Subject::Listener, Code::NoListener, false, nobody, help);
        }
    }
}

/// Whether the pods of both ends have different MTUs: what the one sends may not fit the other.
pub fn differing_mtu(
    names: (&str, &str),
    node: &str,
    family: Family,
    from: u32,
    to: u32,
) -> Option<Check> {
    let smaller = from.min(to);
    (from != to).then(|| Check {
        subject: Subject::Mtu,
        status: Status::Warn,
        code: Some(Code::MtuDiffers),
        node: node.to_owned(),
        families: vec![family],
        stops: false,
        seen: format!(
            "{} has MTU {from} and {} has {to}: TCP agrees on the smaller one, datagrams of more than {smaller} bytes may be lost",
            names.0, names.1
        ),
        help: Some("pods get the MTU that their node has when they are made: see that the nodes' uplinks have the same, then make the pods anew".to_owned()),
    })
}

const OVERLAY_ROUTE: &str = "restart the node's agent, which sets its routes to other nodes' pods again; then see who removed it";

fn pod_route(pod: Option<IpAddr>, device: &str) -> String {
    let pod = pod.map_or_else(|| "ADDRESS".to_owned(), |address| address.to_string());
    format!(
        "`ip route replace {pod} dev {device}` on the node sets it again; then see who removed it"
    )
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
