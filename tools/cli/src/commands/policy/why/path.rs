//! What carries the packets: what the kernels of both ends' nodes say of the path, and what is printed of it.

use super::{InFamily, ask::Reply, store::Live};
use heddle_agent::{AskedPath, AskedPeer, RecentConnections};
use heddle_flow::{Response, Verdict};
use heddle_policy::{Direction, EntryVerdict, Traffic};
use heddle_verify::{
    Cluster, Family, Named,
    path::{self, Check, Connections, Observed, Seen, Side, Status},
    why::AskedEnd,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

/// The two ends, as they were given.
#[derive(Clone, Copy)]
pub(super) struct Ends<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) from: &'a Named,
    pub(super) to: &'a Named,
}

/// What the nodes of the ends say of the path of one family.
pub(super) fn checks(
    live: &Live,
    ends: Ends<'_>,
    asked: &[AskedEnd],
    traffic: Traffic,
    family: Family,
) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut mtus = Vec::new();
    for asked in asked {
        let receives = asked.end.direction == Direction::Ingress;
        let (own, peer) = if receives {
            (ends.to, ends.from)
        } else {
            (ends.from, ends.to)
        };
        let address = own.peer.address(ends.cluster, family);
        let question = AskedPath {
            own: address,
            is_node: asked.end.is_node,
            peer: match asked.party.prefix {
                Some(prefix) => AskedPeer::Range(prefix),
                None => AskedPeer::Identity(asked.party.identity),
            },
            receives,
            protocol: traffic.protocol,
            port: traffic.port,
        };
        let seen = look(live, &asked.end.node, &question);
        let side = Side {
            node: &asked.end.node,
            own: &asked.end.pod,
            is_node: asked.end.is_node,
            address,
            peer: &asked.end.peer_name,
            peer_address: peer.peer.address(ends.cluster, family),
            family,
            receives,
            protocol: traffic.protocol,
            port: traffic.port,
        };
        checks.extend(path::checks(&side, &seen));
        let mtu = seen.seen().and_then(Seen::pod_mtu);
        mtus.extend(mtu.map(|mtu| (asked, mtu)));
    }
    if let [(sending, from), (receiving, to)] = mtus.as_slice() {
        let names = (sending.end.pod.as_str(), receiving.end.pod.as_str());
        checks.extend(path::differing_mtu(
            names,
            &sending.end.node,
            family,
            *from,
            *to,
        ));
    }
    checks
}

fn look(live: &Live, node: &str, question: &AskedPath) -> Observed<Seen> {
    let seen = live.agent(node).and_then(|agent| agent.call(question));
    seen.map_err(|failure| failure.message).into()
}

/// The checks of all families, with what both nodes' connections say where policy lets them through.
pub(super) fn all(
    families: &[InFamily],
    from: &Named,
    to: &Named,
    flows: &BTreeMap<String, Vec<Response>>,
) -> Vec<Check> {
    let denied = denied_sources(flows);
    let one_way = families.iter().filter_map(|it| {
        let is_let_through = it.answer.verdict == EntryVerdict::Allow
            && it.ends.iter().all(|(_, reply)| {
                let told = reply.told.realised();
                told.is_none_or(|realised| !realised.denied)
            });
        // What stops every packet is the cause.
        if !is_let_through || it.path.iter().any(|check| check.stops) {
            return None;
        }
        let tracked: Vec<(Direction, &str, RecentConnections)> = it
            .ends
            .iter()
            .filter(|(end, _)| !end.is_node)
            .filter_map(|(end, reply)| Some((end.direction, end.node.as_str(), recent(reply)?)))
            .collect();
        let of = |direction| {
            let one = tracked.iter().find(|(of, ..)| *of == direction);
            one.map(|(_, node, recent)| Connections {
                node,
                recent: &recent.latest,
                complete: recent.complete,
                latest_of_all: recent.latest_of_all,
            })
        };
        path::one_way(
            (&from.given, &to.given),
            it.family,
            it.traffic.protocol,
            of(Direction::Egress),
            of(Direction::Ingress),
            &denied,
        )
    });
    let seen = families.iter().flat_map(|it| it.path.iter().cloned());
    path::merged(seen.chain(one_way))
}

fn recent(reply: &Reply) -> Option<RecentConnections> {
    let told = &reply.answer["recentConnections"];
    serde_json::from_value(told.clone()).ok()
}

/// Who sent what a policy dropped lately: no answer came because of that, whatever policies say now.
fn denied_sources(flows: &BTreeMap<String, Vec<Response>>) -> Vec<SocketAddr> {
    let flows = flows.values().flatten().filter_map(Response::flow);
    let denied = flows.filter(|flow| {
        flow.verdict == Verdict::Dropped && flow.drop_reason_desc.starts_with("POLICY_DEN")
    });
    denied
        .filter_map(|flow| {
            let (port, _) = flow.ports()?;
            let address = flow.ip.as_ref()?.source.parse().ok()?;
            Some(SocketAddr::new(address, u16::try_from(port).ok()?))
        })
        .collect()
}

/// The lines that stand right after the verdict: what was found, and what could not be looked at.
pub(super) fn lines(checks: &[Check], verdict: EntryVerdict, families: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for check in checks {
        let word = match (check.status, verdict) {
            (Status::Pass, _) => continue,
            (Status::Fail, EntryVerdict::Allow) => "BUT",
            (Status::Fail, EntryVerdict::Deny) => "ALSO",
            (Status::Warn, _) => "NOTE",
            (Status::NotDone, _) => "UNCHECKED",
        };
        let code = check
            .code
            .map_or_else(String::new, |code| format!(" [{}]", code.as_str()));
        let only = match check.families.as_slice() {
            [Family::V4] if families > 1 => " (over IPv4)",
            [Family::V6] if families > 1 => " (over IPv6)",
            _ => "",
        };
        let line = format!("{word}: {}: {}{only}{code}", check.node, check.seen);
        if lines.contains(&line) {
            continue;
        }
        lines.push(line);
        if let Some(help) = &check.help {
            let help = format!("  help: {help}");
            if !lines.contains(&help) {
                lines.push(help);
            }
        }
    }
    lines
}

/// How much was looked at, in a line.
pub(super) fn summary(checks: &[Check]) -> Option<String> {
    let passed = checks.iter().filter(|check| check.status == Status::Pass);
    let nodes: BTreeSet<&str> = checks.iter().map(|check| check.node.as_str()).collect();
    let nodes: Vec<&str> = nodes.into_iter().collect();
    let found = match path::Verdict::of(checks) {
        path::Verdict::Ok => "nothing was found",
        path::Verdict::Unknown => "nothing was found, and not all could be looked at",
        path::Verdict::Broken | path::Verdict::Impaired => "what was found stands above",
    };
    (!nodes.is_empty()).then(|| {
        format!(
            "path: {} checks passed on {}; {found}",
            passed.count(),
            nodes.join(" and ")
        )
    })
}

/// As JSON.
pub(super) fn value(checks: &[Check]) -> Value {
    json!({"verdict": path::Verdict::of(checks), "checks": checks})
}
