//! A cluster as manifests describe it: nodes, pods with addresses and identities, services, CIDR groups,
//! and a policy engine.

mod facts;
mod pods;

use super::{Failure, check};
use heddle_kube::{
    manifest::Manifest,
    pod::DeclaredPort,
    policy::{self, CidrGroup, Severity},
};
use heddle_model::{Identity, LabelFilter, LabelSet, NamespacedName};
use heddle_policy::{Engine, Policy};
use ipnet::IpNet;
use serde_json::Value;
use std::{collections::BTreeMap, net::IpAddr};

pub(super) use facts::Service;

/// The cluster's name in identity labels.
const CLUSTER: &str = "default";

/// A node.
pub(super) struct Node {
    pub(super) name: String,
    /// One per family, given or assigned.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) labels: BTreeMap<String, String>,
    pod_ranges: Vec<IpNet>,
}

impl Node {
    /// The number that host policies know the node with this position by.
    pub(super) fn subject(position: usize) -> Option<Identity> {
        u16::try_from(position).ok().map(Identity::node_subject)
    }
}

/// A pod.
pub(super) struct Pod {
    pub(super) name: NamespacedName,
    /// Position among the nodes.
    pub(super) node: usize,
    /// Primary first; its node's for a host-network pod.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) host_network: bool,
    /// 0 for a host-network pod: it depends on who looks.
    pub(super) identity: Identity,
    /// Its own labels, as written.
    pub(super) labels: BTreeMap<String, String>,
    /// `http=TCP/8080,...`
    pub(super) named_ports: String,
    /// Every port that its containers declare.
    pub(super) ports: Vec<DeclaredPort>,
}

/// What stands at an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Holder {
    Pod(usize),
    Node(usize),
    /// In a pod range, but no pod's.
    Unmanaged,
    /// Outside the cluster.
    World,
}

/// The cluster.
pub(super) struct Cluster {
    pub(super) nodes: Vec<Node>,
    pub(super) pods: Vec<Pod>,
    pub(super) engine: Engine,
    /// Labels of the namespaces that are written as objects.
    pub(super) namespaces: BTreeMap<String, BTreeMap<String, String>>,
    pub(super) services: BTreeMap<NamespacedName, Service>,
    pub(super) groups: BTreeMap<String, CidrGroup>,
    pub(super) pod_ranges: Vec<IpNet>,
    /// Where its objects are from, as errors say it.
    pub(super) whence: String,
    by_name: BTreeMap<NamespacedName, usize>,
    by_address: BTreeMap<IpAddr, Holder>,
}

/// Where the pods and nodes of another cluster are: what is not written is taken from there, so that two
/// clusters differ in what their manifests say alone.
pub(super) struct Placement {
    /// The cluster's name in identity labels.
    pub(super) cluster: String,
    /// Which labels of pods count.
    pub(super) filter: LabelFilter,
    /// Numbers that label sets have already.
    pub(super) identities: BTreeMap<LabelSet, Identity>,
    /// Where the objects are from, as errors say it.
    pub(super) whence: String,
    /// Each pod's node and addresses.
    pods: BTreeMap<NamespacedName, (String, Vec<IpAddr>)>,
    /// Each node's addresses.
    nodes: BTreeMap<String, Vec<IpAddr>>,
}

impl Default for Placement {
    fn default() -> Self {
        Self {
            cluster: CLUSTER.to_owned(),
            filter: LabelFilter::default(),
            identities: BTreeMap::new(),
            whence: "the manifests".to_owned(),
            pods: BTreeMap::new(),
            nodes: BTreeMap::new(),
        }
    }
}

/// The manifest's kind.
pub(super) fn kind(manifest: &Manifest) -> &str {
    manifest
        .value
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn of_kind<'a>(
    manifests: &'a [Manifest],
    wanted: &'static str,
) -> impl Iterator<Item = &'a Manifest> {
    manifests
        .iter()
        .filter(move |manifest| kind(manifest) == wanted)
}

impl Cluster {
    /// Builds the cluster; a policy with an error is refused, and with it the question.
    pub(super) fn build(manifests: &[Manifest]) -> Result<Self, Failure> {
        Self::build_beside(manifests, &Placement::default())
    }

    /// The same, with pods and nodes that are not placed where `before` has them.
    pub(super) fn build_beside(
        manifests: &[Manifest],
        before: &Placement,
    ) -> Result<Self, Failure> {
        let policies = policies(manifests)?;
        let groups = groups(manifests)?;
        Self::with_policies(manifests, policies, groups, before)
    }

    /// Builds the cluster with policies and groups that are already read.
    pub(super) fn with_policies(
        manifests: &[Manifest],
        policies: Vec<Policy>,
        groups: Vec<CidrGroup>,
        before: &Placement,
    ) -> Result<Self, Failure> {
        let mut cluster = Self {
            nodes: Vec::new(),
            pods: Vec::new(),
            engine: Engine::new(),
            namespaces: BTreeMap::new(),
            services: BTreeMap::new(),
            groups: BTreeMap::new(),
            by_name: BTreeMap::new(),
            by_address: BTreeMap::new(),
            pod_ranges: Vec::new(),
            whence: before.whence.clone(),
        };
        cluster.add_facts(manifests, groups);
        cluster.engine.set_policies(policies);
        let objects = pods::pods_of(manifests)?;
        cluster.add_nodes(manifests, &objects, before);
        cluster.add_pods(&objects, before)?;
        cluster.assign_addresses()?;
        Ok(cluster)
    }

    /// Where its pods and nodes are.
    pub(super) fn placement(&self) -> Placement {
        let pods = self.pods.iter().filter(|pod| !pod.host_network);
        Placement {
            pods: pods
                .map(|pod| {
                    let node = self.nodes[pod.node].name.clone();
                    (pod.name.clone(), (node, pod.addresses.clone()))
                })
                .collect(),
            nodes: self
                .nodes
                .iter()
                .map(|node| (node.name.clone(), node.addresses.clone()))
                .collect(),
            ..Placement::default()
        }
    }

    pub(super) fn pod(&self, name: &NamespacedName) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    pub(super) fn node(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }

    /// What stands at an address.
    pub(super) fn holder(&self, address: IpAddr) -> Holder {
        if let Some(holder) = self.by_address.get(&address) {
            *holder
        } else if self.pod_ranges.iter().any(|range| range.contains(&address)) {
            Holder::Unmanaged
        } else {
            Holder::World
        }
    }
}

/// The policies; one with an error refuses them all.
fn policies(manifests: &[Manifest]) -> Result<Vec<Policy>, Failure> {
    let mut found = Vec::new();
    for manifest in manifests {
        if policy::policy_id(&manifest.value).is_none() {
            if kind(manifest).contains("NetworkPolicy") {
                return Err(Failure::new(
                    "policy/unsupported-kind",
                    format!("{} is not enforced yet", check::object(manifest)),
                )
                .object(check::object(manifest))
                .help(
                    "leave it out, or write it as a ClusterNetworkPolicy or CiliumNetworkPolicy",
                ));
            }
            continue;
        }
        let parsed = policy::parse(&manifest.value);
        match parsed.policy {
            Some(policy) => found.push(policy),
            None => return Err(refuse(manifest, parsed.problems)),
        }
    }
    Ok(found)
}

fn groups(manifests: &[Manifest]) -> Result<Vec<CidrGroup>, Failure> {
    of_kind(manifests, "CiliumCIDRGroup")
        .map(|manifest| {
            policy::parse_cidr_group(&manifest.value).map_err(|problems| refuse(manifest, problems))
        })
        .collect()
}

/// The first error of an object that is refused, with how many there are.
fn refuse(manifest: &Manifest, problems: Vec<policy::Problem>) -> Failure {
    let object = check::object(manifest);
    let mut errors = problems
        .into_iter()
        .filter(|problem| problem.severity == Severity::Error);
    let first = errors.next();
    let more = errors.count();
    let Some(first) = first else {
        return Failure::new("policy/refused", "a policy is refused").object(object);
    };
    let rest = match more {
        0 => String::new(),
        1 => " (and one more error: see `heddle policy check`)".to_owned(),
        more => format!(" (and {more} more errors: see `heddle policy check`)"),
    };
    Failure::new(
        first.code,
        format!(
            "{}, document {}, {object}, {}: {}{rest}",
            manifest.file, manifest.document, first.field, first.message
        ),
    )
    .object(object)
    .field(first.field)
    .help(first.help)
}
