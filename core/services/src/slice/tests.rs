//! Reading EndpointSlices: conditions, hints, and addresses that would lead elsewhere than to an endpoint.

use super::*;
use crate::{AddressFault, Fault, MAX_PROBLEMS};

fn slice(family: &str, addresses: &[&str]) -> WrittenEndpointSlice {
    WrittenEndpointSlice {
        name: NamespacedName::new("default", "web-1"),
        service: "web".to_owned(),
        family: family.to_owned(),
        ports: vec![WrittenSlicePort {
            port: Some(8080),
            ..WrittenSlicePort::default()
        }],
        endpoints: addresses.iter().map(|address| endpoint(address)).collect(),
    }
}

fn endpoint(address: &str) -> WrittenEndpoint {
    WrittenEndpoint {
        addresses: vec![address.to_owned()],
        ..WrittenEndpoint::default()
    }
}

fn read(written: &WrittenEndpointSlice) -> EndpointSlice {
    written.read().unwrap().unwrap()
}

#[test]
fn addresses_that_lead_elsewhere_are_refused_and_the_rest_stays() {
    for (family, address, fault) in [
        ("IPv4", "127.0.0.1", Fault::Unusable(AddressFault::Loopback)),
        (
            "IPv4",
            "169.254.169.254",
            Fault::Unusable(AddressFault::LinkLocal),
        ),
        (
            "IPv4",
            "224.0.0.251",
            Fault::Unusable(AddressFault::Multicast),
        ),
        (
            "IPv4",
            "0.0.0.0",
            Fault::Unusable(AddressFault::Unspecified),
        ),
        (
            "IPv4",
            "255.255.255.255",
            Fault::Unusable(AddressFault::Broadcast),
        ),
        ("IPv4", "fd00::1", Fault::OtherFamily { found: Family::V6 }),
        (
            "IPv4",
            "::ffff:10.0.0.1",
            Fault::Unusable(AddressFault::Mapped),
        ),
        ("IPv4", "web.example", Fault::NotAnAddress),
        ("IPv4", "010.0.0.1", Fault::NotAnAddress),
        ("IPv4", "10.0.0.1%eth0", Fault::NotAnAddress),
        ("IPv6", "::1", Fault::Unusable(AddressFault::Loopback)),
        ("IPv6", "fe80::1", Fault::Unusable(AddressFault::LinkLocal)),
        ("IPv6", "ff02::1", Fault::Unusable(AddressFault::Multicast)),
        ("IPv6", "::", Fault::Unusable(AddressFault::Unspecified)),
        (
            "IPv6",
            "::ffff:127.0.0.1",
            Fault::Unusable(AddressFault::Mapped),
        ),
        ("IPv6", "10.0.0.1", Fault::OtherFamily { found: Family::V4 }),
    ] {
        let good = if family == "IPv4" {
            "10.9.9.9"
        } else {
            "fd00::9"
        };
        let read = read(&slice(family, &[address, good]));
        assert_eq!(read.endpoints.len(), 1, "{address}");
        assert_eq!(read.endpoints[0].address, good.parse::<IpAddr>().unwrap());
        assert_eq!(read.problems.len(), 1, "{address}");
        assert_eq!(read.problems[0].fault, fault, "{address}");
        assert_eq!(read.problems[0].field, "endpoints[0].addresses[0]");
    }
}

#[test]
fn conditions_that_are_not_there_mean_what_the_api_says() {
    let conditions = |ready, serving, terminating| {
        let Conditions {
            ready,
            serving,
            terminating,
        } = Conditions::new(ready, serving, terminating);
        (ready, serving, terminating)
    };
    assert_eq!(conditions(None, None, None), (true, true, false));
    assert_eq!(
        conditions(Some(false), None, Some(true)),
        (false, true, true)
    );
    assert_eq!(
        conditions(Some(false), Some(false), None),
        (false, false, false)
    );
}

#[test]
fn an_endpoint_has_one_address_and_a_slice_has_an_address_once() {
    let mut written = slice("IPv4", &["10.0.0.1", "10.0.0.1", "10.0.0.2"]);
    written.endpoints[2].addresses.push("10.0.0.3".to_owned());
    written.endpoints.push(WrittenEndpoint::default());
    let read = read(&written);
    let addresses: Vec<String> = read
        .endpoints
        .iter()
        .map(|endpoint| endpoint.address.to_string())
        .collect();
    assert_eq!(addresses, ["10.0.0.1", "10.0.0.2"]);
    let fields: Vec<&str> = read
        .problems
        .iter()
        .map(|problem| &*problem.field)
        .collect();
    assert_eq!(
        fields,
        [
            "endpoints[1].addresses[0]",
            "endpoints[2].addresses",
            "endpoints[3].addresses"
        ]
    );
}

#[test]
fn ports_are_told_by_name_and_protocol_and_bad_ones_are_left_out() {
    let port = |name: &str, protocol: &str, number| WrittenSlicePort {
        name: name.to_owned(),
        protocol: protocol.to_owned(),
        port: number,
    };
    let mut written = slice("IPv4", &["10.0.0.1"]);
    written.ports = vec![
        port("dns", "UDP", Some(5353)),
        port("dns", "TCP", Some(5354)),
        port("dns", "UDP", Some(9999)),
        port("zero", "", Some(0)),
        port("huge", "", Some(65_536)),
        port("odd", "ICMP", Some(1)),
        port("every", "", None),
        port("", "SCTP", Some(7)),
    ];
    let read = read(&written);
    assert_eq!(read.port("dns", Protocol::Udp), Some(5353));
    assert_eq!(read.port("dns", Protocol::Tcp), Some(5354));
    assert_eq!(read.port("", Protocol::Sctp), Some(7));
    assert_eq!(read.port("", Protocol::Tcp), None);
    assert_eq!(read.ports.len(), 3);
    assert_eq!(read.problems.len(), 4);
}

#[test]
fn hints_and_weights_are_read_within_their_bounds() {
    let mut written = slice("IPv4", &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    written.endpoints[0].for_zones = ["b", "a", "b"].map(str::to_owned).to_vec();
    written.endpoints[0].for_nodes = vec!["n1".to_owned()];
    written.endpoints[0].weight = Some(7);
    written.endpoints[1].for_zones = (0..20).map(|number| format!("z{number}")).collect();
    written.endpoints[1].weight = Some(-1);
    let read = read(&written);
    let hints = read.endpoints[0].hints.as_deref().unwrap();
    assert_eq!(hints.zones, ["a".into(), "b".into()]);
    assert_eq!(hints.nodes, ["n1".into()]);
    assert_eq!(read.endpoints[0].weight, 7);
    assert_eq!(
        read.endpoints[1].hints.as_deref().unwrap().zones.len(),
        MAX_HINTS
    );
    assert_eq!(read.endpoints[1].weight, DEFAULT_WEIGHT);
    assert_eq!(read.endpoints[2].hints, None);
    assert_eq!(read.problems.len(), 2);
}

#[test]
fn a_slice_of_no_service_or_of_host_names_is_nobody_s() {
    let mut written = slice("IPv4", &["10.0.0.1"]);
    written.service.clear();
    assert_eq!(written.read(), Ok(None));
    assert_eq!(slice("FQDN", &["web.example"]).read(), Ok(None));
    let problem = slice("IPX", &["1"]).read().unwrap_err();
    assert_eq!(
        problem.to_string(),
        "addressType \"IPX\": is not one of IPv4, IPv6, FQDN"
    );
}

#[test]
fn hostile_slices_are_bounded() {
    let mut written = slice("IPv4", &[]);
    written.endpoints = vec![endpoint(&"9".repeat(5000)); 20_000];
    written.ports = vec![
        WrittenSlicePort {
            port: Some(-5),
            ..WrittenSlicePort::default()
        };
        20_000
    ];
    let read = read(&written);
    assert!(read.endpoints.is_empty() && read.ports.is_empty());
    assert_eq!(read.problems.len(), MAX_PROBLEMS);
}
