//! What many endpoints have is there once, and forgotten when nobody has it any more.

use super::*;
use crate::{WrittenEndpoint, WrittenEndpointSlice};

#[test]
fn names_of_nodes_that_are_gone_do_not_pile_up() {
    let mut services = Services::new("n1");
    for round in 0..10_000 {
        let written = WrittenEndpointSlice {
            name: NamespacedName::new("default", "web-1"),
            service: "web".to_owned(),
            family: "IPv4".to_owned(),
            endpoints: vec![WrittenEndpoint {
                addresses: vec!["10.0.0.1".to_owned()],
                node: format!("node-{round}"),
                ..WrittenEndpoint::default()
            }],
            ..WrittenEndpointSlice::default()
        };
        services.set_slice(written.read().unwrap().unwrap());
    }
    assert!(services.pools.len() < 2000, "{}", services.pools.len());
}

#[test]
fn endpoints_of_the_same_node_share_its_name_and_hints() {
    let mut services = Services::new("n1");
    for number in 0..2 {
        let endpoint = |last: u8| WrittenEndpoint {
            addresses: vec![format!("10.0.{number}.{last}")],
            node: "n7".to_owned(),
            zone: "a".to_owned(),
            for_zones: vec!["a".to_owned()],
            ..WrittenEndpoint::default()
        };
        let written = WrittenEndpointSlice {
            name: NamespacedName::new("default", format!("web-{number}")),
            service: "web".to_owned(),
            family: "IPv4".to_owned(),
            endpoints: vec![endpoint(1), endpoint(2)],
            ..WrittenEndpointSlice::default()
        };
        services.set_slice(written.read().unwrap().unwrap());
    }
    // The node, the zone, no ports, and one hint.
    assert_eq!(services.pools.len(), 4);
}

#[test]
fn nothing_is_left_of_what_is_removed() {
    let mut services = Services::new("n1");
    let name = NamespacedName::new("default", "web");
    let address = "10.0.0.1".parse().unwrap();
    let key = BackendKey {
        address,
        port: 80,
        protocol: crate::Protocol::Tcp,
    };
    services.set_admin(Some(&name), address, AdminState::Down);
    services.set_probe(&name, key, Probe::Down);
    assert_eq!(services.entries.len(), 1);
    services.set_admin(Some(&name), address, AdminState::None);
    services.set_probe(&name, key, Probe::Unknown);
    services.set_admin(None, address, AdminState::None);
    assert!(services.entries.is_empty());
}
