//! The node's kernel routes as they are, beside those that the datapath sets.

use crate::{
    DatapathError, RealisedRoutes,
    netlink::{Netlink, ROUTES, destination, output_of},
};
use ipnet::IpNet;
use rtnetlink::packet_route::route::{RouteHeader, RouteMessage, RouteType};
use std::collections::{BTreeMap, BTreeSet};

/// The routes to these prefixes, and all others that the datapath has set by the overlay, which has this name and index.
pub(crate) fn realised(
    netlink: &Netlink,
    overlay: Option<(&str, u32)>,
    prefixes: &BTreeSet<IpNet>,
) -> Result<RealisedRoutes, DatapathError> {
    let names = netlink.link_names()?;
    let routes = netlink.all_routes()?;
    let index = overlay.map(|(_, index)| index);
    let rows = routes
        .iter()
        .filter_map(|route| row(route, index, prefixes, &names));
    Ok(RealisedRoutes {
        overlay: overlay.map(|(name, _)| name.to_owned()),
        routes: rows.collect(),
    })
}

/// What is told of a route; `None` of one that is not asked for.
fn row(
    route: &RouteMessage,
    overlay: Option<u32>,
    prefixes: &BTreeSet<IpNet>,
    names: &BTreeMap<u32, String>,
) -> Option<(IpNet, Option<String>)> {
    // What other tables hold is for those whom a rule sends there.
    if route.header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let prefix = destination(route)?;
    let output = output_of(route);
    let is_own = route.header.protocol == ROUTES && overlay.is_some() && output == overlay;
    if !is_own && !prefixes.contains(&prefix) {
        return None;
    }
    let device = match route.header.kind {
        RouteType::Unicast => {
            output.map(|index| names.get(&index).cloned().unwrap_or(index.to_string()))
        }
        _ => None,
    };
    Some((prefix, device))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_route::route::{
        RouteAddress, RouteAttribute, RouteNextHop, RouteProtocol,
    };

    fn route(prefix: &str, output: Option<u32>, protocol: RouteProtocol) -> RouteMessage {
        let prefix: IpNet = prefix.parse().unwrap();
        let mut route = RouteMessage::default();
        route.header.table = RouteHeader::RT_TABLE_MAIN;
        route.header.kind = RouteType::Unicast;
        route.header.protocol = protocol;
        route.header.destination_prefix_length = prefix.prefix_len();
        let to = match prefix {
            IpNet::V4(v4) => RouteAddress::Inet(v4.addr()),
            IpNet::V6(v6) => RouteAddress::Inet6(v6.addr()),
        };
        route.attributes.push(RouteAttribute::Destination(to));
        route.attributes.extend(output.map(RouteAttribute::Oif));
        route
    }

    #[test]
    fn routes_that_were_asked_for_and_the_own_ones_are_told_with_their_device() {
        let names = BTreeMap::from([(2, "eth0".to_owned()), (9, "heddle-vxlan".to_owned())]);
        let asked = BTreeSet::from(["10.244.1.0/24".parse().unwrap()]);
        let told = |route: &RouteMessage| row(route, Some(9), &asked, &names);
        let by = |prefix: &str, device: Option<&str>| {
            Some((prefix.parse().unwrap(), device.map(str::to_owned)))
        };
        let boot = RouteProtocol::Boot;
        for (prefix, output, protocol, expected) in [
            (
                "10.244.1.0/24",
                Some(9),
                ROUTES,
                by("10.244.1.0/24", Some("heddle-vxlan")),
            ),
            (
                "10.244.1.0/24",
                Some(2),
                boot,
                by("10.244.1.0/24", Some("eth0")),
            ),
            (
                "10.244.1.0/24",
                Some(7),
                boot,
                by("10.244.1.0/24", Some("7")),
            ),
            // The own ones that nobody asked for, and no others.
            (
                "fd10:7::/64",
                Some(9),
                ROUTES,
                by("fd10:7::/64", Some("heddle-vxlan")),
            ),
            ("fd10:7::/64", Some(9), boot, None),
            ("10.244.7.0/24", Some(2), ROUTES, None),
        ] {
            assert_eq!(told(&route(prefix, output, protocol)), expected, "{prefix}");
        }
        let mut nowhere = route("10.244.1.0/24", None, boot);
        nowhere.header.kind = RouteType::BlackHole;
        assert_eq!(told(&nowhere), by("10.244.1.0/24", None));
        let mut several = route("10.244.1.0/24", None, boot);
        let mut hop = RouteNextHop::default();
        hop.interface_index = 2;
        several
            .attributes
            .push(RouteAttribute::MultiPath(vec![hop]));
        assert_eq!(told(&several), by("10.244.1.0/24", Some("eth0")));
        let mut elsewhere = route("10.244.1.0/24", Some(2), boot);
        elsewhere.header.table = 100;
        assert_eq!(told(&elsewhere), None);
        // Without an overlay nothing is set by it.
        let own = route("10.244.7.0/24", None, ROUTES);
        assert_eq!(row(&own, None, &asked, &names), None);
    }
}
