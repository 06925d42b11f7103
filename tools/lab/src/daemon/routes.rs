//! The cloud's route table: which node each pod range is behind.

use crate::LabError;
use crate::config::LabRecord;
use crate::namespace;
use crate::network;
use crate::topology::{self, Attachment};
use heddle_agent::config::Fabric;
use heddle_kube::store::Object;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};

/// Pod ranges by node.
pub type Ranges = BTreeMap<String, BTreeSet<IpNet>>;

/// The routes of the router's namespace.
#[derive(Debug, Default)]
pub struct Routes {
    namespace: String,
    /// Nodes' links; empty when the network knows nodes only.
    attachments: Vec<Attachment>,
    realised: Ranges,
}

/// The ranges that Node objects name.
pub fn wanted<'a>(nodes: impl Iterator<Item = &'a Object>) -> Ranges {
    nodes
        .map(|node| {
            let ranges = node.value["spec"]["podCIDRs"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|range| range.as_str()?.parse::<IpNet>().ok())
                .map(|range| range.trunc())
                .collect();
            (node.name.name.clone(), ranges)
        })
        .collect()
}

impl Routes {
    /// The router of a lab, which knows nodes only so far.
    pub fn new(namespace: String, record: &LabRecord) -> Self {
        let attachments = match record.fabric {
            Fabric::Routed => topology::attachments(record),
            Fabric::Vxlan => Vec::new(),
        };
        Self {
            namespace,
            attachments,
            realised: Ranges::new(),
        }
    }

    /// Makes the router's routes those that are wanted.
    pub fn realise(&mut self, wanted: Ranges) -> Result<(), LabError> {
        if self.attachments.is_empty() || self.realised == wanted {
            return Ok(());
        }
        let (attachments, realised) = (&self.attachments, &self.realised);
        namespace::inside(&self.namespace, || {
            network::in_this_namespace(async |handle| {
                let none = BTreeSet::new();
                for (node, ranges) in realised {
                    for range in ranges.difference(wanted.get(node).unwrap_or(&none)) {
                        network::refuse_source(&handle, node, *range).await?;
                        // Another node may have the range by now; its route replaces this one below.
                        network::remove_route(&handle, *range).await?;
                    }
                }
                for attachment in attachments {
                    for range in wanted.get(&attachment.host).unwrap_or(&none) {
                        let Some(gateway) = attachment.host_address(range) else {
                            continue;
                        };
                        network::add_route(&handle, *range, gateway).await?;
                        network::admit_source(&handle, &attachment.host, *range).await?;
                    }
                }
                Ok(())
            })
        })?;
        self.realised = wanted;
        Ok(())
    }
}
