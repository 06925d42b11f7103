//! `heddle policy why`: a live lab's answer, with what both datapaths do, and where the two differ.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

use heddle_netns::{Lab, Said, allow_only, eventually, idle, server};
use serde_json::Value;
use std::time::Duration;

fn why(lab: &Lab, from: &str, to: &str, more: &[&str]) -> Said {
    let question = ["policy", "why", "--from", from, "--to", to, "-o", "json"];
    lab.run(&[&question, more].concat())
}

fn in_words(lab: &Lab, from: &str, to: &str, more: &[&str]) -> Said {
    lab.run(&[&["policy", "why", "--from", from, "--to", to], more].concat())
}

/// The datapath parts of all families.
fn datapaths(answer: &Value) -> Vec<Value> {
    let families = answer["families"].as_array().unwrap().iter();
    families
        .flat_map(|family| family["datapath"].as_array().unwrap().clone())
        .collect()
}

fn policy_names(list: &Value) -> Vec<&str> {
    let list = list.as_array().unwrap().iter();
    list.map(|one| one["name"].as_str().unwrap()).collect()
}

#[test]
fn why_says_what_store_and_both_datapaths_say_and_where_they_differ() {
    let lab = Lab::up(&[]);
    lab.apply(
        &[
            server("shop", "node-2"),
            idle("client", "node-1"),
            idle("stranger", "node-1"),
        ]
        .concat(),
    );
    lab.apply(&allow_only("shop", "client"));
    allowed(&lab);
    denied(&lab);
    outside(&lab);
    unanswerable(&lab);
    the_guide(&lab);
    an_agent_that_is_away(&lab);
}

fn allowed(lab: &Lab) {
    for address in lab.addresses("shop") {
        assert!(lab.connects("client", &address, 8080));
    }
    // The port is the only one that the server declares.
    let said = why(lab, "default/client", "default/shop", &[]);
    assert_eq!(said.code, 0, "{said:?}");
    let answer = said.json();
    assert_eq!(answer["verdict"], "allow", "{answer}");
    assert_eq!(answer["agrees"], true, "{answer}");
    assert_eq!(answer["differences"], serde_json::json!([]));
    assert_eq!(
        (&answer["protocol"], &answer["port"]),
        (&"TCP".into(), &8080.into())
    );
    let families: Vec<&str> = answer["families"]
        .as_array()
        .unwrap()
        .iter()
        .map(|family| family["family"].as_str().unwrap())
        .collect();
    assert_eq!(families, ["IPv4", "IPv6"]);
    for part in datapaths(&answer) {
        let (node, verdict) = (&part["node"], &part["row"]["verdict"]);
        assert_eq!(
            (&part["source"], verdict),
            (&"agent".into(), &"allow".into()),
            "{part}"
        );
        assert!(
            part["realisedRevision"].as_u64() >= answer["revision"].as_u64(),
            "{part}"
        );
        match part["direction"].as_str().unwrap() {
            // Nothing isolates the client: a row of no rules.
            "egress" => assert_eq!(
                (node, &part["row"]["cookie"]),
                (&"node-1".into(), &0.into())
            ),
            _ => {
                assert_eq!(node, "node-2");
                assert_eq!(policy_names(&part["rules"]), ["only-client-to-shop"]);
                assert_eq!(part["row"]["port"], "8080", "{part}");
                // As the store has the client.
                assert_eq!(
                    part["peer"]["identity"], answer["from"]["identity"],
                    "{part}"
                );
                assert!(
                    !part["connections"].as_array().unwrap().is_empty(),
                    "{part}"
                );
            }
        }
    }
    eventually("both nodes have told", Duration::from_secs(5), || {
        let answer = why(lab, "default/client", "default/shop", &[]).json();
        ["node-1", "node-2"].iter().all(|node| {
            let seen = answer["flows"][node].as_array().unwrap();
            assert!(seen.len() <= 5, "{answer}");
            seen.iter()
                .any(|line| line["flow"]["l4"]["TCP"]["destination_port"] == 8080)
        })
    });
}

fn denied(lab: &Lab) {
    let address = lab.addresses("shop").remove(0);
    assert!(!lab.connects("stranger", &address, 8080));
    let said = why(
        lab,
        "default/stranger",
        "default/shop",
        &["--port", "http/tcp"],
    );
    assert_eq!(said.code, 1, "{said:?}");
    let answer = said.json();
    assert_eq!(answer["agrees"], true, "{answer}");
    let ingress = &answer["ingress"];
    assert_eq!(ingress["because"], "default-deny", "{answer}");
    assert_eq!(
        policy_names(&ingress["isolatedBy"]),
        ["only-client-to-shop"]
    );
    assert_eq!(ingress["nearest"][0]["failed"], "peer", "{answer}");
    let part = datapaths(&answer)
        .into_iter()
        .find(|part| part["direction"] == "ingress")
        .unwrap();
    assert_eq!(
        (&part["verdict"], &part["row"]),
        (&"deny".into(), &Value::Null),
        "{part}"
    );
    assert_eq!(policy_names(&part["isolatedBy"]), ["only-client-to-shop"]);
    eventually("node-2 has told the drop", Duration::from_secs(5), || {
        let said = why(lab, "default/stranger", "default/shop", &[]);
        let answer = said.json();
        let flows = answer["flows"]["node-1"].as_array().unwrap();
        let other = answer["flows"]["node-2"].as_array().unwrap();
        flows
            .iter()
            .chain(other)
            .any(|line| line["flow"]["verdict"] == "DROPPED")
    });
    let words = in_words(lab, "default/stranger", "default/shop", &["--port", "8080"]);
    assert_eq!(words.code, 1, "{words:?}");
    for expected in [
        "deny: default/stranger (10.244.",
        "isolated by NetworkPolicy default/only-client-to-shop",
        "datapath of node-1, egress of default/stranger: allow",
        "datapath of node-2, ingress of default/shop: deny",
        "no row matches: dropped by default",
        "last flows that node-2 saw:",
    ] {
        assert!(words.out.contains(expected), "{expected}: {}", words.out);
    }
    assert!(!words.out.contains("DIFFERS"), "{}", words.out);
}

fn outside(lab: &Lab) {
    let said = why(lab, "default/client", "world", &["--port", "443"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(said.json()["agrees"], true, "{said:?}");
    // From outside nothing comes into the server; the node where it runs is the only one that decides.
    let said = why(lab, "203.0.113.10", "default/shop", &[]);
    let answer = said.json();
    assert_eq!(
        (said.code, &answer["agrees"]),
        (1, &true.into()),
        "{answer}"
    );
    let parts = datapaths(&answer);
    assert_eq!(parts.len(), 1, "{answer}");
    assert_eq!(parts[0]["peer"]["prefix"], "0.0.0.0/0", "{answer}");
    let ping = why(
        lab,
        "default/client",
        "default/shop",
        &["--icmp", "EchoRequest"],
    );
    assert_eq!(
        (ping.code, ping.json()["families"].as_array().unwrap().len()),
        (1, 2),
        "{ping:?}"
    );
}

fn unanswerable(lab: &Lab) {
    for (to, more, exit, code) in [
        (
            "default/nobody",
            &["--port", "80"][..],
            2,
            "policy/unknown-peer",
        ),
        ("nobody", &["--port", "80"], 2, "policy/unknown-peer"),
        ("default/client", &[], 2, "usage/missing-argument"),
        (
            "default/shop",
            &["--port", "nix"],
            3,
            "policy/unknown-port-name",
        ),
        ("default/shop", &["--port", "80/IPX"], 2, "usage/port"),
        (
            "default/shop",
            &["--lab", "no-such-lab"],
            3,
            "lab/unknown-lab",
        ),
    ] {
        let said = why(lab, "default/stranger", to, more);
        let error: Value = serde_json::from_str(&said.err).unwrap_or_else(|_| panic!("{said:?}"));
        assert_eq!(
            (said.code, error["error"]["code"].as_str()),
            (exit, Some(code)),
            "{said:?}"
        );
    }
}

/// The commands of the guide's section, as they stand there.
fn the_guide(lab: &Lab) {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/policy/guide.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let (_, section) = guide.split_once("## On call").unwrap();
    let commands: Vec<&str> = section
        .lines()
        .filter_map(|line| line.strip_prefix("heddle "))
        .collect();
    let codes: Vec<i32> = commands
        .iter()
        .map(|line| {
            let arguments: Vec<&str> = line.split_whitespace().collect();
            lab.run(&arguments).code
        })
        .collect();
    assert_eq!(codes, [1, 0, 0], "{commands:?}");
}

fn an_agent_that_is_away(lab: &Lab) {
    let _ = lab.run(&["lab", "agent", "kill", "node-2"]).ok();
    // The datapath goes on, and is read without the agent.
    let said = why(lab, "default/client", "default/shop", &[]);
    let answer = said.json();
    assert_eq!(
        (said.code, &answer["agrees"]),
        (0, &true.into()),
        "{answer}"
    );
    let ingress = |answer: &Value| {
        let mut parts = datapaths(answer).into_iter();
        parts.find(|part| part["direction"] == "ingress").unwrap()
    };
    let part = ingress(&answer);
    assert_eq!(part["source"], "maps", "{part}");
    assert!(
        part["problem"].as_str().unwrap().contains("node-2"),
        "{part}"
    );
    assert_eq!(policy_names(&part["rules"]), ["only-client-to-shop"]);
    // A change that this node cannot hear of.
    let changed =
        allow_only("shop", "stranger").replace("only-stranger-to-shop", "only-client-to-shop");
    let _ = lab
        .run_with(&["lab", "apply", "--no-wait", "-f", "-"], &changed)
        .ok();
    for (from, wished, realised) in [
        ("default/client", "deny", "allow"),
        ("default/stranger", "allow", "deny"),
    ] {
        let said = why(lab, from, "default/shop", &[]);
        let answer = said.json();
        assert_eq!(said.code, 4, "{answer}");
        assert_eq!(
            (&answer["verdict"], &answer["agrees"]),
            (&wished.into(), &false.into())
        );
        assert_eq!(ingress(&answer)["verdict"], realised, "{answer}");
        let difference = &answer["differences"][0];
        assert_eq!(
            (
                &difference["node"],
                &difference["what"],
                &difference["realised"]
            ),
            (&"node-2".into(), &"verdict".into(), &realised.into()),
            "{answer}"
        );
        let words = in_words(lab, from, "default/shop", &[]);
        assert_eq!(words.code, 4);
        let verb = if realised == "deny" {
            "denies"
        } else {
            "allows"
        };
        let line = format!("DIFFERS: node-2 {verb} what default/shop gets from {from}");
        assert!(words.out.contains(&line), "{}", words.out);
        assert!(
            words.out.contains("heddle lab agent start node-2"),
            "{}",
            words.out
        );
        // And so it is.
        let address = lab.addresses("shop").remove(0);
        let pod = from.trim_start_matches("default/");
        assert_eq!(lab.connects(pod, &address, 8080), realised == "allow");
    }
    let _ = lab.run(&["lab", "agent", "start", "node-2"]).ok();
    eventually("the node has caught up", Duration::from_secs(10), || {
        why(lab, "default/stranger", "default/shop", &[]).code == 0
    });
    assert_eq!(why(lab, "default/client", "default/shop", &[]).code, 1);
}
