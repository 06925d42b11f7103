//! Request/response, short connections and streams, on one node and between two.

use crate::RunArguments;
use crate::compare::{Arm, Report, Rounds};
use crate::iptables::RULES_PER_SERVICE;
use crate::lab::Lab;
use crate::load::Kind;
use crate::process::{Server, measure};
use crate::serve::{PORT_CRR, PORT_RR, PORT_STREAM};
use crate::topology::Chain;
use anyhow::Result;
use std::net::IpAddr;
use std::path::PathBuf;

/// One veth pair.
const BARE: &str = "bare-veth";
/// Two namespaces, routed by the kernel.
const ROUTED: &str = "routed";
/// The same with kube-proxy's rules for one service.
const ONE_SERVICE: &str = "routed+iptables-1-service";
/// The same with 1,000 rules.
const THOUSAND_RULES: &str = "routed+iptables-1000-rules";
/// Two pods that no policy selects.
const HEDDLE: &str = "heddle";
/// Two pods with policy in both directions at both ends.
const WITH_POLICY: &str = "heddle+policy";

/// Pairs to compare, baseline first.
const PAIRS: &[(&str, &str)] = &[
    (BARE, ROUTED),
    (ROUTED, ONE_SERVICE),
    (ROUTED, THOUSAND_RULES),
    (BARE, HEDDLE),
    (ROUTED, HEDDLE),
    (ONE_SERVICE, HEDDLE),
    (THOUSAND_RULES, HEDDLE),
    (HEDDLE, WITH_POLICY),
];

/// Pods of the network benchmarks: name, node, and whether policy selects it.
const PODS: [(&str, &str, bool); 6] = [
    ("client", "node-1", false),
    ("same-node", "node-1", false),
    ("cross-node", "node-2", false),
    ("policy-client", "node-1", true),
    ("policy-same-node", "node-1", true),
    ("policy-cross-node", "node-2", true),
];

/// A way from a client to a server, with the server running.
struct Way {
    name: &'static str,
    client: PathBuf,
    addresses: [IpAddr; 2],
    _server: Server,
    _chain: Option<Chain>,
}

impl Way {
    fn over(name: &'static str, chain: Chain, arguments: &RunArguments) -> Result<Self> {
        Ok(Self {
            name,
            client: chain.client(),
            addresses: chain.addresses(),
            _server: Server::start(&chain.server(), arguments.placement)?,
            _chain: Some(chain),
        })
    }

    fn between(
        name: &'static str,
        lab: &Lab,
        (client, server): (&str, &str),
        arguments: &RunArguments,
    ) -> Result<Self> {
        Ok(Self {
            name,
            client: lab.pod_netns(client),
            addresses: lab.pod_addresses(server)?,
            _server: Server::start(&lab.pod_netns(server), arguments.placement)?,
            _chain: None,
        })
    }

    fn measure(&self, kind: Kind, family: usize, arguments: &RunArguments) -> Result<Vec<f64>> {
        measure(
            &self.client,
            kind,
            self.addresses[family],
            arguments.seconds,
            arguments.placement,
        )
        .map(|rate| vec![rate])
    }
}

/// Runs every network benchmark that was asked for.
pub(crate) fn run(arguments: &RunArguments, report: &mut Report) -> Result<()> {
    let mut lab = None;
    for (place, routers) in [("same-node", 1), ("cross-node", 3)] {
        let wanted = wanted(place, arguments);
        if wanted.is_empty() {
            continue;
        }
        let services = 1000 / RULES_PER_SERVICE;
        let mut ways = vec![
            Way::over(BARE, Chain::bare()?, arguments)?,
            Way::over(ROUTED, Chain::routed(routers, None)?, arguments)?,
            Way::over(ONE_SERVICE, Chain::routed(routers, Some(1))?, arguments)?,
            Way::over(
                THOUSAND_RULES,
                Chain::routed(routers, Some(services))?,
                arguments,
            )?,
        ];
        if !arguments.baselines_only {
            if lab.is_none() {
                let fresh = Lab::up(arguments)?;
                fresh.apply(&manifest())?;
                lab = Some(fresh);
            }
            if let Some(lab) = &lab {
                let guarded = format!("policy-{place}");
                ways.push(Way::between(HEDDLE, lab, ("client", place), arguments)?);
                ways.push(Way::between(
                    WITH_POLICY,
                    lab,
                    ("policy-client", &guarded),
                    arguments,
                )?);
            }
        }
        for (name, kind, family) in wanted {
            let arms = ways
                .iter()
                .map(|way| Arm {
                    name: way.name,
                    measure: Box::new(move || way.measure(kind, family, arguments)),
                })
                .collect();
            let rounds = Rounds::run(arms, arguments.rounds)?;
            for pair in PAIRS {
                if let Some(comparison) = rounds.compare(&name, kind.unit(), 0, *pair) {
                    report.add(comparison)?;
                }
            }
        }
    }
    Ok(())
}

/// Name, kind and family (0 for IPv4) of what was asked for.
fn wanted(place: &str, arguments: &RunArguments) -> Vec<(String, Kind, usize)> {
    let mut wanted = Vec::new();
    for kind in Kind::ALL {
        for (family, shown) in ["v4", "v6"].into_iter().enumerate() {
            let name = format!("{place}/{}/{shown}", kind.name());
            if arguments.wants(&name) {
                wanted.push((name, kind, family));
            }
        }
    }
    wanted
}

/// The pods, and a policy that isolates the guarded ones in both directions and lets them do just this.
fn manifest() -> serde_json::Value {
    let guarded = serde_json::json!({"matchLabels": {"bench": "guarded"}});
    let ports: Vec<_> = [
        ("TCP", PORT_RR),
        ("TCP", PORT_CRR),
        ("TCP", PORT_STREAM),
        ("UDP", PORT_RR),
    ]
    .into_iter()
    .map(|(protocol, port)| serde_json::json!({"protocol": protocol, "port": port}))
    .collect();
    let mut items: Vec<_> = PODS
        .iter()
        .map(|(name, node, policy)| {
            crate::lab::idle_pod(name, node, if *policy { "guarded" } else { "open" })
        })
        .collect();
    items.push(serde_json::json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "guarded", "namespace": "default"},
        "spec": {
            "podSelector": guarded,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"podSelector": guarded}], "ports": ports}],
            "egress": [{"to": [{"podSelector": guarded}], "ports": ports}],
        },
    }));
    serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items})
}
