//! Peers as the command line names them: a pod, an address, a node, an entity.

use crate::{Cluster, Holder, Node, VerifyError};
use heddle_model::Family;
use heddle_model::{Entity, Identity, NamespacedName, closest};
use heddle_policy::Party;
use ipnet::IpNet;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// All addresses of a family.
fn everywhere(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::from(ipnet::Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
        Family::V6 => IpNet::from(ipnet::Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
    }
}

/// Who is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    /// A pod, by its position.
    Pod(usize),
    /// A node itself, by its position.
    Node(usize),
    /// An address that no pod or node has.
    Address(IpAddr),
    /// Somebody with this reserved identity.
    Reserved(Identity),
}

/// A peer with the words it was given in, and the family these words imply.
#[derive(Clone, Debug)]
pub struct Named {
    /// As it was given.
    pub given: String,
    /// Who is meant.
    pub peer: Peer,
    /// The family of the address that it was given by.
    pub family: Option<Family>,
}

impl Named {
    /// A pod, by its position.
    pub fn pod(cluster: &Cluster, pod: usize) -> Self {
        Self {
            given: cluster.pods[pod].name.to_string(),
            peer: Peer::Pod(pod),
            family: None,
        }
    }

    /// Reads `ns/pod`, `ns/deploy/NAME` (any kind of workload; one of its pods), an address, `host:NODE` or an entity.
    pub fn parse(cluster: &Cluster, given: &str) -> Result<Self, VerifyError> {
        let mut family = None;
        let peer = if let Ok(address) = given.parse::<IpAddr>() {
            family = Some(Family::of(address));
            match cluster.holder(address) {
                Holder::Pod(pod) => Peer::Pod(pod),
                Holder::Node(node) => Peer::Node(node),
                Holder::Unmanaged | Holder::World => Peer::Address(address),
            }
        } else if let Some(name) = given.strip_prefix("host:") {
            Peer::Node(cluster.node(name).ok_or_else(|| VerifyError::UnknownNode {
                given: name.to_owned(),
                whence: cluster.whence.clone(),
                nodes: cluster.nodes.iter().map(|n| n.name.clone()).collect(),
            })?)
        } else if let Ok(name) = given.parse::<NamespacedName>() {
            let found = cluster.pod(&name);
            Peer::Pod(found.ok_or_else(|| unknown_pod(cluster, name.to_string(), given))?)
        } else if let [namespace, kind, name] = given.split('/').collect::<Vec<_>>()[..] {
            return Self::workload(cluster, given, namespace, kind, name);
        } else {
            Self::entity(given)?
        };
        Ok(Self {
            given: given.to_owned(),
            peer,
            family,
        })
    }

    /// One of a workload's pods stands for all: its labels, and so its identity, are theirs.
    fn workload(
        cluster: &Cluster,
        given: &str,
        namespace: &str,
        kind: &str,
        name: &str,
    ) -> Result<Self, VerifyError> {
        let wanted = workload_kind(kind).ok_or_else(|| unknown(given))?;
        let of_namespace = || {
            let pods = cluster.pods.iter().enumerate();
            pods.filter(|(_, pod)| pod.name.namespace == namespace)
        };
        let is_its = |pod: &crate::Pod| match (&pod.workload, wanted) {
            (_, "Pod") => pod.name.name == name,
            (Some((kind, owner)), wanted) => kind == wanted && owner == name,
            (None, _) => false,
        };
        let found = of_namespace().find(|(_, pod)| is_its(pod));
        let (pod, _) = found.ok_or_else(|| {
            let mut workloads: Vec<String> = of_namespace()
                .filter_map(|(_, pod)| pod.workload.as_ref())
                .map(|(kind, owner)| format!("{namespace}/{}/{owner}", kind.to_lowercase()))
                .collect();
            workloads.sort();
            workloads.dedup();
            VerifyError::UnknownWorkload {
                given: given.to_owned(),
                whence: cluster.whence.clone(),
                workloads,
            }
        })?;
        Ok(Self::pod(cluster, pod))
    }

    fn entity(given: &str) -> Result<Peer, VerifyError> {
        match given.parse::<Entity>() {
            Ok(Entity::All | Entity::Cluster | Entity::None) => {
                return Err(VerifyError::AmbiguousPeer {
                    given: given.to_owned(),
                });
            }
            Ok(_) => {}
            // The world's families have names of their own as identities.
            Err(_) if given.starts_with("world-") => {}
            Err(_) => return Err(unknown(given)),
        }
        Identity::from_reserved_name(given)
            .map(Peer::Reserved)
            .ok_or_else(|| unknown(given))
    }

    /// The families that it has addresses of, the preferred one first.
    pub fn families(&self, cluster: &Cluster) -> Vec<Family> {
        if let Some(family) = self.family {
            return vec![family];
        }
        let mut found = Vec::new();
        for address in self.peer.addresses(cluster) {
            let family = Family::of(*address);
            if !found.contains(&family) {
                found.push(family);
            }
        }
        match self.peer {
            Peer::Reserved(Identity::WORLD_IPV4) => vec![Family::V4],
            Peer::Reserved(Identity::WORLD_IPV6) => vec![Family::V6],
            Peer::Reserved(_) => vec![Family::V4, Family::V6],
            _ => found,
        }
    }
}

/// The kind that a word means, with kubectl's short names.
fn workload_kind(word: &str) -> Option<&'static str> {
    Some(match word.to_ascii_lowercase().as_str() {
        "deploy" | "deployment" | "deployments" => "Deployment",
        "sts" | "statefulset" | "statefulsets" => "StatefulSet",
        "ds" | "daemonset" | "daemonsets" => "DaemonSet",
        "rs" | "replicaset" | "replicasets" => "ReplicaSet",
        "job" | "jobs" => "Job",
        "cj" | "cronjob" | "cronjobs" => "CronJob",
        "po" | "pod" | "pods" => "Pod",
        _ => return None,
    })
}

/// No pod is called so; which one nearly is.
pub(crate) fn unknown_pod(cluster: &Cluster, shown: String, given: &str) -> VerifyError {
    let names: Vec<String> = cluster
        .pods
        .iter()
        .map(|pod| pod.name.to_string())
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    VerifyError::UnknownPod {
        given: shown,
        whence: cluster.whence.clone(),
        near: closest(given, &names).map(str::to_owned),
    }
}

fn unknown(given: &str) -> VerifyError {
    VerifyError::UnknownPeer {
        given: given.to_owned(),
    }
}

impl Peer {
    fn addresses(self, cluster: &Cluster) -> &[IpAddr] {
        match self {
            Self::Pod(pod) => &cluster.pods[pod].addresses,
            Self::Node(node) => &cluster.nodes[node].addresses,
            Self::Address(_) | Self::Reserved(_) => &[],
        }
    }

    /// Its address of a family.
    pub fn address(self, cluster: &Cluster, family: Family) -> Option<IpAddr> {
        if let Self::Address(address) = self {
            return Some(address);
        }
        self.addresses(cluster)
            .iter()
            .copied()
            .find(|address| Family::of(*address) == family)
    }

    /// The node whose own it is: a node, or a pod in its network.
    pub fn as_node(self, cluster: &Cluster) -> Option<usize> {
        match self {
            Self::Node(node) => Some(node),
            Self::Pod(pod) if cluster.pods[pod].host_network => Some(cluster.pods[pod].node),
            _ => None,
        }
    }

    /// The node it is on, when it is a pod with an endpoint of its own.
    pub fn endpoint_node(self, cluster: &Cluster) -> Option<usize> {
        match self {
            Self::Pod(pod) if !cluster.pods[pod].host_network => Some(cluster.pods[pod].node),
            _ => None,
        }
    }

    /// True when a packet between the two never leaves a pod.
    pub fn is_same_pod(self, other: Self, cluster: &Cluster) -> bool {
        self == other && self.endpoint_node(cluster).is_some()
    }

    /// How the other end sees it. A node is `host` to its own pods, `remote-node` to the rest.
    pub fn party(self, other: Self, cluster: &Cluster, family: Family) -> Party {
        let prefix = self.address(cluster, family).map(IpNet::from);
        if let Some(node) = self.as_node(cluster) {
            let itself = other.as_node(cluster) == Some(node);
            let identity = if itself || other.endpoint_node(cluster) == Some(node) {
                Identity::HOST
            } else {
                Identity::REMOTE_NODE
            };
            let party = Party::in_cluster(identity, prefix);
            return match Node::subject(node) {
                // What a node says to itself no policy is asked about.
                Some(subject) if !itself => party.with_subject(subject),
                _ => party,
            };
        }
        match self {
            Self::Pod(pod) => Party::in_cluster(cluster.pods[pod].identity, prefix),
            Self::Node(_) => Party::in_cluster(Identity::REMOTE_NODE, prefix),
            Self::Address(address) => match cluster.holder(address) {
                Holder::World => Party::world(IpNet::from(address)),
                _ => Party::in_cluster(Identity::UNMANAGED, Some(IpNet::from(address))),
            },
            Self::Reserved(identity) if identity.is_world() => Party::world(everywhere(family)),
            Self::Reserved(identity) => Party::in_cluster(identity, None),
        }
    }

    /// The number that a name of its ports means, when it has it.
    pub fn named_port(self, cluster: &Cluster, protocol: u8, name: &str) -> Option<u16> {
        let Self::Pod(pod) = self else { return None };
        heddle_policy::protocol::named_ports(&cluster.pods[pod].named_ports)
            .find(|(known, of, _)| *known == name && *of == protocol)
            .map(|(_, _, port)| port)
    }

    /// The description of one end that answers bear.
    pub fn describe(self, cluster: &Cluster, party: &Party, family: Family) -> About {
        let (pod, node) = match self {
            Self::Pod(pod) => (Some(pod), Some(cluster.pods[pod].node)),
            Self::Node(node) => (None, Some(node)),
            Self::Address(_) | Self::Reserved(_) => (None, None),
        };
        let address = self.address(cluster, family);
        let labels = match (self, party.identity.reserved_name()) {
            (Self::Pod(pod), _) => cluster.pods[pod].labels.clone(),
            (_, Some(name)) => BTreeMap::from([(format!("reserved:{name}"), String::new())]),
            (_, None) => BTreeMap::new(),
        };
        About {
            entity: match self {
                Self::Reserved(identity) => identity.reserved_name(),
                _ => None,
            },
            identity: party.identity,
            ip: address.or_else(|| self.addresses(cluster).first().copied()),
            labels,
            node: node.map(|node| cluster.nodes[node].name.clone()),
            pod: pod.map(|pod| cluster.pods[pod].name.to_string()),
        }
    }
}

/// One end of an answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct About {
    /// The name of the reserved identity that it was given by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entity: Option<&'static str>,
    /// Its identity, as the other end's node sees it.
    pub identity: Identity,
    /// Its address of the family that is asked about; of the other one where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// A pod's own labels, or the reserved one.
    pub labels: BTreeMap<String, String>,
    /// The node that it is, or is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The pod that it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
}

/// The family two ends speak: one that both have, the source's preference first.
pub fn common_family(cluster: &Cluster, from: &Named, to: &Named) -> Family {
    let (ours, theirs) = (from.families(cluster), to.families(cluster));
    ours.iter()
        .find(|family| theirs.contains(family))
        .or(ours.first())
        .or(theirs.first())
        .copied()
        .unwrap_or(Family::V4)
}
