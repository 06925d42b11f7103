//! Reading Services: what each field means, and what becomes of each that cannot be used.

use super::*;
use crate::{Fault, MAX_PROBLEMS};

fn written() -> WrittenService {
    WrittenService {
        name: NamespacedName::new("default", "web"),
        uid: "u1".to_owned(),
        cluster_ips: vec!["10.96.0.1".to_owned()],
        ports: vec![port(80)],
        has_selector: true,
        ..WrittenService::default()
    }
}

fn port(number: i64) -> WrittenPort {
    WrittenPort {
        port: number,
        ..WrittenPort::default()
    }
}

fn named(name: &str, number: i64) -> WrittenPort {
    WrittenPort {
        name: name.to_owned(),
        ..port(number)
    }
}

fn dual() -> ClusterFacts {
    ClusterFacts {
        families: vec![Family::V4, Family::V6],
        ..ClusterFacts::default()
    }
}

/// Reads an object; gives the Service, and its problems as `FIELD VALUE CODE`.
fn read(written: &WrittenService) -> (Service, Vec<String>) {
    let service = written.read(&dual());
    let shown = service.problems.iter().map(|problem| {
        let Problem {
            field,
            value,
            fault,
        } = problem;
        format!("{field} {value} {}", fault.code())
    });
    let shown = shown.collect();
    (service, shown)
}

fn text(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn what_is_not_there_means_what_the_api_says() {
    let (service, problems) = read(&written());
    assert_eq!(problems, [""; 0]);
    assert_eq!(service.kind, ServiceType::ClusterIp);
    assert_eq!(service.families, [Family::V4]);
    assert_eq!(service.ports[0].protocol, Protocol::Tcp);
    assert_eq!(service.ports[0].target, Target::Number(80));
    assert_eq!(service.affinity_timeout, None);
    assert_eq!(service.internal_policy, TrafficPolicy::Cluster);
    assert_eq!(service.external_policy, TrafficPolicy::Cluster);
    assert_eq!(service.algorithm, Algorithm::Random);
    assert_eq!(service.sources, Sources::Everybody);
    assert!(service.allocate_node_ports && !service.topology_auto);
    assert_eq!(service.ignored(), None);
}

#[test]
fn an_invalid_port_takes_only_itself_out() {
    let mut object = written();
    object.ports = vec![
        named("a", 0),
        named("b", 65_536),
        named("c", -1),
        named("good", 80),
        WrittenPort {
            protocol: "tcp".to_owned(),
            ..named("d", 81)
        },
        WrittenPort {
            target: "70000".to_owned(),
            ..named("e", 82)
        },
        WrittenPort {
            target: "Not A Name".to_owned(),
            ..named("f", 83)
        },
        // The same port, and the same name, again.
        named("g", 80),
        named("good", 84),
        WrittenPort {
            protocol: "UDP".to_owned(),
            target: "dns-udp".to_owned(),
            ..named("other", 80)
        },
    ];
    let (service, problems) = read(&object);
    let names: Vec<&str> = service.ports.iter().map(|port| &*port.name).collect();
    assert_eq!(names, ["good", "other"]);
    assert_eq!(service.ports[1].target, Target::Name("dns-udp".into()));
    assert_eq!(
        problems,
        [
            "spec.ports[0].port 0 services/invalid",
            "spec.ports[1].port 65536 services/invalid",
            "spec.ports[2].port -1 services/invalid",
            "spec.ports[4].protocol tcp services/invalid",
            "spec.ports[5].targetPort 70000 services/invalid",
            "spec.ports[6].targetPort Not A Name services/invalid",
            "spec.ports[7].port 80 services/conflict",
            "spec.ports[8].name good services/conflict",
        ]
    );
    assert!(
        service
            .problems
            .iter()
            .all(|problem| !problem.fault.help().is_empty())
    );
    assert_eq!(
        service.problems[1].to_string(),
        "spec.ports[1].port \"65536\": is not a port (1 to 65535)"
    );
}

#[test]
fn node_ports_are_of_the_cluster_s_range_and_of_types_that_have_any() {
    let with = |kind: &str, number: i64| {
        let mut object = written();
        object.kind = kind.to_owned();
        object.ports[0].node_port = number;
        let (service, problems) = read(&object);
        (service.ports[0].node_port, problems.len())
    };
    for (kind, number, found) in [
        ("NodePort", 30_080, (Some(30_080), 0)),
        ("LoadBalancer", 32_767, (Some(32_767), 0)),
        ("NodePort", 0, (None, 0)),
        // The kubelet's and sshd's own ports.
        ("NodePort", 10_250, (None, 1)),
        ("NodePort", 22, (None, 1)),
        ("NodePort", 99_999, (None, 1)),
        ("ClusterIP", 30_080, (None, 1)),
    ] {
        assert_eq!(with(kind, number), found, "{kind} {number}");
    }
    let mut object = written();
    object.kind = "NodePort".to_owned();
    object.ports = [80, 81]
        .map(|number| named(&number.to_string(), number))
        .to_vec();
    object
        .ports
        .iter_mut()
        .for_each(|port| port.node_port = 30_080);
    let (service, problems) = read(&object);
    assert_eq!(service.ports[1].node_port, None);
    assert_eq!(problems, ["spec.ports[1].nodePort 30080 services/conflict"]);
}

#[test]
fn addresses_that_no_host_has_are_refused_one_by_one() {
    let mut object = written();
    object.cluster_ips = text(&["127.0.0.1"]);
    object.kind = "LoadBalancer".to_owned();
    object.families = text(&["IPv4"]);
    object.external_ips = text(&[
        "1.2.3.4",
        "127.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "nonsense",
        "1.2.3.4",
        "2001:db8::1",
    ]);
    let ingress = ["5.6.7.8", "::1", "", "255.255.255.255"];
    object.ingress = ingress
        .map(|ip| WrittenIngress {
            ip: ip.to_owned(),
            mode: String::new(),
        })
        .to_vec();
    let (service, problems) = read(&object);
    assert_eq!(service.cluster_ips, ClusterIps::At(vec![]));
    assert_eq!(service.external_ips, ["1.2.3.4".parse::<IpAddr>().unwrap()]);
    assert_eq!(service.ingress.len(), 1);
    assert_eq!(
        problems,
        [
            "spec.clusterIPs[0] 127.0.0.1 services/refused-address",
            "spec.externalIPs[1] 127.0.0.1 services/refused-address",
            "spec.externalIPs[2] 169.254.169.254 services/refused-address",
            "spec.externalIPs[3] 0.0.0.0 services/refused-address",
            "spec.externalIPs[4] 224.0.0.1 services/refused-address",
            "spec.externalIPs[5] nonsense services/invalid",
            "spec.externalIPs[6] 1.2.3.4 services/conflict",
            "spec.externalIPs[7] 2001:db8::1 services/invalid",
            "status.loadBalancer.ingress[1].ip ::1 services/refused-address",
            "status.loadBalancer.ingress[3].ip 255.255.255.255 services/refused-address",
        ]
    );
}

#[test]
fn families_come_from_the_field_or_the_addresses_or_the_cluster() {
    let with = |families: &[&str], addresses: &[&str], policy: &str| {
        let mut object = written();
        object.families = text(families);
        object.cluster_ips = text(addresses);
        object.family_policy = policy.to_owned();
        let (service, problems) = read(&object);
        (service.families, problems.len())
    };
    let (v4, v6) = (Family::V4, Family::V6);
    for (families, addresses, policy, found) in [
        (
            &["IPv6", "IPv4"][..],
            &[][..],
            "PreferDualStack",
            (vec![v6, v4], 0),
        ),
        (&["IPv6"], &[], "", (vec![v6], 0)),
        (
            &[],
            &["10.96.0.1", "fd00::1"],
            "RequireDualStack",
            (vec![v4, v6], 0),
        ),
        (&[], &["fd00::1"], "", (vec![v6], 0)),
        (&[], &[], "", (vec![v4], 0)),
        (&[], &["None"], "PreferDualStack", (vec![v4, v6], 0)),
        // More than the policy allows, less than it wants, and words that mean nothing.
        (&["IPv4", "IPv6"], &[], "", (vec![v4], 1)),
        (&["IPv4"], &[], "RequireDualStack", (vec![v4], 1)),
        (&["IPv4", "IPv4"], &[], "PreferDualStack", (vec![v4], 1)),
        (&["IPv5"], &[], "", (vec![v4], 1)),
        // An address of another family than the Service's, a second one of a family, a third.
        (&["IPv4"], &["fd00::1"], "", (vec![v4], 1)),
        (&[], &["10.96.0.1", "10.96.0.2"], "", (vec![v4], 1)),
        (
            &[],
            &["10.96.0.1", "fd00::1", "10.96.0.2"],
            "PreferDualStack",
            (vec![v4, v6], 1),
        ),
    ] {
        assert_eq!(
            with(families, addresses, policy),
            found,
            "{families:?} {addresses:?} {policy}"
        );
    }
}

#[test]
fn affinity_has_a_time_out_within_a_day() {
    let with = |word: &str, seconds: Option<i64>| {
        let mut object = written();
        object.session_affinity = word.to_owned();
        object.affinity_timeout = seconds;
        let (service, problems) = read(&object);
        (service.affinity_timeout, problems.len())
    };
    assert_eq!(with("None", Some(5)), (None, 0));
    assert_eq!(with("ClientIP", None), (Some(10_800), 0));
    assert_eq!(with("ClientIP", Some(1)), (Some(1), 0));
    assert_eq!(with("ClientIP", Some(86_400)), (Some(86_400), 0));
    for wrong in [0, -1, 86_401, i64::MAX] {
        assert_eq!(with("ClientIP", Some(wrong)), (Some(10_800), 1), "{wrong}");
    }
    assert_eq!(with("clientip", None), (None, 1));
    const { assert!(MAX_AFFINITY_TIMEOUT <= 0x00ff_ffff) };
}

#[test]
fn source_ranges_allow_or_deny_and_never_open_by_mistake() {
    let with = |policy: &str, ranges: &[&str]| {
        let mut object = written();
        object.kind = "LoadBalancer".to_owned();
        object.source_ranges = text(ranges);
        if !policy.is_empty() {
            let name = WrittenService::SOURCE_RANGES_POLICY.to_owned();
            object.annotations.insert(name, policy.to_owned());
        }
        let (service, problems) = read(&object);
        let admits = ["192.0.2.1", "198.51.100.1", "2001:db8::1"]
            .map(|client| service.sources.admit(client.parse().unwrap()));
        (admits, problems.len())
    };
    for (policy, ranges, found) in [
        ("", &[][..], ([true, true, true], 0)),
        ("", &["192.0.2.0/24"], ([true, false, false], 0)),
        (
            "allow",
            &["192.0.2.7/24", " 2001:db8::/32 "],
            ([true, false, true], 0),
        ),
        ("deny", &["192.0.2.0/24"], ([false, true, true], 0)),
        ("deny", &[], ([true, true, true], 0)),
        // An unreadable range allows nobody; unreadable alone, nobody is left.
        (
            "",
            &["192.0.2.0/24", "198.51.100.0"],
            ([true, false, false], 1),
        ),
        ("", &["nonsense"], ([false, false, false], 1)),
        // Nobody knows whom an unreadable range was to keep out.
        (
            "deny",
            &["192.0.2.0/24", "nonsense"],
            ([false, false, false], 1),
        ),
        // An unknown policy means the default, which is the strict one.
        ("sometimes", &["192.0.2.0/24"], ([true, false, false], 1)),
    ] {
        assert_eq!(with(policy, ranges), found, "{policy} {ranges:?}");
    }
    let too_many = vec!["192.0.2.0/24"; MAX_SOURCE_RANGES + 1];
    assert_eq!(with("deny", &too_many), ([false, false, false], 1));
    assert_eq!(with("allow", &too_many), ([true, false, false], 1));
}

#[test]
fn source_ranges_of_other_types_have_no_effect_and_are_told() {
    let mut object = written();
    object.source_ranges = text(&["192.0.2.0/24"]);
    let (service, problems) = read(&object);
    assert_eq!(service.sources, Sources::Everybody);
    assert_eq!(
        problems,
        ["spec.loadBalancerSourceRanges  services/no-effect"]
    );
}

#[test]
fn traffic_distribution_has_the_words_of_kubernetes_1_34() {
    for (word, found, problems) in [
        ("", None, 0),
        ("PreferClose", Some(Distribution::SameZone), 0),
        ("PreferSameZone", Some(Distribution::SameZone), 0),
        ("PreferSameNode", Some(Distribution::SameNode), 0),
        ("PreferSameRack", None, 1),
    ] {
        let mut object = written();
        object.distribution = word.to_owned();
        let (service, shown) = read(&object);
        assert_eq!(
            (service.distribution, shown.len()),
            (found, problems),
            "{word}"
        );
    }
}

#[test]
fn annotations_choose_topology_and_algorithm() {
    let with = |pairs: &[(&str, &str)]| {
        let mut object = written();
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        object.annotations = pairs.collect();
        let (service, problems) = read(&object);
        (service.topology_auto, service.algorithm, problems.len())
    };
    let [former, present] = WrittenService::TOPOLOGY_MODE;
    let algorithm = WrittenService::ALGORITHM;
    use Algorithm::{Maglev, Random};
    for (pairs, found) in [
        (&[][..], (false, Random, 0)),
        (&[(present, "Auto")], (true, Random, 0)),
        (&[(present, "auto")], (true, Random, 0)),
        (&[(present, "Disabled")], (false, Random, 0)),
        (&[(former, "Auto")], (true, Random, 0)),
        (
            &[(former, "Disabled"), (present, "Auto")],
            (false, Random, 0),
        ),
        (&[(present, "Sometimes")], (false, Random, 1)),
        (&[(algorithm, "maglev")], (false, Maglev, 0)),
        (&[(algorithm, "random")], (false, Random, 0)),
        (&[(algorithm, "magic")], (false, Random, 1)),
    ] {
        assert_eq!(with(pairs), found, "{pairs:?}");
    }
    let cluster = ClusterFacts {
        algorithm: Maglev,
        ..ClusterFacts::default()
    };
    assert_eq!(written().read(&cluster).algorithm, Maglev);
}

#[test]
fn services_of_other_proxies_are_left_to_them() {
    let with = |label: Option<&str>, own: Option<&str>| {
        let mut object = written();
        let name = WrittenService::PROXY_NAME.to_owned();
        object.labels = label
            .map(|label| (name, label.to_owned()))
            .into_iter()
            .collect();
        let cluster = ClusterFacts {
            proxy_name: own.map(str::to_owned),
            ..ClusterFacts::default()
        };
        object.read(&cluster).ignored()
    };
    let other = |name: &str| Some(Ignored::OtherProxy(name.to_owned()));
    assert_eq!(with(None, None), None);
    assert_eq!(with(None, Some("heddle")), None);
    assert_eq!(with(Some("heddle"), Some("heddle")), None);
    assert_eq!(with(Some("kube-vip"), Some("heddle")), other("kube-vip"));
    assert_eq!(with(Some("heddle"), None), other("heddle"));
    assert_eq!(with(Some(""), None), other(""));
}

#[test]
fn a_health_check_port_goes_with_a_load_balancer_and_local() {
    let with = |kind: &str, policy: &str, number: i64| {
        let mut object = written();
        object.kind = kind.to_owned();
        object.external_policy = policy.to_owned();
        object.health_check_port = number;
        let (service, problems) = read(&object);
        (service.health_check_port, problems.len())
    };
    assert_eq!(with("LoadBalancer", "Local", 32_000), (Some(32_000), 0));
    assert_eq!(with("LoadBalancer", "Local", 0), (None, 0));
    assert_eq!(with("LoadBalancer", "Cluster", 32_000), (None, 1));
    assert_eq!(with("NodePort", "Local", 32_000), (None, 1));
    assert_eq!(with("LoadBalancer", "Local", 22), (None, 1));
}

#[test]
fn unknown_words_mean_the_default_and_are_told() {
    let mut object = written();
    object.kind = "Clusterip".to_owned();
    object.internal_policy = "local".to_owned();
    object.external_policy = "Nearby".to_owned();
    object.family_policy = "Dual".to_owned();
    let (service, problems) = read(&object);
    assert_eq!(service.kind, ServiceType::ClusterIp);
    assert_eq!(service.internal_policy, TrafficPolicy::Cluster);
    assert_eq!(problems.len(), 4, "{problems:?}");
}

#[test]
fn hostile_objects_are_bounded_and_their_words_are_cut() {
    let mut object = written();
    object.ports = (0..5000)
        .map(|number| named(&number.to_string(), number + 1))
        .collect();
    object.external_ips = vec!["x".repeat(10_000); 5000];
    object.kind = "\u{1F980}".repeat(1000);
    let (service, problems) = read(&object);
    assert_eq!(service.ports.len(), MAX_PORTS);
    assert_eq!(problems.len(), MAX_PROBLEMS);
    assert!(
        service
            .problems
            .iter()
            .all(|problem| problem.value.chars().count() <= 64)
    );
    let last = service.problems.last().unwrap();
    assert!(
        matches!(last.fault, Fault::More(count) if count > 100),
        "{last}"
    );
}

#[test]
fn external_name_and_headless_services_have_nothing_to_balance() {
    let mut object = written();
    object.kind = "ExternalName".to_owned();
    object.cluster_ips.clear();
    assert_eq!(read(&object).0.ignored(), Some(Ignored::ExternalName));
    let mut object = written();
    object.cluster_ips = text(&["None"]);
    assert_eq!(read(&object).0.ignored(), Some(Ignored::Headless));
}
