//! What the operator knows of the cluster: the facts it needs of each object it watches.

use crate::policies::Policies;
use heddle_kube::identity::{UNUSED_SINCE, claim_name, parse_claim, parse_identity};
use heddle_kube::objects::{CiliumEndpoint, Metadata, NodePolicyReport};
use heddle_kube::store::{Event, Kind, Object, Version};
use heddle_model::{Identity, NamespacedName};
use heddle_policy::CidrLimits;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};

/// A Node.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) uid: String,
    pub(crate) value: Value,
}

/// A CiliumEndpoint.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) uid: String,
    pub(crate) version: Version,
    pub(crate) identity: Option<Identity>,
    pub(crate) node: Option<String>,
}

/// A CiliumIdentity.
#[derive(Clone, Debug)]
pub(crate) struct IdentityFacts {
    pub(crate) version: Version,
    pub(crate) marked: bool,
    /// Name of the claim of its labels; none when the labels cannot be read.
    pub(crate) claim: Option<String>,
}

/// An IdentityClaim.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) version: Version,
    pub(crate) identity: Option<Identity>,
}

/// A NodePolicyReport.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) version: Version,
    pub(crate) status: NodePolicyReport,
}

/// The facts of every object.
pub(crate) struct Facts {
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) pods: HashSet<NamespacedName>,
    pub(crate) endpoints: HashMap<NamespacedName, Endpoint>,
    pub(crate) identities: BTreeMap<Identity, IdentityFacts>,
    pub(crate) claims: HashMap<String, Claim>,
    pub(crate) policies: Policies,
    pub(crate) reports: BTreeMap<String, Report>,
}

impl Facts {
    fn new(limits: CidrLimits) -> Self {
        Self {
            nodes: BTreeMap::new(),
            pods: HashSet::new(),
            endpoints: HashMap::new(),
            identities: BTreeMap::new(),
            claims: HashMap::new(),
            policies: Policies::new(limits),
            reports: BTreeMap::new(),
        }
    }
}

/// Everything that was said up to now; while a list is repeated, everything before it.
pub(crate) struct Cluster {
    facts: Facts,
    limits: CidrLimits,
    /// The list that is being repeated.
    coming: Option<Facts>,
    synced: bool,
}

impl std::ops::Deref for Cluster {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        &self.facts
    }
}

/// What an event means for nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// A whole list is known.
    Everything,
    /// This node came, changed or went.
    Node(String),
    /// Nothing that nodes depend on.
    Nothing,
}

impl Cluster {
    /// Nothing is known yet. `limits` is what policies' addresses may cost.
    pub(crate) fn new(limits: CidrLimits) -> Self {
        Self {
            facts: Facts::new(limits),
            limits,
            coming: None,
            synced: false,
        }
    }

    /// True when everything that exists is known.
    pub(crate) const fn is_synced(&self) -> bool {
        self.synced && self.coming.is_none()
    }

    /// Takes in what the store said.
    pub(crate) fn apply(&mut self, event: Event) -> Change {
        match event {
            Event::Restarted => {
                self.coming = Some(Facts::new(self.limits));
                Change::Nothing
            }
            Event::Synced { revision } => {
                let facts = self.coming.as_mut().unwrap_or(&mut self.facts);
                facts.policies.synced(revision);
                let repeated = self.coming.take();
                let first = !std::mem::replace(&mut self.synced, true);
                let whole = first || repeated.is_some();
                if let Some(facts) = repeated {
                    self.facts = facts;
                }
                if whole {
                    Change::Everything
                } else {
                    Change::Nothing
                }
            }
            Event::Applied(object) => self.change(object, Facts::insert),
            Event::Deleted(object) => self.change(object, Facts::remove),
        }
    }

    fn change(&mut self, object: Object, apply: fn(&mut Facts, Object)) -> Change {
        let change = if object.kind == Kind::Node && self.is_synced() {
            Change::Node(object.name.name.clone())
        } else {
            Change::Nothing
        };
        apply(self.coming.as_mut().unwrap_or(&mut self.facts), object);
        change
    }
}

impl Facts {
    fn insert(&mut self, object: Object) {
        let Object {
            kind,
            name,
            version,
            value,
        } = object;
        match kind {
            Kind::Node => {
                let uid = Metadata::of(&value).uid;
                self.nodes.insert(name.name, Node { uid, value });
            }
            Kind::Pod => {
                self.pods.insert(name);
            }
            Kind::CiliumEndpoint => {
                let status = CiliumEndpoint::of(&value);
                let endpoint = Endpoint {
                    uid: Metadata::of(&value).uid,
                    version,
                    identity: status.identity(),
                    node: status.node_name,
                };
                self.endpoints.insert(name, endpoint);
            }
            Kind::CiliumIdentity => {
                if let Ok(number) = name.name.parse() {
                    let marked = Metadata::of(&value).annotations.contains_key(UNUSED_SINCE);
                    let claim = parse_identity(&value).map(|(_, labels)| claim_name(&labels));
                    let facts = IdentityFacts {
                        version,
                        marked,
                        claim,
                    };
                    self.identities.insert(Identity(number), facts);
                }
            }
            Kind::IdentityClaim => {
                let identity = parse_claim(&value);
                self.claims.insert(name.name, Claim { version, identity });
            }
            Kind::NodePolicyReport => {
                let status = NodePolicyReport::of(&value);
                self.reports.insert(name.name, Report { version, status });
            }
            Kind::CiliumCIDRGroup => self.policies.set_group(name, &value),
            kind if kind.is_policy() => self.policies.set(kind, name, &value),
            _ => {}
        }
    }

    fn remove(&mut self, object: Object) {
        let name = object.name;
        match object.kind {
            Kind::Node => {
                self.nodes.remove(&name.name);
            }
            Kind::Pod => {
                self.pods.remove(&name);
            }
            Kind::CiliumEndpoint => {
                self.endpoints.remove(&name);
            }
            Kind::CiliumIdentity => {
                if let Ok(number) = name.name.parse() {
                    self.identities.remove(&Identity(number));
                }
            }
            Kind::IdentityClaim => {
                self.claims.remove(&name.name);
            }
            Kind::NodePolicyReport => {
                self.reports.remove(&name.name);
            }
            kind if kind.is_policy() || kind == Kind::CiliumCIDRGroup => {
                self.policies.remove(kind, name);
            }
            _ => {}
        }
    }
}
