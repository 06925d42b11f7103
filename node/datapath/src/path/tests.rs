//! What is asked of the kernel. Needs root.

use super::*;
use heddle_verify::path::{Neighbour, NoRoute, Route};
use std::process::Command;

fn run(line: &str) {
    let done = Command::new("sh").args(["-ec", line]).output().unwrap();
    assert!(done.status.success(), "{line}: {done:?}");
}

/// Works in a network namespace of its own.
fn in_a_namespace<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

fn question(peer: &str, place: Place) -> PathQuestion {
    PathQuestion {
        pod: None,
        own: None,
        peer: Some(peer.parse().unwrap()),
        place,
        listens: None,
    }
}

#[test]
fn routes_devices_and_next_hops_are_told_as_the_kernel_has_them() {
    in_a_namespace(|| {
        run(
            "ip link add up0 type veth peer name other0; ip link set other0 up; ip link set up0 mtu 1400 up; ip addr add 192.0.2.2/24 dev up0; \
             ip addr add 2001:db8::2/64 dev up0 nodad; ip route add default via 192.0.2.1; \
             ip -6 route add default via 2001:db8::1; ip route add blackhole 198.51.100.0/24; \
             ip route add unreachable 198.51.101.0/24; ip route add prohibit 198.51.102.0/24; \
             ip -6 route add unreachable 2001:db8:1::/48; ip route add 198.51.103.0/24 dev up0 mtu 1300; \
             ip neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev up0",
        );
        let netlink = Netlink::open().unwrap();
        let node = NodeDevices {
            host_routing: true,
            uplink: "up0",
            overlay: Some("none0"),
        };
        let look = |peer: &str| look(&netlink, &node, &question(peer, Place::Outside));
        let seen = look("203.0.113.9");
        let Some(Observed::Seen(uplink)) = &seen.uplink else {
            panic!("{seen:?}")
        };
        assert_eq!(uplink.name, "up0");
        assert!(
            uplink
                .state
                .is_some_and(|it| it.up && it.carrier && it.mtu == 1400)
        );
        let Some(Observed::Seen(overlay)) = &seen.overlay else {
            panic!("{seen:?}")
        };
        assert_eq!(overlay.state, None);
        let route = |peer: &str| match look(peer).to_peer {
            Some(Observed::Seen(route)) => route,
            other => panic!("{peer}: {other:?}"),
        };
        for (peer, hop, mtu) in [
            ("203.0.113.9", Some("192.0.2.1"), None),
            ("2001:db8:9::1", Some("2001:db8::1"), None),
            ("192.0.2.77", None, None),
            ("198.51.103.7", None, Some(1300)),
        ] {
            let Route::Leads {
                device,
                gateway,
                mtu: own_mtu,
                ..
            } = route(peer)
            else {
                panic!("{peer}")
            };
            assert_eq!(device.name, "up0");
            assert_eq!(
                (gateway, own_mtu),
                (hop.map(|hop| hop.parse().unwrap()), mtu),
                "{peer}"
            );
        }
        for (peer, reason) in [
            ("198.51.100.1", NoRoute::Blackhole),
            ("198.51.101.1", NoRoute::Unreachable),
            ("198.51.102.1", NoRoute::Prohibited),
            ("2001:db8:1::1", NoRoute::Unreachable),
        ] {
            assert_eq!(route(peer), Route::Refused(reason), "{peer}");
        }
        // An IPv4 redirect to the device takes its routes alone; the address of a link needs none.
        run(
            "ip link add up1 type veth peer name other1; ip link set other1 up; ip link set up1 up; \
             ip route add 203.0.113.0/24 dev up1; ip -6 route add 2001:db8:9::/48 dev up1",
        );
        for (peer, by, hop) in [
            ("203.0.113.9", "up0", Some("192.0.2.1")),
            ("203.0.113.9", "up1", None),
            ("192.0.2.77", "up0", None),
            ("2001:db8:8::1", "up0", Some("2001:db8::1")),
            // The longest prefix, whichever device was asked for.
            ("2001:db8:9::1", "up1", None),
        ] {
            let asked = if peer.contains(':') { "up0" } else { by };
            let route = netlink.route_by(peer.parse().unwrap(), asked).unwrap();
            let Route::Leads {
                device, gateway, ..
            } = route
            else {
                panic!("{peer} {by}: {route:?}")
            };
            assert_eq!(device.name, by, "{peer}");
            assert_eq!(gateway, hop.map(|hop| hop.parse().unwrap()), "{peer} {by}");
        }
        let blackhole = netlink
            .route_by("198.51.100.1".parse().unwrap(), "up0")
            .unwrap();
        assert_eq!(blackhole, Route::Refused(NoRoute::Blackhole));
        run("ip link del up1; ip route del default; ip -6 route del default");
        let missing = netlink
            .route_by("203.0.113.9".parse().unwrap(), "up0")
            .unwrap();
        assert_eq!(missing, Route::Refused(NoRoute::Missing));
        for peer in ["203.0.113.9", "2001:db8:9::1"] {
            assert_eq!(route(peer), Route::Refused(NoRoute::Missing), "{peer}");
        }
        run("ip link set up0 down");
        let Some(Observed::Seen(uplink)) = look("203.0.113.9").uplink else {
            panic!("the uplink")
        };
        assert!(uplink.state.is_some_and(|it| !it.up));
    });
}

/// Two devices in the same networks, the second by a smaller metric.
const TWIN_DEVICES: &str = "for it in 0 1; do ip link add up$it type veth peer name other$it; ip link set other$it up; \
    ip link set up$it up; done; \
    ip addr add 192.0.2.2/24 dev up0 noprefixroute; ip addr add 192.0.2.3/24 dev up1 noprefixroute; \
    ip addr add 2001:db8::2/64 dev up0 nodad noprefixroute; ip addr add 2001:db8::3/64 dev up1 nodad noprefixroute; \
    for it in '0 100' '1 50'; do set -- $it; ip route add 192.0.2.0/24 dev up$1 metric $2; \
    ip -6 route add 2001:db8::/64 dev up$1 metric $2; done";

/// The device and the next hop that a look-up ends at.
fn led(route: Route) -> (String, Option<String>) {
    match route {
        Route::Leads {
            device, gateway, ..
        } => (device.name, gateway.map(|it| it.to_string())),
        refused @ Route::Refused(_) => panic!("{refused:?}"),
    }
}

#[test]
fn a_redirect_takes_its_own_device_where_another_has_the_same_network() {
    in_a_namespace(|| {
        run(TWIN_DEVICES);
        let netlink = Netlink::open().unwrap();
        let by = |peer: &str, device: &str| {
            led(netlink.route_by(peer.parse().unwrap(), device).unwrap())
        };
        let on = |device: &str, hop: Option<&str>| (device.to_owned(), hop.map(str::to_owned));
        for peer in ["192.0.2.77", "2001:db8::77"] {
            for device in ["up0", "up1"] {
                assert_eq!(by(peer, device), on(device, None), "{peer}");
            }
            let all = netlink.route_to(peer.parse().unwrap()).unwrap();
            assert_eq!(led(all), on("up1", None), "{peer}");
        }
        // The same next hop by both, then another by each.
        run(
            "for it in '0 100' '1 50'; do set -- $it; ip route add default via 192.0.2.1 dev up$1 metric $2; \
             ip -6 route add default via 2001:db8::1 dev up$1 metric $2; done",
        );
        for (peer, hop) in [
            ("203.0.113.9", "192.0.2.1"),
            ("2001:db8:9::1", "2001:db8::1"),
        ] {
            for device in ["up0", "up1"] {
                assert_eq!(by(peer, device), on(device, Some(hop)), "{peer}");
            }
        }
        run("ip route replace default via 192.0.2.9 dev up1 metric 50; \
             ip -6 route replace default via 2001:db8::9 dev up1 metric 50");
        assert_eq!(by("203.0.113.9", "up0"), on("up0", Some("192.0.2.1")));
        // Of IPv6 a redirect to up0 looks there for the next hop that up1 has.
        assert_eq!(by("2001:db8:9::1", "up0"), on("up1", Some("2001:db8::9")));
        // No route by the device: the kernel would take any IPv4 address for one on its link.
        run("ip route del default dev up0; ip route del 192.0.2.0/24 dev up0");
        assert_eq!(by("192.0.2.77", "up0"), on("up1", None));
        assert_eq!(by("203.0.113.9", "up0"), on("up1", Some("192.0.2.9")));
    });
}

#[test]
fn all_next_hops_of_a_route_are_told_and_how_old_what_is_known_of_them_is() {
    in_a_namespace(|| {
        run(TWIN_DEVICES);
        run(
            "ip route add 203.0.113.0/24 nexthop via 192.0.2.1 dev up0 nexthop via 192.0.2.9 dev up1; \
             ip -6 route add 2001:db8:9::/48 nexthop via 2001:db8::1 dev up0 nexthop via 2001:db8::9 dev up1; \
             ip neigh add 192.0.2.1 dev up0 lladdr 02:00:00:00:00:01; \
             ip neigh add 192.0.2.9 dev up1 nud failed; ip neigh add 2001:db8::9 dev up1 nud failed",
        );
        let netlink = Netlink::open().unwrap();
        for (peer, first, second) in [
            ("203.0.113.9", "192.0.2.1", "192.0.2.9"),
            ("2001:db8:9::1", "2001:db8::1", "2001:db8::9"),
        ] {
            let route = netlink.route_to(peer.parse().unwrap()).unwrap();
            let Route::Leads { hops, .. } = route else {
                panic!("{route:?}")
            };
            let mut found: Vec<_> = hops
                .iter()
                .map(|hop| (hop.device.name.as_str(), hop.gateway.unwrap().to_string()))
                .collect();
            found.sort();
            let expected = [("up0", first.to_owned()), ("up1", second.to_owned())];
            assert_eq!(found, expected);
            let failed = hops.iter().find(|hop| hop.device.name == "up1").unwrap();
            assert_eq!(failed.neighbour, Neighbour::Failed);
            assert!(
                failed.since.is_some_and(|seconds| seconds < 20),
                "{failed:?}"
            );
        }
        // A redirect of IPv4 takes the next hop of its device, and so has one.
        let route = netlink
            .route_by("203.0.113.9".parse().unwrap(), "up1")
            .unwrap();
        let Route::Leads { hops, since, .. } = &route else {
            panic!("{route:?}")
        };
        assert!(hops.is_empty() && since.is_some(), "{route:?}");
        assert_eq!(led(route), ("up1".to_owned(), Some("192.0.2.9".to_owned())));
        // Two next hops of a redirect of IPv6.
        let route = netlink
            .route_by("2001:db8:9::1".parse().unwrap(), "up0")
            .unwrap();
        let Route::Leads { hops, .. } = &route else {
            panic!("{route:?}")
        };
        assert_eq!(hops.len(), 2, "{route:?}");
        let one = netlink.route_to("192.0.2.77".parse().unwrap()).unwrap();
        assert!(matches!(one, Route::Leads { hops, .. } if hops.is_empty()));
    });
}

#[test]
fn what_cannot_be_entered_is_told_with_the_reason() {
    in_a_namespace(|| {
        let netlink = Netlink::open().unwrap();
        let node = NodeDevices {
            host_routing: true,
            uplink: "none0",
            overlay: None,
        };
        let asked = PathQuestion {
            pod: Some(PathPod {
                endpoint: 7,
                inside: Some((PathBuf::from("/nowhere/netns"), "eth0".to_owned())),
            }),
            ..question("192.0.2.1", Place::Outside)
        };
        let seen = look(&netlink, &node, &asked);
        let Some(Observed::Failed(reason)) = seen.inside else {
            panic!("{seen:?}")
        };
        assert!(reason.contains("/nowhere/netns"), "{reason}");
    });
}
