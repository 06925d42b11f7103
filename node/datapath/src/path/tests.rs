//! What is asked of the kernel. Needs root.

use super::*;
use heddle_verify::path::{NoRoute, Route};
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
