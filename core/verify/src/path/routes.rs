//! Where routes lead, and whether the next hop answers.

use super::{
    Code, Device, Inside, Neighbour, NextHop, NoRoute, Observed, Place, RECENT_SECONDS, Route,
    Seen, Status, Subject,
    checks::{Expected, Found, Way},
};
use std::net::IpAddr;

const OVERLAY_ROUTE: &str = "restart the node's agent, which sets its routes to other nodes' pods again; then see who removed it";

fn pod_route(pod: Option<IpAddr>, device: &str) -> String {
    let pod = pod.map_or_else(|| "ADDRESS".to_owned(), |address| address.to_string());
    format!(
        "`ip route replace {pod} dev {device}` on the node sets it again; then see who removed it"
    )
}

impl Found<'_> {
    pub(super) fn routes(&mut self, seen: &Seen, way: &Way<'_>) {
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
            let expected = Expected::OfPod(&device.name);
            let help = "the pod's own routes were changed: delete the pod, so that it is made anew";
            let what = format!("the route of {own} to {peer}");
            self.route(&what, expected, route, true, help);
        }
        let network = "restore the route that the network between the nodes needs: a default route, or one to the address";
        let to_peer = seen.to_peer.as_ref();
        if let Some(route) = to_peer.filter(|_| !matches!(way.route, Expected::Unused)) {
            let help = if way.overlay { OVERLAY_ROUTE } else { network };
            let what = format!("the node's route to {peer}");
            self.route(&what, way.route, route, true, help);
        }
        if seen.place == Place::Unknown {
            self.not_done(
                Subject::Route,
                format!("the route to {peer}: the node's datapath knows no address of it; ask with an address"),
            );
        }
        if let (true, Some(route)) = (way.overlay && !leaves_elsewhere(seen), &seen.to_node) {
            let what =
                format!("the node's route to the node of {peer}, where encapsulated packets go,");
            // The overlay device has no lower link: the kernel sends by whatever its routes say.
            self.route(&what, Expected::Any, route, true, network);
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
                since,
                hops,
                ..
            }) => match hops.as_slice() {
                [] => {
                    let hop = NextHop {
                        device: device.clone(),
                        gateway: *gateway,
                        neighbour: *neighbour,
                        since: *since,
                    };
                    self.by_hop(what, expected, &hop, stops, help);
                }
                hops => self.by_one_of(what, expected, hops, stops, help),
            },
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

    /// A route with several next hops: each connection takes one of them, so that one which fails stops some of them.
    fn by_one_of(
        &mut self,
        what: &str,
        expected: Expected<'_>,
        hops: &[NextHop],
        stops: bool,
        help: &str,
    ) {
        let before = self.checks.len();
        let mut all_fail = true;
        for hop in hops {
            let first = self.checks.len();
            self.by_hop(what, expected, hop, stops, help);
            let mut of_hop = self.checks[first..].iter();
            all_fail &= of_hop.any(|check| check.status == Status::Fail);
        }
        let count = hops.len();
        for check in &mut self.checks[before..] {
            let others = if check.code.is_some() && !all_fail {
                ": only the connections that take this one are affected"
            } else {
                ""
            };
            let which = format!(" (one of {count} next hops{others})");
            check.seen.push_str(&which);
            check.stops &= all_fail;
        }
    }

    fn by_hop(
        &mut self,
        what: &str,
        expected: Expected<'_>,
        hop: &NextHop,
        stops: bool,
        help: &str,
    ) {
        let device = &hop.device;
        let by = match hop.gateway {
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
            Expected::Any if is_down(device) => {
                self.device("the device of the route", device, true, true);
            }
            Expected::OfPod(name) if name != device.name => self.other_network(what, device, &by),
            _ => {
                self.pass(Subject::Route, format!("{what} leads to {by}"));
                self.next_hop(hop, stops);
            }
        }
    }

    /// Another network of the pod (Multus, a VPN's tunnel) is no fault: the packet does not come to Heddle.
    fn other_network(&mut self, what: &str, device: &Device, by: &str) {
        if is_down(device) {
            self.device("the device of the pod's route", device, true, true);
            return;
        }
        self.not_done(
            Subject::Route,
            format!(
                "{what}: it leaves by {by}, which Heddle does not carry: nothing is known of its path"
            ),
        );
    }

    fn next_hop(&mut self, next: &NextHop, stops: bool) {
        let device = &next.device.name;
        let hop = match next.gateway {
            Some(gateway) => format!("the next hop {gateway} on {device}"),
            None => format!("the next hop on {device}, the address itself,"),
        };
        let help = || {
            format!(
                "see that the address of the route's next hop is right and that the host is there; `ip neigh show dev {device}` shows its entry"
            )
        };
        match next.neighbour {
            Neighbour::Known => self.pass(Subject::NextHop, format!("{hop} is known")),
            Neighbour::Absent => {
                self.pass(Subject::NextHop, format!("{hop} was not asked for lately"));
            }
            Neighbour::Failed => {
                let silent = "did not answer when its link-layer address was asked for";
                match next.since {
                    Some(seconds) if seconds <= RECENT_SECONDS => self.fail(
                        Subject::NextHop,
                        Code::NeighbourFailed,
                        stops,
                        format!(
                            "{hop} {silent}, the last time {seconds} s ago (neighbour entry FAILED)"
                        ),
                        help(),
                    ),
                    // The kernel keeps the entry for as long as nobody asks again, also when the host is back.
                    since => {
                        let when = since.map_or_else(
                            || "at a time that is not known".to_owned(),
                            |seconds| format!("{seconds} s ago"),
                        );
                        let seen = format!(
                            "{hop} {silent}, {when}, and nobody has asked since: the next packet does (neighbour entry FAILED)"
                        );
                        let check = self.add(
                            Subject::NextHop,
                            Status::Warn,
                            Some(Code::NeighbourFailed),
                            seen,
                        );
                        check.help = Some(help());
                    }
                }
            }
            Neighbour::Incomplete => self.fail(
                Subject::NextHop,
                Code::NeighbourIncomplete,
                stops,
                format!(
                    "{hop} has not told its link-layer address yet (neighbour entry INCOMPLETE)"
                ),
                help(),
            ),
        }
    }
}

fn is_down(device: &Device) -> bool {
    device
        .state
        .is_some_and(|state| !state.up || !state.carrier)
}

/// Whether what the pod sends to the peer leaves by another interface of the pod than Heddle's, whichever next hop it takes.
pub(super) fn leaves_elsewhere(seen: &Seen) -> bool {
    let Some(Observed::Seen(inside)) = &seen.inside else {
        return false;
    };
    let leads = inside.to_peer.as_ref().map(devices).unwrap_or_default();
    !leads.is_empty() && leads.iter().all(|it| it.name != inside.device.name)
}

/// The devices by which a route leads; none where there is no route.
pub(super) fn devices(route: &Observed<Route>) -> Vec<&Device> {
    match route {
        Observed::Seen(Route::Leads { device, hops, .. }) if hops.is_empty() => vec![device],
        Observed::Seen(Route::Leads { hops, .. }) => hops.iter().map(|hop| &hop.device).collect(),
        _ => Vec::new(),
    }
}
