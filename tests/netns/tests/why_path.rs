//! `heddle why` and the path: one thing is broken at a time, and named; a lab in which nothing is broken has no finding.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

use heddle_netns::{Lab, Said, eventually, idle, server};
use serde_json::Value;
use std::time::Duration;

const WORLD: &str = "203.0.113.10";
const WORLD_IPV6: &str = "2001:db8:113::10";

fn why(lab: &Lab, from: &str, to: &str, port: &str) -> Said {
    let question = ["why", "--from", from, "--to", to, "--port", port];
    lab.run(&[&question[..], &["-o", "json"]].concat())
}

/// Codes, nodes and families of what was found.
fn findings(answer: &Value) -> Vec<(String, String, Vec<String>)> {
    let checks = answer["path"]["checks"].as_array();
    let checks = checks.unwrap_or_else(|| panic!("{answer}"));
    let found = checks.iter().filter(|check| check["code"].is_string());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    found
        .map(|check| {
            assert!(
                check["help"].is_string() && check["seen"].is_string(),
                "{check}"
            );
            let families = check["families"].as_array().unwrap().iter().map(text);
            (
                text(&check["code"]),
                text(&check["node"]),
                families.collect(),
            )
        })
        .collect()
}

fn both_servers(lab: &Lab) {
    let datagrams =
        "    - {name: datagrams, containerPort: 9000, protocol: UDP}\n    readinessProbe";
    lab.apply(
        &[
            server("far", "node-2").replace("    readinessProbe", datagrams),
            server("near", "node-1"),
            idle("client", "node-1"),
        ]
        .concat(),
    );
}

/// Every kind of pair, and nothing found.
fn whole(lab: &Lab) {
    for server in ["far", "near"] {
        reaches(lab, server);
    }
    for (from, to, port) in [
        ("default/client", "default/far", "8080"),
        ("default/client", "default/near", "8080"),
        ("default/near", "default/far", "9000/UDP"),
        ("default/client", "world", "443"),
        ("default/client", WORLD, "443"),
        ("default/client", WORLD_IPV6, "443"),
        (WORLD, "default/far", "8080"),
        (WORLD_IPV6, "default/far", "8080"),
        ("world", "default/near", "8080"),
        ("host:node-1", "default/far", "8080"),
        ("host:node-1", "default/near", "8080"),
        ("host:node-2", "default/near", "8080"),
    ] {
        let said = why(lab, from, to, port);
        let answer = said.json();
        assert_eq!(said.code, 0, "{from} {to}: {answer}");
        let verdict = &answer["path"]["verdict"];
        assert_eq!(verdict, "ok", "{from} {to}: {}", answer["path"]);
        assert_eq!(findings(&answer), [], "{from} {to}");
        let passed = answer["path"]["checks"].as_array().unwrap().len();
        assert!(passed > 1, "{from} {to}: {answer}");
    }
    // Ports may be translated before a socket is looked up: nobody there is a hint.
    let said = why(lab, "default/client", "host:node-2", "9");
    let answer = said.json();
    assert_eq!(said.code, 0, "{answer}");
    let found = findings(&answer);
    assert!(
        found.iter().all(|(code, ..)| code == "path/no-listener"),
        "{found:?}"
    );
    let question = [
        "why",
        "--from",
        "default/client",
        "--to",
        "default/far",
        "--port",
        "8080",
    ];
    let words = lab.run(&question).ok().out;
    assert!(words.starts_with("ALLOW: "), "{words}");
    assert!(words.contains("nothing was found"), "{words}");
    for word in ["BUT:", "NOTE:", "UNCHECKED:"] {
        assert!(!words.contains(word), "{words}");
    }
}

/// What `why` says of client and far while something is broken: it finds `code` on `node`, in these families.
fn finds(lab: &Lab, pair: (&str, &str), code: &str, node: &str, families: &[&str], stops: bool) {
    let (from, to) = pair;
    let said = why(lab, from, to, "8080");
    let answer = said.json();
    let found = findings(&answer);
    let mine: Vec<&str> = found
        .iter()
        .filter(|(of, on, _)| of == code && on == node)
        .flat_map(|(.., families)| families.iter().map(String::as_str))
        .collect();
    assert_eq!(
        mine, families,
        "{code} on {node}: {found:?}\n{}",
        answer["path"]
    );
    // Policy has not changed, and both datapaths agree with it.
    assert_eq!(
        (&answer["verdict"], &answer["agrees"]),
        (&"allow".into(), &true.into())
    );
    assert_eq!(said.code, i32::from(stops), "{answer}");
    let words = lab
        .run(&["why", "--from", from, "--to", to, "--port", "8080"])
        .out;
    let lines: Vec<&str> = words.lines().collect();
    assert!(lines[0].starts_with("ALLOW: "), "{words}");
    assert!(lines[1].starts_with("BUT: "), "{words}");
    assert!(lines[2].starts_with("  help: "), "{words}");
    let named = lines.iter().any(|line| line.contains(&format!("[{code}]")));
    assert!(named, "{code}: {words}");
}

const CLIENT_FAR: (&str, &str) = ("default/client", "default/far");
const BOTH: &[&str] = &["IPv4", "IPv6"];

fn on(lab: &Lab, node: &str, line: &str) {
    let said = lab.on(node, line);
    assert_eq!(said.code, 0, "{node}: {line}: {said:?}");
}

/// The host side of a pod's link.
fn link_of(lab: &Lab, pod: &str, node: &str) -> String {
    let pod = format!("default/{pod}");
    let question = ["endpoint", "get", &pod, "--node", node, "-o", "json"];
    let answer = lab.run(&question).ok().json();
    let endpoint = if answer.is_array() {
        &answer[0]
    } else {
        &answer
    };
    format!("hd{}", endpoint["id"])
}

fn tries(lab: &Lab) {
    for address in lab.addresses("far") {
        assert!(!lab.connects("client", &address, 8080), "{address}");
    }
}

/// What is the same in every fabric.
fn each_break(lab: &Lab, mtu: u32) {
    // Nobody listens: another port, and another protocol.
    for port in ["9000/TCP", "8080/UDP"] {
        let said = why(lab, "default/client", "default/far", port);
        let answer = said.json();
        let found = findings(&answer);
        assert_eq!(
            found,
            [(
                "path/no-listener".into(),
                "node-2".into(),
                vec!["IPv4".into(), "IPv6".into()]
            )],
            "{answer}"
        );
        // The packets arrive.
        assert_eq!(
            (said.code, &answer["path"]["verdict"]),
            (0, &"impaired".into())
        );
    }
    // Addresses to which the programs drop whatever a pod sends; those of the kernel alone are not among them.
    for address in [
        "224.0.0.1",
        "127.0.0.1",
        "240.0.0.1",
        "169.254.23.1",
        "ff02::1",
        "fe80::23:1",
    ] {
        let said = why(lab, "default/client", address, "8080");
        let answer = said.json();
        let codes: Vec<String> = findings(&answer).into_iter().map(|it| it.0).collect();
        assert_eq!(codes, ["path/unroutable"], "{address}: {answer}");
        let told = (&answer["verdict"], &answer["path"]["verdict"]);
        assert_eq!(told, (&"allow".into(), &"broken".into()), "{address}");
        assert_eq!(said.code, 1, "{address}: {answer}");
        assert!(!lab.connects("client", address, 8080), "{address}");
    }
    // A node that drops what is for documentation addresses has a way to the world.
    on(lab, "node-1", "ip route add blackhole 192.0.2.0/24");
    let said = why(lab, "default/client", "world", "443");
    assert_eq!(
        (said.code, findings(&said.json())),
        (0, Vec::new()),
        "{said:?}"
    );
    on(lab, "node-1", "ip route del blackhole 192.0.2.0/24");
    // The pod's own route.
    on_pod(lab, "client", "ip route del default");
    finds(lab, CLIENT_FAR, "path/no-route", "node-1", &["IPv4"], true);
    finds(
        lab,
        ("default/client", "default/near"),
        "path/no-route",
        "node-1",
        &["IPv4"],
        true,
    );
    on_pod(
        lab,
        "client",
        "ip route add default via 169.254.23.1 dev eth0 onlink",
    );
    on_pod(lab, "client", "ip -6 route del default");
    finds(lab, CLIENT_FAR, "path/no-route", "node-1", &["IPv6"], true);
    on_pod(
        lab,
        "client",
        "ip -6 route add default via fe80::23:1 dev eth0 onlink",
    );
    whole(lab);
    // The far pod's link takes less than the pod sends.
    let far = link_of(lab, "far", "node-2");
    on(lab, "node-2", &format!("ip link set {far} mtu 1400"));
    finds(lab, CLIENT_FAR, "path/mtu-too-small", "node-2", BOTH, false);
    on(lab, "node-2", &format!("ip link set {far} mtu {mtu}"));
    whole(lab);
}

fn on_pod(lab: &Lab, pod: &str, line: &str) {
    let said = lab.exec(pod, line);
    assert_eq!(said.code, 0, "{pod}: {line}: {said:?}");
}

/// What does not come back by itself, or only with a new pod: last.
fn last_breaks(lab: &Lab) {
    let far = link_of(lab, "far", "node-2");
    on(lab, "node-2", &format!("ip link set {far} mtu 1200"));
    finds(
        lab,
        CLIENT_FAR,
        "path/mtu-below-1280",
        "node-2",
        &["IPv6"],
        true,
    );
    on(
        lab,
        "node-2",
        &format!("ip link set {far} mtu 1450; ip link set {far} down"),
    );
    tries(lab);
    finds(lab, CLIENT_FAR, "path/device-down", "node-2", BOTH, true);
    on(lab, "node-2", &format!("ip link del {far}"));
    finds(lab, CLIENT_FAR, "path/device-missing", "node-2", BOTH, true);
    on(lab, "node-1", "ip link set eth0 down");
    tries(lab);
    finds(lab, CLIENT_FAR, "path/device-down", "node-1", BOTH, true);
    finds(
        lab,
        ("default/client", WORLD),
        "path/device-down",
        "node-1",
        &["IPv4"],
        true,
    );
    finds(
        lab,
        ("default/client", WORLD_IPV6),
        "path/device-down",
        "node-1",
        &["IPv6"],
        true,
    );
    // What stays on the node does not need it.
    let said = why(lab, "default/client", "default/near", "8080");
    assert_eq!(findings(&said.json()), [], "{said:?}");
    // A node that cannot be asked is named.
    let _ = lab.run(&["lab", "agent", "kill", "node-2"]).ok();
    let answer = why(lab, "default/client", "default/far", "8080").json();
    let not_done = answer["path"]["checks"].as_array().unwrap().iter();
    let not_done = not_done.filter(|check| check["status"] == "not-done");
    let nodes: Vec<&str> = not_done
        .map(|check| check["node"].as_str().unwrap())
        .collect();
    assert_eq!(nodes, ["node-2"], "{answer}");
    let words = lab
        .run(&[
            "why",
            "--from",
            "default/client",
            "--to",
            "default/far",
            "--port",
            "8080",
        ])
        .out;
    assert!(words.contains("UNCHECKED: node-2: "), "{words}");
}

#[test]
fn in_a_routed_fabric_what_is_broken_on_the_path_is_named() {
    let lab = Lab::up(&[]);
    both_servers(&lab);
    whole(&lab);
    each_break(&lab, 1500);
    // The node's routes.
    for (family, gateway, wrong) in [
        ("-4", "172.31.1.1", "172.31.1.99"),
        ("-6", "fd31:1::1", "fd31:1::99"),
    ] {
        let name = if family == "-4" { "IPv4" } else { "IPv6" };
        on(&lab, "node-1", &format!("ip {family} route del default"));
        finds(&lab, CLIENT_FAR, "path/no-route", "node-1", &[name], true);
        finds(
            &lab,
            ("default/client", "world"),
            "path/no-route",
            "node-1",
            &[name],
            true,
        );
        finds(
            &lab,
            ("host:node-1", "default/far"),
            "path/no-route",
            "node-1",
            &[name],
            true,
        );
        // The answers' way.
        finds(
            &lab,
            ("default/far", "default/near"),
            "path/no-route",
            "node-1",
            &[name],
            true,
        );
        // A next hop that is not there, and that somebody has asked for.
        on(
            &lab,
            "node-1",
            &format!("ip {family} route add default via {wrong}"),
        );
        let address = lab.addresses("far").remove(usize::from(family == "-6"));
        assert!(!lab.connects("client", &address, 8080));
        let answer = why(&lab, "default/client", "default/far", "8080").json();
        let found = findings(&answer);
        let hop = found.iter().any(|(code, node, families)| {
            code.starts_with("path/neighbour-") && node == "node-1" && families == &[name]
        });
        assert!(hop, "{found:?}");
        on(
            &lab,
            "node-1",
            &format!("ip {family} route replace default via {gateway}"),
        );
        // Another device. A redirect of IPv4 takes the routes by the uplink alone; one of IPv6 the longest prefix.
        on(
            &lab,
            "node-1",
            &format!("ip {family} route add {address} dev lo"),
        );
        if family == "-4" {
            answered(&lab);
            let said = why(&lab, "default/client", "default/far", "8080");
            assert_eq!(
                (said.code, findings(&said.json())),
                (0, Vec::new()),
                "{said:?}"
            );
        } else {
            assert!(!lab.connects("client", &address, 8080));
            finds(
                &lab,
                CLIENT_FAR,
                "path/wrong-device",
                "node-1",
                &[name],
                true,
            );
        }
        finds(
            &lab,
            ("host:node-1", "default/far"),
            "path/wrong-device",
            "node-1",
            &[name],
            true,
        );
        on(
            &lab,
            "node-1",
            &format!("ip {family} route del {address} dev lo"),
        );
        answered(&lab);
    }
    // Answers that get lost between the nodes, where no node's kernel sees a reason.
    one_way(&lab, |from, to| format!("-s {from} -d {to} -j DROP"));
    // The uplink carries less than pods send.
    on(&lab, "node-1", "ip link set eth0 mtu 1400");
    finds(
        &lab,
        CLIENT_FAR,
        "path/mtu-too-small",
        "node-1",
        BOTH,
        false,
    );
    on(&lab, "node-1", "ip link set eth0 mtu 1500");
    // To a pod of the node itself, and from it.
    let near = lab.addresses("near");
    on(&lab, "node-1", &format!("ip route del {}", near[0]));
    let said = lab.run(&["diff", "--node", "node-1", "-o", "json"]);
    let gone: Vec<Value> = said.json().as_array().unwrap().clone();
    assert_eq!((said.code, gone.len()), (1, 1), "{said:?}");
    let (kind, object) = (&gone[0]["kind"], &gone[0]["object"]);
    assert_eq!(
        (kind, object),
        (&"route".into(), &format!("{}/32", near[0]).into())
    );
    finds(
        &lab,
        ("host:node-1", "default/near"),
        "path/wrong-device",
        "node-1",
        &["IPv4"],
        true,
    );
    let said = why(&lab, "default/client", "default/near", "8080");
    assert_eq!(
        (said.code, &said.json()["path"]["verdict"]),
        (0, &"impaired".into())
    );
    let link = link_of(&lab, "near", "node-1");
    on(
        &lab,
        "node-1",
        &format!("ip route add {} dev {link}", near[0]),
    );
    whole(&lab);
    last_breaks(&lab);
}

/// A connection that is answered, after those that were not.
fn answered(lab: &Lab) {
    reaches(lab, "far");
}

fn reaches(lab: &Lab, server: &str) {
    for address in lab.addresses(server) {
        let what = format!("client reaches {server} at {address}");
        eventually(&what, Duration::from_secs(20), || {
            lab.connects("client", &address, 8080)
        });
    }
}

/// Connections that hear no answer, because of what happens behind a node. The table's clock counts whole seconds: one that
/// was answered within the same second as the last may have come after it.
fn loses(lab: &Lab, node: &str) {
    let what = format!("packets are lost behind {node}");
    eventually(&what, Duration::from_secs(20), || {
        tries(lab);
        let answer = why(lab, "default/client", "default/far", "8080").json();
        findings(&answer).len() == BOTH.len()
    });
    finds(lab, CLIENT_FAR, "path/one-way", node, BOTH, false);
}

/// Packets that the network between the nodes loses: there, and back.
fn one_way(lab: &Lab, rule: impl Fn(&str, &str) -> String) {
    let (client, far) = (lab.addresses("client"), lab.addresses("far"));
    for (there, node) in [(true, "node-1"), (false, "node-2")] {
        let ends: Vec<(&String, &String)> = if there {
            client.iter().zip(&far).collect()
        } else {
            far.iter().zip(&client).collect()
        };
        for (tool, (from, to)) in ["iptables", "ip6tables"].iter().zip(&ends) {
            on(
                lab,
                "router",
                &format!("{tool} -I FORWARD {}", rule(from, to)),
            );
        }
        loses(lab, node);
        for (tool, (from, to)) in ["iptables", "ip6tables"].iter().zip(&ends) {
            on(
                lab,
                "router",
                &format!("{tool} -D FORWARD {}", rule(from, to)),
            );
        }
        answered(lab);
    }
}

#[test]
fn in_an_overlay_what_is_broken_on_the_path_is_named() {
    let lab = Lab::up(&["--fabric", "vxlan"]);
    both_servers(&lab);
    whole(&lab);
    each_break(&lab, 1450);
    // Outer packets go by the node's route to the other node.
    on(
        &lab,
        "node-1",
        "ip route del default; ip -6 route del default",
    );
    finds(&lab, CLIENT_FAR, "path/no-route", "node-1", BOTH, true);
    on(
        &lab,
        "node-1",
        "ip route add default via 172.31.1.1; ip -6 route add default via fd31:1::1",
    );
    // They get lost on the way.
    on(
        &lab,
        "router",
        "iptables -I FORWARD -s 172.31.2.2 -d 172.31.1.2 -j DROP; \
        ip6tables -I FORWARD -s fd31:2::2 -d fd31:1::2 -j DROP",
    );
    loses(&lab, "node-2");
    on(&lab, "router", "iptables -F FORWARD; ip6tables -F FORWARD");
    answered(&lab);
    // They do not fit.
    on(&lab, "node-1", "ip link set eth0 mtu 1480");
    finds(
        &lab,
        CLIENT_FAR,
        "path/mtu-too-small",
        "node-1",
        BOTH,
        false,
    );
    on(&lab, "node-1", "ip link set eth0 mtu 1500");
    whole(&lab);
    // The overlay itself.
    on(&lab, "node-1", "ip link set heddle-vxlan down");
    tries(&lab);
    finds(&lab, CLIENT_FAR, "path/device-down", "node-1", BOTH, true);
    on(&lab, "node-1", "ip link set heddle-vxlan up");
    answered(&lab);
    // The routes into it went, and only the node's own packets take them.
    finds(
        &lab,
        ("host:node-1", "default/far"),
        "path/wrong-device",
        "node-1",
        BOTH,
        true,
    );
    let said = why(&lab, "default/client", "default/far", "8080");
    assert_eq!(
        (said.code, findings(&said.json())),
        (0, Vec::new()),
        "{said:?}"
    );
    last_breaks(&lab);
}

#[test]
fn where_the_stack_carries_packets_its_routes_are_looked_at() {
    for fabric in ["routed", "vxlan"] {
        let lab = Lab::with("hostRouting: false\n", &["--fabric", fabric]);
        both_servers(&lab);
        whole(&lab);
        let near = lab.addresses("near");
        for address in &near {
            on(&lab, "node-1", &format!("ip route del {address}"));
            assert!(!lab.connects("client", address, 8080));
        }
        finds(
            &lab,
            ("default/client", "default/near"),
            "path/wrong-device",
            "node-1",
            BOTH,
            true,
        );
        let link = link_of(&lab, "near", "node-1");
        for address in &near {
            on(
                &lab,
                "node-1",
                &format!("ip route add {address} dev {link}"),
            );
        }
        whole(&lab);
    }
}
