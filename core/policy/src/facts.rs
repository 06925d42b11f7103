//! What policies refer to by name: CIDR groups, services, nodes; and how strictly policy is enforced.

use crate::EndpointSelector;
use heddle_model::{LabelSet, NamespacedName, Operator, Requirement, Selector, SelectorError};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

/// When policy is enforced (references D1 to D3).
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum EnforcementMode {
    /// For endpoints that a policy isolates, and for what rules of any tier say.
    #[default]
    Default,
    /// For all endpoints: what no rule allows is denied.
    Always,
    /// For none: rules are not asked.
    Never,
}

/// What policy needs to know of a service.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServiceFacts {
    /// The service's own labels.
    pub labels: BTreeMap<String, String>,
    /// The labels of the pods behind it, in its namespace. `None` or empty: it has no selector, and its
    /// endpoints are somebody else's business.
    pub selector: Option<BTreeMap<String, String>>,
    /// The addresses of its endpoints; they count when it has no selector.
    pub addresses: Vec<IpNet>,
}

impl ServiceFacts {
    /// The pods behind a service with a selector.
    pub(crate) fn pods(
        &self,
        name: &NamespacedName,
    ) -> Option<Result<EndpointSelector, SelectorError>> {
        let labels = self.selector.as_ref().filter(|labels| !labels.is_empty())?;
        let namespace = Requirement {
            key: LabelSet::NAMESPACE.to_owned(),
            operator: Operator::In,
            values: vec![name.namespace.clone()],
        };
        Some(Selector::new(labels.clone(), vec![namespace]).map(EndpointSelector::new))
    }

    /// The addresses behind a service without a selector.
    pub(crate) fn outside(&self) -> &[IpNet] {
        match &self.selector {
            Some(labels) if !labels.is_empty() => &[],
            _ => &self.addresses,
        }
    }
}

/// Prefixes, and a quick answer to whether one of them covers another prefix.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct PrefixSet {
    prefixes: HashSet<IpNet>,
    /// The lengths that occur, IPv4 and IPv6, longest last.
    lengths: [Vec<u8>; 2],
}

impl PrefixSet {
    pub(crate) fn new(prefixes: impl IntoIterator<Item = IpNet>) -> Self {
        let mut set = Self {
            prefixes: prefixes.into_iter().map(|prefix| prefix.trunc()).collect(),
            lengths: Default::default(),
        };
        let mut seen = [[false; 129]; 2];
        for prefix in &set.prefixes {
            seen[family(*prefix)][usize::from(prefix.prefix_len())] = true;
        }
        for (lengths, seen) in set.lengths.iter_mut().zip(seen) {
            lengths.extend((0..=128u8).filter(|length| seen[usize::from(*length)]));
        }
        set
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.prefixes.iter().copied()
    }

    pub(crate) fn contains(&self, prefix: IpNet) -> bool {
        self.prefixes.contains(&prefix)
    }

    /// True when one of them covers all of `prefix`.
    pub(crate) fn covers(&self, prefix: IpNet) -> bool {
        self.lengths[family(prefix)]
            .iter()
            .take_while(|length| **length <= prefix.prefix_len())
            .filter_map(|length| shorten(prefix, *length))
            .any(|candidate| self.prefixes.contains(&candidate))
    }
}

/// 0 for IPv4, 1 for IPv6.
pub(crate) const fn family(prefix: IpNet) -> usize {
    match prefix {
        IpNet::V4(_) => 0,
        IpNet::V6(_) => 1,
    }
}

/// The prefix of this length around `prefix`.
pub(crate) fn shorten(prefix: IpNet, length: u8) -> Option<IpNet> {
    IpNet::new(prefix.addr(), length)
        .ok()
        .map(|net| net.trunc())
}

/// What policy needs to know of a node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeFacts {
    /// The node's labels.
    pub labels: BTreeMap<String, String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// A CIDR group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct CidrGroup {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) prefixes: Arc<PrefixSet>,
}

/// True when a selector matches plain labels.
pub(crate) fn matches(selector: &Selector, labels: &BTreeMap<String, String>) -> bool {
    selector.matches(|key| labels.get(key).map(String::as_str))
}
