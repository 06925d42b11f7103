//! Addresses that a policy never sees, or that its kind does not select.

use super::{Found, Scene};
use crate::Holder;
use heddle_policy::{CidrBlock, Peer, Peers};
use ipnet::IpNet;
use std::net::IpAddr;

/// Bits that a block may leave open and still mean one Service: wider ones mean a network.
const NARROW: u8 = 4;

pub(super) fn lint(scene: &Scene<'_>, found: &mut Found) {
    for line in scene.lines() {
        let Peers::Terms(terms) = &line.rule.peers else {
            continue;
        };
        let written = line.part.written;
        for (at, term) in terms.iter().enumerate() {
            let Peer::Cidr(block) = term else { continue };
            if let Some((service, address)) = service_in(scene, block) {
                written.warn(
                    found,
                    "policy/service-address",
                    line.peer(at),
                    format!(
                        "{} holds {address}, the address of Service {service}: policy sees the pod behind it, never this address",
                        block.block
                    ),
                    "select the pods behind the Service by their labels",
                );
            } else if !block.in_cluster
                && let Some(what) = in_cluster(scene, block.block)
            {
                written.warn(
                    found,
                    "policy/cidr-for-pods",
                    line.peer(at),
                    format!(
                        "{} is {what}, and a CIDR rule of this kind of policy selects addresses outside the cluster only",
                        block.block
                    ),
                    "select pods with fromEndpoints or toEndpoints, nodes with the entities host and remote-node",
                );
            }
        }
    }
}

fn service_in(scene: &Scene<'_>, block: &CidrBlock) -> Option<(String, IpAddr)> {
    let open = block.block.max_prefix_len() - block.block.prefix_len();
    if open > NARROW {
        return None;
    }
    scene.cluster.services.iter().find_map(|(name, service)| {
        let address = service
            .cluster_addresses
            .iter()
            .find(|address| block.block.contains(*address))?;
        Some((name.to_string(), *address))
    })
}

/// What of the cluster a block is, when it is wholly inside.
fn in_cluster(scene: &Scene<'_>, block: IpNet) -> Option<&'static str> {
    if scene
        .cluster
        .pod_ranges
        .iter()
        .any(|range| range.contains(&block))
    {
        return Some("inside the pods' addresses");
    }
    let alone = block.prefix_len() == block.max_prefix_len();
    match scene.cluster.holder(block.addr()) {
        Holder::Pod(_) if alone => Some("a pod's address"),
        _ => None,
    }
}
