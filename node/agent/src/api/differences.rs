//! Wished versus realised: what the kernel has against what it should have.

use crate::agent::Agent;
use crate::endpoint::kernel_failure;
use crate::ledger::Ledger;
use heddle_datapath::{DatapathError, PeerRow, RealisedEndpoint, RealisedPolicy, link_name};
use heddle_policy::CompiledPolicy;
use heddle_rpc::ApiError;
use heddle_rpc::node::Difference;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

struct Findings(Vec<Difference>);

impl Findings {
    fn add(
        &mut self,
        kind: &str,
        object: &str,
        field: &str,
        wished: &impl Debug,
        realised: &impl Debug,
    ) {
        self.0.push(Difference {
            kind: kind.to_owned(),
            object: object.to_owned(),
            field: field.to_owned(),
            wished: format!("{wished:?}"),
            realised: format!("{realised:?}"),
        });
    }
}

/// Every difference, sorted by object; empty when the kernel is as wished.
pub(crate) async fn differences(agent: &Arc<Agent>) -> Result<Vec<Difference>, ApiError> {
    agent.health.must_be_ready()?;
    let findings = agent
        .on_ledger(|ledger| {
            // Read while the ledger is held: nothing changes between the two sides.
            let mut findings = Findings(Vec::new());
            endpoints(ledger, &mut findings)?;
            node(ledger, &mut findings)?;
            ipcache(ledger, &mut findings)?;
            routes(ledger, &mut findings)?;
            Ok::<_, DatapathError>(findings)
        })
        .await
        .map_err(|error| kernel_failure(&error))?;
    Ok(findings.0)
}

fn endpoints(ledger: &mut Ledger, findings: &mut Findings) -> Result<(), DatapathError> {
    let realised: BTreeMap<u16, RealisedEndpoint> = ledger
        .writer
        .datapath
        .endpoints()?
        .into_iter()
        .map(|it| (it.facts.endpoint, it))
        .collect();
    for id in realised.keys() {
        if !ledger.endpoints.contains(*id) {
            findings.add("endpoint", &id.to_string(), "present", &false, &true);
        }
    }
    let wished: Vec<_> = ledger
        .endpoints
        .iter()
        .filter(|(_, it)| it.attached)
        .map(|(id, it)| (id, it.record.pod.clone(), it.identity))
        .collect();
    for (id, pod, identity) in wished {
        let object = format!("{id} ({pod})");
        let facts = ledger
            .endpoints
            .get(id)
            .and_then(|endpoint| ledger.peers.facts_of(endpoint));
        match realised.get(&id) {
            None => {
                findings.add("endpoint", &object, "present", &true, &false);
                continue;
            }
            Some(it) => {
                if !it.attached {
                    findings.add("endpoint", &object, "attached", &true, &false);
                }
                if facts.as_ref() != Some(&it.facts) {
                    findings.add("endpoint", &object, "facts", &facts, &it.facts);
                }
            }
        }
        // Compiled afresh: what was remembered could be wrong itself.
        let wished = ledger.policies.rules.compile(identity);
        let audit = ledger.endpoints.get(id).is_some_and(|it| ledger.audits(it));
        let in_kernel = ledger.writer.datapath.policy(id)?;
        policy("endpoint", &object, (&wished, audit), &in_kernel, findings);
    }
    Ok(())
}

/// The node's own policy: one that is refused because it would lock out is wished, and told as missing.
fn node(ledger: &mut Ledger, findings: &mut Findings) -> Result<(), DatapathError> {
    let object = ledger.config.node_name.clone();
    match (
        ledger.host.wished().cloned(),
        ledger.writer.datapath.node_policy()?,
    ) {
        (Some(wished), Some(in_kernel)) => {
            policy(
                "node",
                &object,
                (&wished, wished.audit),
                &in_kernel,
                findings,
            );
        }
        (Some(_), None) => findings.add("node", &object, "policy", &"a map", &"none"),
        (None, Some(_)) => findings.add("node", &object, "policy", &"none", &"a map"),
        (None, None) => {}
    }
    Ok(())
}

fn policy(
    kind: &str,
    object: &str,
    (wished, audit): (&CompiledPolicy, bool),
    realised: &RealisedPolicy,
    findings: &mut Findings,
) {
    let Some(in_kernel) = &realised.entries else {
        findings.add(kind, object, "policy", &"a map", &"none");
        return;
    };
    if realised.audit != audit {
        findings.add(kind, object, "policy audit", &audit, &realised.audit);
    }
    let place = (kind, object);
    rows(place, "policy entry", &wished.entries, in_kernel, findings);
    rows(
        place,
        "policy alias",
        &wished.aliases,
        &realised.aliases,
        findings,
    );
}

/// What is in one of two sorted lists and not in the other.
fn rows<T: Ord + Debug>(
    (kind, object): (&str, &str),
    field: &str,
    wished: &[T],
    in_kernel: &[T],
    findings: &mut Findings,
) {
    let missing = |row: &&T| in_kernel.binary_search(row).is_err();
    for row in wished.iter().filter(missing) {
        findings.add(kind, object, field, row, &"missing");
    }
    let unwanted = |row: &&T| wished.binary_search(row).is_err();
    for row in in_kernel.iter().filter(unwanted) {
        findings.add(kind, object, field, &"none", row);
    }
}

fn ipcache(ledger: &Ledger, findings: &mut Findings) -> Result<(), DatapathError> {
    let wished = ledger.peers.ipcache.wished();
    let realised: BTreeMap<IpNet, PeerRow> = ledger
        .writer
        .datapath
        .peers()?
        .into_iter()
        .map(|row| (row.prefix, row))
        .collect();
    for (prefix, row) in &wished {
        match realised.get(prefix) {
            None => findings.add("ipcache", &prefix.to_string(), "row", row, &"missing"),
            Some(has) if has != row => {
                findings.add("ipcache", &prefix.to_string(), "row", row, has);
            }
            Some(_) => {}
        }
    }
    for (prefix, row) in &realised {
        if !wished.contains_key(prefix) {
            findings.add("ipcache", &prefix.to_string(), "row", &"none", row);
        }
    }
    Ok(())
}

/// The kernel routes to this node's pods and, with an overlay, to the ranges of other nodes'.
fn routes(ledger: &Ledger, findings: &mut Findings) -> Result<(), DatapathError> {
    let mut wished: BTreeMap<IpNet, String> = BTreeMap::new();
    for (id, endpoint) in ledger.endpoints.staying().filter(|(_, it)| it.attached) {
        let addresses = endpoint.record.addresses();
        wished.extend(addresses.map(|address| (IpNet::from(address), link_name(id))));
    }
    let ranges = ledger.peers.nodes.routes();
    let ranges: BTreeSet<IpNet> = ranges.into_iter().map(|(range, _)| range).collect();
    let asked = wished.keys().chain(&ranges).copied().collect();
    let Some(realised) = ledger.writer.datapath.routes(&asked)? else {
        return Ok(());
    };
    // Without an overlay the network's own routes lead to other nodes' pods.
    if let Some(overlay) = &realised.overlay {
        wished.extend(ranges.into_iter().map(|range| (range, overlay.clone())));
    }
    let mut found: BTreeMap<IpNet, Vec<&str>> = BTreeMap::new();
    for (prefix, device) in &realised.routes {
        let device = device.as_deref().unwrap_or("nowhere");
        found.entry(*prefix).or_default().push(device);
    }
    for (prefix, device) in &wished {
        match found.remove(prefix) {
            None => findings.add("route", &prefix.to_string(), "present", &true, &false),
            Some(by) if !by.contains(&device.as_str()) => {
                findings.add("route", &prefix.to_string(), "via", device, &by.join(", "));
            }
            Some(_) => {}
        }
    }
    // What is left is the datapath's own, or of the network where there is no overlay.
    let unwanted = found.iter().filter(|(_, by)| {
        let overlay = realised.overlay.as_deref();
        overlay.is_some_and(|overlay| by.contains(&overlay))
    });
    for (prefix, _) in unwanted {
        findings.add("route", &prefix.to_string(), "present", &false, &true);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::{Node, eventually, second_node};

    /// Kind, object, field and both sides of each difference.
    async fn found(node: &Node) -> Vec<[String; 5]> {
        let differences = node.differences().await.into_iter();
        differences
            .map(|it| [it.kind, it.object, it.field, it.wished, it.realised])
            .collect()
    }

    fn row(object: &str, field: &str, wished: &str, realised: &str) -> [String; 5] {
        ["route", object, field, wished, realised].map(str::to_owned)
    }

    #[tokio::test]
    async fn a_kernel_route_that_is_gone_or_leads_elsewhere_is_told() {
        let node = Node::start().await;
        node.put(second_node()).await;
        node.pod("shop", "web", &[]).await;
        let given = node.add("c1", "shop", "web").await.unwrap();
        node.settled().await;
        eventually("nothing differs", || async {
            found(&node).await.is_empty()
        })
        .await;
        // Of this node's pod, and of another node's range.
        let pod = format!("{}/32", given.addresses[0].address);
        for (prefix, device) in [(pod.as_str(), "hd1"), ("10.244.2.0/24", "heddle-vxlan")] {
            for (realised, expected) in [
                (None, row(prefix, "present", "true", "false")),
                (
                    Some("eth9"),
                    row(prefix, "via", &format!("{device:?}"), "\"eth9\""),
                ),
            ] {
                node.datapath.change(|kernel| {
                    let route = realised.map(str::to_owned);
                    kernel.changed_routes.insert(prefix.parse().unwrap(), route);
                });
                assert_eq!(found(&node).await, [expected]);
                node.datapath.change(|kernel| kernel.changed_routes.clear());
                assert!(found(&node).await.is_empty());
            }
        }
        // One that nobody wishes.
        node.datapath.change(|kernel| {
            let leftover = (
                "10.244.9.0/24".parse().unwrap(),
                "192.168.0.9".parse().unwrap(),
            );
            kernel.routes.push(leftover);
        });
        let leftover = row("10.244.9.0/24", "present", "false", "true");
        assert_eq!(found(&node).await, [leftover]);
    }
}
