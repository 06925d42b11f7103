//! Devices, route look-ups and neighbour entries.

use crate::{
    DatapathError,
    netlink::{ENODEV, Netlink, failed, is_errno},
};
use futures_util::TryStreamExt;
use heddle_verify::path::{Device, DeviceState, Neighbour, NoRoute, Route};
use rtnetlink::{
    RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        link::{LinkAttribute, LinkFlags, LinkMessage},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia},
    },
};
use std::net::IpAddr;

const ENETUNREACH: i32 = 101;
const EHOSTUNREACH: i32 = 113;
const EACCES: i32 = 13;
const EINVAL: i32 = 22;
/// Neighbour entries of a link that are looked through.
const MOST_NEIGHBOURS: usize = 16_384;

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

    fn device_at(&self, index: u32) -> Result<Device, DatapathError> {
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
        self.look_up_route(address, None)
    }

    /// Where a redirect to a device would send a packet to an address. Of IPv4, only routes by that device count; of IPv6
    /// the longest prefix does, and its next hop is looked for on the device whatever the route's is.
    pub(crate) fn route_by(&self, address: IpAddr, device: &str) -> Result<Route, DatapathError> {
        let plain = || self.look_up_route(address, None);
        if address.is_ipv6() {
            return plain();
        }
        let Some(link) = self.link(device)? else {
            return plain();
        };
        match self.look_up_route(address, Some(link.index)) {
            Ok(
                route @ Route::Leads {
                    gateway: Some(_), ..
                },
            ) => Ok(route),
            // Where it has no route by the device, the kernel takes any IPv4 address for one on its link. Whether it is,
            // the look-up among all routes tells.
            _ => plain(),
        }
    }

    fn look_up_route(&self, address: IpAddr, by: Option<u32>) -> Result<Route, DatapathError> {
        let length = if address.is_ipv4() { 32 } else { 128 };
        let doing = "look up the route to";
        let question = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(address, length)
            .map_err(|error| DatapathError::Failed {
                doing,
                object: address.to_string(),
                reason: error.to_string(),
            })?;
        let question = match by {
            Some(index) => question.output_interface(index).build(),
            None => question.build(),
        };
        let answer = self
            .run(|handle| async move { handle.route().get(question).execute().try_next().await });
        let route = match answer {
            Ok(Some(route)) => route,
            Ok(None) => return Ok(Route::Refused(NoRoute::Missing)),
            Err(error) => {
                return match refusal(&error) {
                    Some(reason) => Ok(Route::Refused(reason)),
                    None => Err(failed(doing, address.to_string())(error)),
                };
            }
        };
        if let Some(reason) = refused_type(route.header.kind) {
            return Ok(Route::Refused(reason));
        }
        let Some(index) = output(&route) else {
            return Ok(Route::Refused(NoRoute::Missing));
        };
        let gateway = gateway(&route);
        let device = self.device_at(index)?;
        let neighbour = if route.header.kind == RouteType::Local {
            Neighbour::Absent
        } else {
            self.neighbour(index, gateway.unwrap_or(address))?
        };
        Ok(Route::Leads {
            device,
            gateway,
            mtu: mtu(&route),
            neighbour,
        })
    }

    /// The neighbour entry of an address on a link. Asked for it, the kernel does not ask the neighbour.
    fn neighbour(&self, index: u32, address: IpAddr) -> Result<Neighbour, DatapathError> {
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
                    None => return Ok(Some(Neighbour::Absent)),
                    Some(entry) if is_its(&entry) => return Ok(Some(known(entry.header.state))),
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

fn gateway(route: &RouteMessage) -> Option<IpAddr> {
    route.attributes.iter().find_map(|it| match it {
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
            (output(&route), gateway(&route), mtu(&route)),
            (None, None, None)
        );
        let hop: std::net::Ipv4Addr = "172.31.1.1".parse().unwrap();
        route.attributes = vec![
            RouteAttribute::Oif(7),
            RouteAttribute::Gateway(RouteAddress::Inet(hop)),
            RouteAttribute::Metrics(vec![RouteMetric::Hoplimit(9), RouteMetric::Mtu(1400)]),
        ];
        assert_eq!(
            (output(&route), gateway(&route), mtu(&route)),
            (Some(7), Some(hop.into()), Some(1400))
        );
        // IPv4 by a next hop of the other family (RFC 8950).
        let hop: std::net::Ipv6Addr = "fe80::1".parse().unwrap();
        route.attributes = vec![RouteAttribute::Via(RouteVia::Inet6(hop))];
        assert_eq!(gateway(&route), Some(hop.into()));
        // No MTU of its own.
        route.attributes = vec![RouteAttribute::Metrics(vec![RouteMetric::Mtu(0)])];
        assert_eq!(mtu(&route), None);
    }
}
