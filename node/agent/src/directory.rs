//! Who is who, for those who describe flows: cheap to read from any thread, written by the agent only.

use heddle_model::{Identity, LabelSet, NamespacedName};
use heddle_policy::compiled::Direction;
use heddle_policy::{PolicyId, RuleRef};
use ipnet::IpNet;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

/// Who an address is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerInfo {
    /// Security identity.
    pub identity: Identity,
    /// The identity's labels; a reserved identity has its own.
    pub labels: Arc<LabelSet>,
    /// The pod, for a pod's address.
    pub pod: Option<NamespacedName>,
    /// Name of the node that holds the address; `None` outside the cluster and for unknown addresses.
    pub node: Option<String>,
}

/// A local pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointInfo {
    /// Endpoint id.
    pub id: u16,
    /// The pod.
    pub pod: NamespacedName,
    /// Security identity.
    pub identity: Identity,
    /// The identity's labels.
    pub labels: Arc<LabelSet>,
    /// Interface index of the host side of its link.
    pub ifindex: u32,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
}

/// What the agent writes about an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Listing {
    pub(crate) identity: Identity,
    pub(crate) pod: Option<NamespacedName>,
    pub(crate) node: Option<String>,
}

/// What the agent writes about a local endpoint's policy.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct PolicyListing {
    pub(crate) ingress: Vec<PolicyId>,
    pub(crate) egress: Vec<PolicyId>,
    pub(crate) cookies: Vec<(u32, Vec<RuleRef>)>,
}

#[derive(Default)]
struct Tables {
    addresses: HashMap<IpAddr, Listing>,
    /// Ranges, the longest prefixes first.
    ranges: Vec<(IpNet, Identity)>,
    labels: HashMap<Identity, Arc<LabelSet>>,
    endpoints: BTreeMap<u16, EndpointInfo>,
    /// Local pods' addresses.
    local: HashMap<IpAddr, u16>,
    policies: HashMap<u16, PolicyListing>,
    cookies: HashMap<u32, Vec<RuleRef>>,
    /// Cookies that went out of use in the last two prunings: events may still name them.
    retired: [HashMap<u32, Vec<RuleRef>>; 2],
}

/// Who is who on this node and in the cluster, as the datapath was told.
///
/// Readers hold a shared lock for one lookup; the agent writes single rows.
#[derive(Default)]
pub struct Directory {
    tables: RwLock<Tables>,
}

impl Directory {
    /// An empty directory that knows the reserved identities.
    pub fn new() -> Self {
        let directory = Self::default();
        for (identity, name) in Identity::RESERVED {
            directory.set_labels(identity, Some(Arc::new(LabelSet::reserved(name))));
        }
        directory
    }

    fn read<T>(&self, reading: impl FnOnce(&Tables) -> T) -> T {
        // Writers never panic halfway through a row, so a poisoned table is still whole.
        reading(&self.tables.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, writing: impl FnOnce(&mut Tables) -> T) -> T {
        writing(&mut self.tables.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who an address is: a known pod or node, else the longest range that covers it (a pod range is
    /// `unmanaged`, everything else world). `None` before the agent knows its ranges.
    pub fn peer(&self, address: IpAddr) -> Option<PeerInfo> {
        self.read(|tables| {
            let (identity, pod, node) = match tables.addresses.get(&address) {
                Some(listing) => (listing.identity, listing.pod.clone(), listing.node.clone()),
                None => {
                    let (_, identity) = tables
                        .ranges
                        .iter()
                        .find(|(range, _)| range.contains(&address))?;
                    (*identity, None, None)
                }
            };
            Some(PeerInfo {
                identity,
                labels: tables.labels.get(&identity).cloned().unwrap_or_default(),
                pod,
                node,
            })
        })
    }

    /// A local pod by its endpoint id.
    pub fn endpoint(&self, id: u16) -> Option<EndpointInfo> {
        self.read(|tables| tables.endpoints.get(&id).cloned())
    }

    /// The endpoint id of a local pod's address.
    pub fn endpoint_at(&self, address: IpAddr) -> Option<u16> {
        self.read(|tables| tables.local.get(&address).copied())
    }

    /// The name of an interface: the host side of a local pod's link.
    pub fn interface(&self, ifindex: u32) -> Option<String> {
        self.read(|tables| {
            tables
                .endpoints
                .values()
                .find(|endpoint| endpoint.ifindex == ifindex)
                .map(|endpoint| format!("hd{}", endpoint.id))
        })
    }

    /// All local pods, by endpoint id.
    pub fn endpoints(&self) -> Vec<EndpointInfo> {
        self.read(|tables| tables.endpoints.values().cloned().collect())
    }

    /// The labels of an identity.
    pub fn labels_of(&self, identity: Identity) -> Option<Arc<LabelSet>> {
        self.read(|tables| tables.labels.get(&identity).cloned())
    }

    /// The rules that an entry's cookie names; empty for 0 and for cookies long out of use.
    pub fn rules_of(&self, cookie: u32) -> Vec<RuleRef> {
        self.read(|tables| {
            let [newer, older] = &tables.retired;
            [&tables.cookies, newer, older]
                .into_iter()
                .find_map(|known| known.get(&cookie))
                .cloned()
                .unwrap_or_default()
        })
    }

    /// The policies that isolate a local endpoint in a direction; empty where none does.
    pub fn isolating(&self, endpoint: u16, direction: Direction) -> Vec<PolicyId> {
        self.read(|tables| {
            tables
                .policies
                .get(&endpoint)
                .map(|policy| match direction {
                    Direction::Ingress => policy.ingress.clone(),
                    Direction::Egress => policy.egress.clone(),
                })
                .unwrap_or_default()
        })
    }

    pub(crate) fn set_labels(&self, identity: Identity, labels: Option<Arc<LabelSet>>) {
        self.write(|tables| match labels {
            Some(labels) => tables.labels.insert(identity, labels),
            None => tables.labels.remove(&identity),
        });
    }

    pub(crate) fn set_address(&self, address: IpAddr, listing: Option<Listing>) {
        self.write(|tables| match listing {
            Some(listing) => tables.addresses.insert(address, listing),
            None => tables.addresses.remove(&address),
        });
    }

    pub(crate) fn set_ranges(&self, mut ranges: Vec<(IpNet, Identity)>) {
        ranges.sort_by_key(|(range, _)| std::cmp::Reverse(range.prefix_len()));
        self.write(|tables| tables.ranges = ranges);
    }

    pub(crate) fn set_endpoint(&self, id: u16, endpoint: Option<EndpointInfo>) {
        self.write(|tables| match endpoint {
            Some(endpoint) => {
                for address in &endpoint.addresses {
                    tables.local.insert(*address, id);
                }
                tables.endpoints.insert(id, endpoint);
            }
            None => {
                tables.endpoints.remove(&id);
                tables.local.retain(|_, owner| *owner != id);
                tables.policies.remove(&id);
            }
        });
    }

    pub(crate) fn set_policy(&self, id: u16, policy: PolicyListing) {
        self.write(|tables| {
            tables.cookies.extend(policy.cookies.iter().cloned());
            tables.policies.insert(id, policy);
        });
    }

    /// Retires the cookies that no endpoint's policy uses any more; what was retired two prunings ago is
    /// forgotten, which bounds the table.
    pub(crate) fn prune_cookies(&self) {
        self.write(|tables| {
            let used: HashSet<u32> = tables
                .policies
                .values()
                .flat_map(|policy| policy.cookies.iter().map(|(cookie, _)| *cookie))
                .collect();
            let mut gone = HashMap::new();
            tables.cookies.retain(|cookie, rules| {
                let keep = used.contains(cookie);
                if !keep {
                    gone.insert(*cookie, std::mem::take(rules));
                }
                keep
            });
            if !gone.is_empty() {
                let older = std::mem::replace(&mut tables.retired[0], gone);
                tables.retired[1] = older;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_range_answers_for_unknown_addresses() {
        let directory = Directory::new();
        let address: IpAddr = "10.244.1.9".parse().unwrap();
        assert_eq!(directory.peer(address), None);
        directory.set_ranges(vec![
            ("0.0.0.0/0".parse().unwrap(), Identity::WORLD_IPV4),
            ("10.244.0.0/16".parse().unwrap(), Identity::UNMANAGED),
        ]);
        assert_eq!(
            directory.peer(address).unwrap().identity,
            Identity::UNMANAGED
        );
        let pod = NamespacedName::new("shop", "web");
        directory.set_address(
            address,
            Some(Listing {
                identity: Identity(300),
                pod: Some(pod.clone()),
                node: Some("n1".into()),
            }),
        );
        let peer = directory.peer(address).unwrap();
        assert_eq!((peer.identity, peer.pod), (Identity(300), Some(pod)));
        let outside = directory.peer("198.51.100.1".parse().unwrap()).unwrap();
        assert_eq!(outside.labels.to_strings(), ["reserved:world-ipv4"]);
    }
}
