//! Who is who, for those who describe flows: cheap to read from any thread, written by the agent only.

use crate::addresses::prefixes::PrefixTable;
use crate::lock_order::{Level, enter};
use heddle_model::{Identity, LabelSet, NamespacedName};
use heddle_policy::compiled::{CompiledPolicy, Direction};
use heddle_policy::{Party, PolicyId, RuleRef};
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
    pub(crate) shapes: Shapes,
}

/// What an entry matches, but for which peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Shape {
    names_peer: bool,
    protocol: u8,
    port: u16,
    port_prefix: u8,
}

impl Shape {
    const fn matches(&self, protocol: u8, port: u16) -> bool {
        let mask = match self.port_prefix {
            0 => 0,
            bits => u16::MAX << (16 - bits as u32),
        };
        self.protocol == 0 || (self.protocol == protocol && port & mask == self.port & mask)
    }

    /// Cilium's policy match type (reference 3.7).
    const fn match_type(&self) -> u32 {
        match (self.names_peer, self.protocol, self.port_prefix) {
            (true, 0, _) => 1,
            (true, _, 0) => 5,
            (true, _, _) => 2,
            (false, 0, _) => 4,
            (false, _, 0) => 6,
            (false, _, _) => 3,
        }
    }
}

/// What the entries behind each cookie of a policy match: enough to say which kind of entry decided.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Shapes(HashMap<(Direction, u32), Vec<Shape>>);

impl Shapes {
    pub(crate) fn of(policy: &CompiledPolicy) -> Self {
        let mut shapes: HashMap<_, Vec<Shape>> = HashMap::new();
        for entry in &policy.entries {
            let key = &entry.key;
            shapes
                .entry((key.direction, entry.cookie))
                .or_default()
                .push(Shape {
                    names_peer: key.identity != Identity::UNKNOWN,
                    protocol: key.protocol,
                    port: key.port,
                    port_prefix: key.port_prefix,
                });
        }
        // Many peers of a rule have the same ports.
        for found in shapes.values_mut() {
            found.sort_unstable();
            found.dedup();
        }
        Self(shapes)
    }

    /// The match type of the entry with this cookie that decided on a protocol and port.
    fn match_type(
        &self,
        direction: Direction,
        cookie: u32,
        protocol: u8,
        port: u16,
    ) -> Option<u32> {
        self.0
            .get(&(direction, cookie))?
            .iter()
            .filter(|shape| shape.matches(protocol, port))
            .max_by_key(|shape| (shape.names_peer, shape.protocol != 0, shape.port_prefix))
            .map(Shape::match_type)
    }
}

#[derive(Default)]
struct Tables {
    addresses: HashMap<IpAddr, Listing>,
    ranges: PrefixTable<Identity>,
    labels: HashMap<Identity, Arc<LabelSet>>,
    endpoints: BTreeMap<u16, EndpointInfo>,
    /// Local pods' addresses.
    local: HashMap<IpAddr, u16>,
    /// Endpoints by the interface index of the host side of their link.
    links: HashMap<u32, u16>,
    policies: HashMap<u16, Arc<PolicyListing>>,
    /// The policies before the present ones: events may still speak of them.
    former: HashMap<u16, Arc<PolicyListing>>,
    /// What each pod works for, as (kind, name).
    workloads: HashMap<NamespacedName, (String, String)>,
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
        let _held = enter(Level::Directory);
        // Writers never panic halfway through a row, so a poisoned table is still whole.
        reading(&self.tables.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, writing: impl FnOnce(&mut Tables) -> T) -> T {
        let _held = enter(Level::Directory);
        writing(&mut self.tables.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whoever is known to stand inside a range: the range that it is part of or the world, the ranges inside it, and
    /// the addresses of other nodes and of pods, of these one for each identity. This node itself is not among them: no
    /// policy is asked about what it sends to itself.
    pub(crate) fn parties(&self, range: IpNet) -> Vec<Party> {
        let party = |identity: Identity, prefix: IpNet| {
            if identity.is_world() {
                Party::world(prefix)
            } else {
                Party::in_cluster(identity, Some(prefix))
            }
        };
        self.read(|tables| {
            let around = tables.ranges.longest(range);
            let around = around.map_or_else(
                || Party::world(range),
                |(_, identity)| party(*identity, range),
            );
            let inside = tables.ranges.inside(range);
            let inside = inside
                .filter_map(|inside| Some(party(*tables.ranges.rows().get(inside)?, *inside)));
            let mut pods = HashSet::new();
            let addresses = tables.addresses.iter();
            let addresses = addresses
                .filter(|(address, it)| range.contains(*address) && it.identity != Identity::HOST)
                .filter(|(_, it)| it.pod.is_none() || pods.insert(it.identity))
                .map(|(address, it)| party(it.identity, (*address).into()));
            std::iter::once(around)
                .chain(inside)
                .chain(addresses)
                .collect()
        })
    }

    /// Who stands at an address or a range, as the engine asks for it.
    pub(crate) fn party(&self, prefix: IpNet) -> Party {
        match self.peer(prefix.addr()) {
            Some(peer) if !peer.identity.is_world() => {
                Party::in_cluster(peer.identity, Some(prefix))
            }
            _ => Party::world(prefix),
        }
    }

    /// Who an address is: a known pod or node, else the longest range that covers it (a pod range is
    /// `unmanaged`, everything else world). `None` before the agent knows its ranges.
    pub fn peer(&self, address: IpAddr) -> Option<PeerInfo> {
        self.read(|tables| {
            let (identity, pod, node) = match tables.addresses.get(&address) {
                Some(listing) => (listing.identity, listing.pod.clone(), listing.node.clone()),
                None => {
                    let (_, identity) = tables.ranges.longest(address.into())?;
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
        self.read(|tables| tables.links.get(&ifindex).map(|id| format!("hd{id}")))
    }

    /// What a pod works for, as (kind, name); `None` for a pod of its own.
    pub fn workload(&self, pod: &NamespacedName) -> Option<(String, String)> {
        self.read(|tables| tables.workloads.get(pod).cloned())
    }

    /// The policy match type (reference 3.7) of the entry that let a protocol and port pass, or denied it,
    /// by its cookie; 0 when it is not known (any more).
    pub fn match_type(
        &self,
        endpoint: u16,
        direction: Direction,
        cookie: u32,
        protocol: u8,
        port: u16,
    ) -> u32 {
        self.read(|tables| {
            [tables.policies.get(&endpoint), tables.former.get(&endpoint)]
                .into_iter()
                .flatten()
                .find_map(|policy| policy.shapes.match_type(direction, cookie, protocol, port))
                .unwrap_or(0)
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

    pub(crate) fn set_ranges(&self, ranges: impl IntoIterator<Item = (IpNet, Identity)>) {
        let ranges = ranges.into_iter().collect();
        self.write(|tables| tables.ranges = ranges);
    }

    pub(crate) fn set_endpoint(&self, id: u16, endpoint: Option<EndpointInfo>) {
        self.write(|tables| match endpoint {
            Some(endpoint) => {
                for address in &endpoint.addresses {
                    tables.local.insert(*address, id);
                }
                tables.links.retain(|_, owner| *owner != id);
                if endpoint.ifindex != 0 {
                    tables.links.insert(endpoint.ifindex, id);
                }
                tables.endpoints.insert(id, endpoint);
            }
            None => {
                tables.endpoints.remove(&id);
                tables.local.retain(|_, owner| *owner != id);
                tables.links.retain(|_, owner| *owner != id);
                tables.policies.remove(&id);
                tables.former.remove(&id);
            }
        });
    }

    /// Makes the cookies of a policy known: before endpoints have it, as events name them at once.
    pub(crate) fn add_cookies(&self, policy: &PolicyListing) {
        self.write(|tables| tables.cookies.extend(policy.cookies.iter().cloned()));
    }

    /// An endpoint has a policy whose cookies are known.
    pub(crate) fn set_policy(&self, id: u16, policy: Arc<PolicyListing>) {
        self.write(|tables| {
            if let Some(former) = tables.policies.insert(id, policy) {
                tables.former.insert(id, former);
            }
        });
    }

    pub(crate) fn set_workload(&self, pod: &NamespacedName, workload: Option<(String, String)>) {
        self.write(|tables| match workload {
            Some(workload) => tables.workloads.insert(pod.clone(), workload),
            None => tables.workloads.remove(pod),
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

    #[test]
    fn the_entry_that_decided_is_told_by_its_kind() {
        use heddle_policy::compiled::{Entry, EntryKey, EntryVerdict, PRECEDENCE_ALLOW};
        let entry = |direction, identity, protocol, port, port_prefix, cookie| Entry {
            key: EntryKey {
                direction,
                identity: Identity(identity),
                protocol,
                port,
                port_prefix,
            },
            verdict: EntryVerdict::Allow,
            precedence: PRECEDENCE_ALLOW,
            cookie,
        };
        let ingress = Direction::Ingress;
        let policy = |entries| {
            Arc::new(PolicyListing {
                shapes: Shapes::of(&CompiledPolicy {
                    ingress_enforced: true,
                    egress_enforced: false,
                    entries,
                    aliases: Vec::new(),
                    audit: false,
                }),
                ..PolicyListing::default()
            })
        };
        let directory = Directory::new();
        directory.set_policy(
            7,
            policy(vec![
                entry(ingress, 300, 0, 0, 0, 1),
                entry(ingress, 300, 6, 80, 16, 2),
                entry(ingress, 301, 6, 80, 16, 2),
                // One rule, a range of ports (8000 to 8191) and another whole protocol.
                entry(ingress, 0, 6, 8000, 16, 3),
                entry(ingress, 0, 6, 0x1f40 & 0xff80, 9, 3),
                entry(ingress, 0, 17, 0, 0, 3),
                entry(ingress, 0, 0, 0, 0, 4),
                entry(ingress, 302, 6, 0, 0, 5),
                entry(Direction::Egress, 0, 0, 0, 0, 6),
            ]),
        );
        for (cookie, protocol, port, expected) in [
            (1, 6, 80, 1),
            (2, 6, 80, 2),
            (2, 6, 81, 0),
            (2, 17, 80, 0),
            (3, 6, 8000, 3),
            (3, 6, 8050, 3),
            (3, 6, 9000, 0),
            (3, 17, 53, 6),
            (4, 132, 9, 4),
            (5, 6, 1, 5),
            (6, 6, 80, 0),
            (99, 6, 80, 0),
        ] {
            assert_eq!(
                directory.match_type(7, ingress, cookie, protocol, port),
                expected,
                "cookie {cookie}, protocol {protocol}, port {port}"
            );
        }
        assert_eq!(directory.match_type(7, Direction::Egress, 6, 6, 80), 4);
        assert_eq!(directory.match_type(8, ingress, 1, 6, 80), 0);

        // An event may be older than the policy by one.
        directory.set_policy(7, policy(vec![entry(ingress, 0, 6, 443, 16, 7)]));
        assert_eq!(directory.match_type(7, ingress, 7, 6, 443), 3);
        assert_eq!(directory.match_type(7, ingress, 1, 6, 80), 1);
        directory.set_endpoint(7, None);
        assert_eq!(directory.match_type(7, ingress, 7, 6, 443), 0);
    }
}
