//! Devices, route look-ups and neighbour entries.

use crate::{
    DatapathError,
    netlink::{ENODEV, Netlink, failed, is_errno},
};
use futures_util::TryStreamExt;
use heddle_verify::path::{Device, DeviceState, Neighbour, NextHop, NoRoute, Route};
use rtnetlink::{
    RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        link::{LinkAttribute, LinkFlags, LinkMessage},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
        route::{
            RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHop,
            RouteNextHopFlags, RouteType, RouteVia,
        },
    },
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
};

const ENETUNREACH: i32 = 101;
const EHOSTUNREACH: i32 = 113;
const EACCES: i32 = 13;
const EINVAL: i32 = 22;
/// Neighbour entries of a link that are looked through.
const MOST_NEIGHBOURS: usize = 16_384;
/// Ticks of a second, in which the kernel tells times to user space (`USER_HZ`, linux/param.h).
const USER_HZ: u32 = 100;
/// A source for look-ups that are to prefer a device (IPv6): without one the kernel leaves other devices' routes out.
const SOME_SOURCE: Ipv6Addr = Ipv6Addr::LOCALHOST;

/// Which routes a look-up takes, by the index of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Among {
    All,
    /// Those by the device alone.
    By(u32),
    /// Among those of the same prefix and metric the ones by the device: what a redirect of IPv6 does.
    Preferring(u32),
}

impl Netlink {
    /// A device by name.
    pub(crate) fn device(&self, name: &str) -> Result<Device, DatapathError> {
        let found = self.run(|handle| async move {
            let mut links = handle.link().get().match_name(name.to_owned()).execute();
            links.try_next().await
        });
        let found = match found {
            Err(error) if is_errno(&error, ENODEV) => None,
            found => found.map_err(failed("look up device", name))?,
        };
        Ok(Device {
            name: name.to_owned(),
            state: found.map(|message| state(&message)),
        })
    }

    pub(super) fn device_at(&self, index: u32) -> Result<Device, DatapathError> {
        let found = self.run(|handle| async move {
            let mut links = handle.link().get().match_index(index).execute();
            links.try_next().await
        });
        let number = index.to_string();
        let found = match found {
            Err(error) if is_errno(&error, ENODEV) => None,
            found => found.map_err(failed("look up device", number.as_str()))?,
        };
        let name = found.as_ref().and_then(|message| {
            let mut attributes = message.attributes.iter();
            attributes.find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name.clone()),
                _ => None,
            })
        });
        Ok(Device {
            name: name.unwrap_or(number),
            state: found.map(|message| state(&message)),
        })
    }

    /// Where the kernel would send a packet of this namespace to an address.
    pub(crate) fn route_to(&self, address: IpAddr) -> Result<Route, DatapathError> {
        self.look_up_route(address, Among::All)
    }

    /// Where a redirect to a device would send a packet to an address. Of IPv4, only routes by that device count. Of IPv6
    /// the longest prefix with the smallest metric does, and its next hop is looked for on the device whatever the route's
    /// is: another device's route is as good where the device has one with the same next hop.
    pub(crate) fn route_by(&self, address: IpAddr, device: &str) -> Result<Route, DatapathError> {
        let Some(link) = self.link(device)? else {
            return self.route_to(address);
        };
        let own = self.look_up_route(address, Among::By(link.index));
        if address.is_ipv4() {
            return match own {
                Ok(route @ Route::Leads { .. }) => Ok(route),
                // The device has no route, and the kernel takes the address for one on its link. What the routes say of it,
                // the look-up among all tells.
                _ => self.route_to(address),
            };
        }
        let taken = self.look_up_route(address, Among::Preferring(link.index))?;
        Ok(match (own, taken) {
            (Ok(own), taken)
                if is_another(&taken, device) && gateways(&own) == gateways(&taken) =>
            {
                own
            }
            (_, taken) => taken,
        })
    }

    fn look_up_route(&self, address: IpAddr, among: Among) -> Result<Route, DatapathError> {
        let route = match self.ask_route(address, among, false)? {
            Ok(route) => route,
            Err(reason) => return Ok(Route::Refused(reason)),
        };
        // The route itself, which a look-up that was answered with a device need not have.
        let matched = self.ask_route(address, among, true)?;
        let by_one = matches!(among, Among::By(_));
        if by_one && matched.is_err() {
            return Ok(Route::Refused(NoRoute::Missing));
        }
        let Some(index) = output(&route) else {
            return Ok(Route::Refused(NoRoute::Missing));
        };
        let is_local = route.header.kind == RouteType::Local;
        let hop = |index, gateway: Option<IpAddr>| {
            let (neighbour, since) = if is_local {
                (Neighbour::Absent, None)
            } else {
                self.neighbour(index, gateway.unwrap_or(address))?
            };
            Ok::<_, DatapathError>(NextHop {
                device: self.device_at(index)?,
                gateway,
                neighbour,
                since,
            })
        };
        let first = hop(index, gateway(&route.attributes))?;
        let others = match &matched {
            // By a device, the kernel takes one of its next hops and no other.
            Ok(matched) if !by_one => next_hops(matched),
            _ => Vec::new(),
        };
        let hops = others
            .into_iter()
            .map(|other| hop(other.interface_index, gateway(&other.attributes)))
            .collect::<Result<_, _>>()?;
        Ok(Route::Leads {
            device: first.device,
            gateway: first.gateway,
            mtu: mtu(&route),
            neighbour: first.neighbour,
            since: first.since,
            hops,
        })
    }

    /// What the kernel answers a look-up with: where the packet goes, or the route that is `matched`.
    fn ask_route(
        &self,
        address: IpAddr,
        among: Among,
        matched: bool,
    ) -> Result<Result<RouteMessage, NoRoute>, DatapathError> {
        let doing = "look up the route to";
        let length = if address.is_ipv4() { 32 } else { 128 };
        let question = RouteMessageBuilder::<IpAddr>::new().destination_prefix(address, length);
        let question = match among {
            Among::All => question,
            Among::By(index) => question.map(|question| question.output_interface(index)),
            Among::Preferring(index) => question
                .and_then(|question| question.source_prefix(SOME_SOURCE.into(), 128))
                .map(|question| question.output_interface(index)),
        };
        let mut question = question
            .map_err(|error| DatapathError::Failed {
                doing,
                object: address.to_string(),
                reason: error.to_string(),
            })?
            .build();
        if matched {
            question.header.flags = RouteFlags::FibMatch;
        }
        let answer = self
            .run(|handle| async move { handle.route().get(question).execute().try_next().await });
        Ok(match answer {
            Ok(Some(route)) => match refused_type(route.header.kind) {
                Some(reason) => Err(reason),
                None => Ok(route),
            },
            Ok(None) => Err(NoRoute::Missing),
            Err(error) => match refusal(&error) {
                Some(reason) => Err(reason),
                None => return Err(failed(doing, address.to_string())(error)),
            },
        })
    }

    /// The neighbour entry of an address on a link, and the seconds since it changed. Asked for it, the kernel does not ask
    /// the neighbour.
    fn neighbour(
        &self,
        index: u32,
        address: IpAddr,
    ) -> Result<(Neighbour, Option<u32>), DatapathError> {
        let family = match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        let is_its = move |entry: &NeighbourMessage| {
            entry.header.ifindex == index
                && entry.attributes.iter().any(|attribute| match attribute {
                    NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address == *v4,
                    NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address == *v6,
                    _ => false,
                })
        };
        self.run(|handle| async move {
            let mut question = handle.neighbours().get().set_address_family(family);
            let attributes = &mut question.message_mut().attributes;
            attributes.push(NeighbourAttribute::IfIndex(index));
            let mut entries = question.execute();
            // Permanent ones have no bound of the kernel's, and a pod may be allowed to add some.
            for _ in 0..MOST_NEIGHBOURS {
                match entries.try_next().await? {
                    None => return Ok(Some((Neighbour::Absent, None))),
                    Some(entry) if is_its(&entry) => {
                        return Ok(Some((known(entry.header.state), since(&entry))));
                    }
                    Some(_) => {}
                }
            }
            Ok(None)
        })
        .map_err(failed("list", "neighbours"))?
        .ok_or_else(|| DatapathError::Failed {
            doing: "list",
            object: "neighbours".to_owned(),
            reason: format!("a link has more than {MOST_NEIGHBOURS}"),
        })
    }
}

fn state(message: &LinkMessage) -> DeviceState {
    let mtu = message.attributes.iter().find_map(|it| match it {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    let flags = message.header.flags;
    DeviceState {
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        mtu: mtu.unwrap_or(0),
    }
}

/// What an error of a look-up says of the routes: a route of these types answers with it.
fn refusal(error: &rtnetlink::Error) -> Option<NoRoute> {
    let types = [
        (ENETUNREACH, NoRoute::Missing),
        (EHOSTUNREACH, NoRoute::Unreachable),
        (EACCES, NoRoute::Prohibited),
        (EINVAL, NoRoute::Blackhole),
    ];
    let found = types.into_iter().find(|(errno, _)| is_errno(error, *errno));
    found.map(|(_, reason)| reason)
}

const fn refused_type(kind: RouteType) -> Option<NoRoute> {
    match kind {
        RouteType::Unreachable => Some(NoRoute::Unreachable),
        RouteType::Prohibit => Some(NoRoute::Prohibited),
        RouteType::BlackHole => Some(NoRoute::Blackhole),
        _ => None,
    }
}

fn output(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|it| match it {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

/// Whether a route leads by another device.
fn is_another(route: &Route, name: &str) -> bool {
    matches!(route, Route::Leads { device, .. } if device.name != name)
}

/// The addresses of a route's next hops; `None` of a route that leads nowhere.
fn gateways(route: &Route) -> Option<BTreeSet<Option<IpAddr>>> {
    match route {
        Route::Leads { gateway, hops, .. } => {
            let others = hops.iter().map(|hop| hop.gateway);
            Some(others.chain([*gateway]).collect())
        }
        Route::Refused(_) => None,
    }
}

/// The next hops of a route that has several, those left out that the kernel does not take.
fn next_hops(route: &RouteMessage) -> Vec<RouteNextHop> {
    let mut attributes = route.attributes.iter();
    let hops = attributes.find_map(|it| match it {
        RouteAttribute::MultiPath(hops) => Some(hops.as_slice()),
        _ => None,
    });
    let taken = hops.unwrap_or_default().iter();
    let taken: Vec<RouteNextHop> = taken
        .filter(|hop| !hop.flags.contains(RouteNextHopFlags::Dead))
        .cloned()
        .collect();
    if taken.len() < 2 { Vec::new() } else { taken }
}

/// Seconds since a neighbour entry changed.
fn since(entry: &NeighbourMessage) -> Option<u32> {
    entry.attributes.iter().find_map(|it| match it {
        NeighbourAttribute::CacheInfo(times) => Some(times.updated / USER_HZ),
        _ => None,
    })
}

fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|it| match it {
        RouteAttribute::Gateway(RouteAddress::Inet(v4))
        | RouteAttribute::Via(RouteVia::Inet(v4)) => Some(IpAddr::V4(*v4)),
        RouteAttribute::Gateway(RouteAddress::Inet6(v6))
        | RouteAttribute::Via(RouteVia::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    })
}

fn mtu(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|it| match it {
        RouteAttribute::Metrics(metrics) => metrics.iter().find_map(|metric| match metric {
            RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
            _ => None,
        }),
        _ => None,
    })
}

const fn known(state: NeighbourState) -> Neighbour {
    match state {
        NeighbourState::Incomplete => Neighbour::Incomplete,
        NeighbourState::Failed => Neighbour::Failed,
        NeighbourState::None => Neighbour::Absent,
        _ => Neighbour::Known,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_route::neighbour::NeighbourCacheInfo;

    #[test]
    fn each_state_of_a_neighbour_entry_has_a_meaning() {
        for (state, meaning) in [
            (NeighbourState::Reachable, Neighbour::Known),
            (NeighbourState::Stale, Neighbour::Known),
            (NeighbourState::Delay, Neighbour::Known),
            (NeighbourState::Probe, Neighbour::Known),
            (NeighbourState::Permanent, Neighbour::Known),
            (NeighbourState::Noarp, Neighbour::Known),
            (NeighbourState::Incomplete, Neighbour::Incomplete),
            (NeighbourState::Failed, Neighbour::Failed),
            (NeighbourState::None, Neighbour::Absent),
        ] {
            assert_eq!(known(state), meaning, "{state:?}");
        }
    }

    #[test]
    fn a_route_is_read_with_its_next_hop_and_mtu() {
        let mut route = RouteMessage::default();
        assert_eq!(
            (output(&route), gateway(&route.attributes), mtu(&route)),
            (None, None, None)
        );
        let hop: std::net::Ipv4Addr = "172.31.1.1".parse().unwrap();
        route.attributes = vec![
            RouteAttribute::Oif(7),
            RouteAttribute::Gateway(RouteAddress::Inet(hop)),
            RouteAttribute::Metrics(vec![RouteMetric::Hoplimit(9), RouteMetric::Mtu(1400)]),
        ];
        assert_eq!(
            (output(&route), gateway(&route.attributes), mtu(&route)),
            (Some(7), Some(hop.into()), Some(1400))
        );
        // IPv4 by a next hop of the other family (RFC 8950).
        let hop: std::net::Ipv6Addr = "fe80::1".parse().unwrap();
        route.attributes = vec![RouteAttribute::Via(RouteVia::Inet6(hop))];
        assert_eq!(gateway(&route.attributes), Some(hop.into()));
        // No MTU of its own.
        route.attributes = vec![RouteAttribute::Metrics(vec![RouteMetric::Mtu(0)])];
        assert_eq!(mtu(&route), None);
    }

    #[test]
    fn next_hops_that_the_kernel_does_not_take_are_left_out() {
        let hop = |interface_index, flags| {
            let mut hop = RouteNextHop::default();
            (hop.interface_index, hop.flags) = (interface_index, flags);
            hop
        };
        let none = RouteNextHopFlags::empty();
        let (dead, no_carrier) = (RouteNextHopFlags::Dead, RouteNextHopFlags::Linkdown);
        for (hops, expected) in [
            (vec![], &[][..]),
            (vec![hop(1, none), hop(2, none)], &[1, 2]),
            (vec![hop(1, none), hop(2, no_carrier)], &[1, 2]),
            (vec![hop(1, dead), hop(2, none), hop(3, none)], &[2, 3]),
            // Then the look-up's is the only one.
            (vec![hop(1, none), hop(2, dead)], &[]),
        ] {
            let mut route = RouteMessage::default();
            route.attributes = vec![RouteAttribute::MultiPath(hops)];
            let found = next_hops(&route);
            let found: Vec<u32> = found.iter().map(|hop| hop.interface_index).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn the_age_of_a_neighbour_entry_is_told_in_seconds() {
        let mut entry = NeighbourMessage::default();
        assert_eq!(since(&entry), None);
        // Confirmed, used, updated in hundredths of a second, and a count.
        let times = [900_u32, 800, 3_150, 1].map(u32::to_ne_bytes).concat();
        let times = NeighbourCacheInfo::parse(&times).unwrap();
        entry.attributes = vec![NeighbourAttribute::CacheInfo(times)];
        assert_eq!(since(&entry), Some(31));
    }
}
