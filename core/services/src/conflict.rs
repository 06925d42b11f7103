//! Who has an address and a port when several ask for it: the same answer on every node.
//!
//! An address belongs to a node, to the pods of a range, or to a Service as its cluster IP, before anything
//! else: nothing that a user writes takes those. What is left goes by [`Kind`], then to the older object, then by
//! name. The answer depends on what is claimed, not on the order in which it was heard of.

mod owners;

use crate::{AddressFault, Fault, Protocol};
use heddle_model::NamespacedName;
use ipnet::IpNet;
use owners::{AddressOwners, Owned};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// What has frontends: a Service, or a pod with ports of its node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Subject {
    /// The Service with this name.
    Service(Arc<NamespacedName>),
    /// The pod with this name.
    Pod(Arc<NamespacedName>),
}

impl Subject {
    /// The name of the object.
    pub fn name(&self) -> &Arc<NamespacedName> {
        match self {
            Self::Service(name) | Self::Pod(name) => name,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "Service {name}"),
            Self::Pod(name) => write!(f, "pod {name}"),
        }
    }
}

/// What an address and port is to its object. Of two that claim the same, the kind that comes first has it.
///
/// The order follows who decides: cluster IPs are allocated; a load balancer's address is written by its
/// controller; an external IP is written by whoever may write a Service, so it takes nothing from those (the
/// attack of CVE-2020-8554); a node port is allocated; a host port is a pod's wish.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// `clusterIPs`.
    ClusterIp,
    /// `status.loadBalancer.ingress`.
    LoadBalancer,
    /// `externalIPs`.
    ExternalIp,
    /// `nodePort`.
    NodePort,
    /// `healthCheckNodePort`.
    HealthCheck,
    /// `hostPort` of a pod.
    HostPort,
}

impl Kind {
    /// The field that makes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClusterIp => "a cluster IP",
            Self::LoadBalancer => "a load balancer's address",
            Self::ExternalIp => "an external IP",
            Self::NodePort => "a node port",
            Self::HealthCheck => "a health check's node port",
            Self::HostPort => "a host port",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a port is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Place {
    /// At this address.
    Address(IpAddr),
    /// At every address of this node.
    Node,
}

/// A port somewhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Spot {
    pub(crate) place: Place,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

/// Something that a subject wants.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Claim {
    /// All of an address.
    ClusterIp(IpAddr),
    /// An address that it may share with others, by ports.
    LoadBalancer(IpAddr),
    /// A port somewhere.
    Port(Spot, Kind),
}

/// A claimant's place in the queue: what comes first has it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Rank {
    kind: Kind,
    created: u64,
    subject: Subject,
}

/// Who may have more or less after a change than before.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Touched {
    /// Those with a claim that the change may decide.
    pub(crate) subjects: Vec<Subject>,
    /// Addresses that belong to others than before: an endpoint there may be refused, or not any more.
    pub(crate) addresses: Vec<IpAddr>,
}

/// Everything that is claimed, and what belongs to nodes and pods.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims {
    owners: AddressOwners,
    ports: BTreeMap<Spot, Vec<Rank>>,
    /// Addresses at which this node's ports are served.
    here: BTreeSet<IpAddr>,
}

impl Claims {
    /// Enters a claim of a subject, or takes it back as it was entered.
    pub(crate) fn set(
        &mut self,
        subject: &Subject,
        created: u64,
        claim: Claim,
        add: bool,
    ) -> Touched {
        match claim {
            Claim::ClusterIp(address) => self.alter_address(address, |owners| {
                owners.set_cluster_ip(address, created, subject.name(), add);
            }),
            Claim::LoadBalancer(address) => self.alter_address(address, |owners| {
                owners.set_load_balancer(address, &subject.name().namespace, add);
            }),
            Claim::Port(spot, kind) => {
                let rank = Rank {
                    kind,
                    created,
                    subject: subject.clone(),
                };
                Touched {
                    subjects: self.alter_port(spot, rank, add),
                    addresses: Vec::new(),
                }
            }
        }
    }

    fn alter_address(
        &mut self,
        address: IpAddr,
        change: impl FnOnce(&mut AddressOwners),
    ) -> Touched {
        let before = self.owners.summary(address);
        change(&mut self.owners);
        if self.owners.summary(address) == before {
            return Touched::default();
        }
        Touched {
            subjects: self.claimants(address),
            addresses: vec![address],
        }
    }

    fn alter_port(&mut self, spot: Spot, rank: Rank, add: bool) -> Vec<Subject> {
        let before = self.first(spot).cloned();
        let is_host_port = rank.kind == Kind::HostPort;
        // Most lists have one rank: a Vec that grows by itself would begin with room for four.
        let ranks = self
            .ports
            .entry(spot)
            .or_insert_with(|| Vec::with_capacity(1));
        match (ranks.binary_search(&rank), add) {
            (Err(at), true) => ranks.insert(at, rank),
            (Ok(at), false) => drop(ranks.remove(at)),
            (Ok(_), true) | (Err(_), false) => {}
        }
        if ranks.is_empty() {
            self.ports.remove(&spot);
        }
        let has_moved = self.first(spot) != before.as_ref();
        let mut touched = Vec::new();
        if has_moved {
            let ranks = self.ports.get(&spot).into_iter().flatten();
            touched.extend(ranks.map(|rank| rank.subject.clone()));
        }
        // Ports of pods at one address of the node and at all of them are in each other's way.
        if is_host_port || (has_moved && spot.place == Place::Node) {
            touched.extend(self.host_ports(spot.protocol, spot.port));
        }
        touched
    }

    /// Pods that want this port of the node, at whichever address.
    fn host_ports(&self, protocol: Protocol, port: u16) -> Vec<Subject> {
        let at_one = self.here.iter().copied().map(Place::Address);
        let mut found = Vec::new();
        for place in at_one.chain([Place::Node]) {
            let spot = Spot {
                place,
                protocol,
                port,
            };
            let ranks = self.ports.get(&spot).map_or(&[][..], Vec::as_slice);
            let first = ranks.partition_point(|rank| rank.kind < Kind::HostPort);
            found.extend(ranks[first..].iter().map(|rank| rank.subject.clone()));
        }
        found
    }

    /// Everybody with a claim on an address.
    fn claimants(&self, address: IpAddr) -> Vec<Subject> {
        let mut found: Vec<Subject> = self.owners.cluster_ip_claimants(address).collect();
        let place = Place::Address(address);
        for (spot, ranks) in self.ports.range(Spot::first_at(place)..) {
            if spot.place != place {
                break;
            }
            found.extend(ranks.iter().map(|rank| rank.subject.clone()));
        }
        found
    }

    /// Everybody with a claim on an address between these two, both included.
    fn claimants_between(&self, first: IpAddr, last: IpAddr) -> Vec<Subject> {
        let mut addresses: BTreeSet<IpAddr> =
            self.owners.cluster_ips_between(first, last).collect();
        let from = Spot::first_at(Place::Address(first));
        for spot in self.ports.range(from..).map(|(spot, _)| spot) {
            match spot.place {
                Place::Address(address) if address <= last => drop(addresses.insert(address)),
                Place::Address(_) | Place::Node => break,
            }
        }
        let claimants = addresses.into_iter().map(|address| self.claimants(address));
        claimants.flatten().collect()
    }

    /// Enters an address of a node, or takes it back.
    pub(crate) fn set_node_address(
        &mut self,
        address: IpAddr,
        node: &Arc<str>,
        add: bool,
    ) -> Touched {
        let mut touched = self.alter_address(address, |owners| {
            owners.set_node_address(address, node, add);
        });
        // Of several nodes with one address, an endpoint's own need not be the one that is told.
        touched.addresses = vec![address];
        touched
    }

    /// Enters a range of pods, or takes it back.
    pub(crate) fn set_pod_range(&mut self, range: IpNet, add: bool) -> Touched {
        self.owners.set_pod_range(range, add);
        let (first, last) = (range.network(), range.broadcast());
        Touched {
            subjects: self.claimants_between(first, last),
            addresses: self.owners.cluster_ips_between(first, last).collect(),
        }
    }

    /// Sets the addresses of this node. Gives everybody with a port on it; `None` if they stay.
    pub(crate) fn set_here(&mut self, addresses: BTreeSet<IpAddr>) -> Option<Vec<Subject>> {
        if addresses == self.here {
            return None;
        }
        self.here = addresses;
        let on_node = self.ports.range(Spot::first_at(Place::Node)..);
        let ranks = on_node.flat_map(|(_, ranks)| ranks);
        Some(ranks.map(|rank| rank.subject.clone()).collect())
    }

    /// Addresses at which this node's ports are served.
    pub(crate) fn here(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.here.iter().copied()
    }

    /// Whether a Service has an address to itself, as its cluster IP.
    pub(crate) fn cluster_ip(&self, subject: &Subject, address: IpAddr) -> Result<(), Fault> {
        self.not_taken(address)?;
        match self.owners.cluster_ip_of(address) {
            Some(owner) if owner != subject.name() => Err(Fault::Taken {
                by: Subject::Service(Arc::clone(owner)),
                kind: Kind::ClusterIp,
            }),
            _ => Ok(()),
        }
    }

    /// Whether a Service may have ports at an address that others may have ports at too.
    pub(crate) fn shared_address(
        &self,
        subject: &Subject,
        address: IpAddr,
        kind: Kind,
    ) -> Result<(), Fault> {
        self.not_taken(address)?;
        if let Some(owner) = self.owners.cluster_ip_of(address) {
            return Err(Fault::ClusterIp {
                service: owner.as_ref().clone(),
            });
        }
        if kind == Kind::ExternalIp
            && let Some(namespace) = self
                .owners
                .other_load_balancer(address, &subject.name().namespace)
        {
            return Err(Fault::OthersLoadBalancer {
                namespace: namespace.to_owned(),
            });
        }
        Ok(())
    }

    /// Who has a port at an address that is no node's.
    fn first_shared(&self, address: IpAddr, spot: Spot) -> Option<&Rank> {
        let ranks = self.ports.get(&spot)?;
        ranks.iter().find(|rank| {
            let allowed = self.shared_address(&rank.subject, address, rank.kind);
            rank.kind != Kind::HostPort && allowed.is_ok()
        })
    }

    /// Who has a port of this node, at an address or, for [`Place::Node`], before any address is looked at.
    fn first(&self, spot: Spot) -> Option<&Rank> {
        match spot.place {
            Place::Node => self.ports.get(&spot)?.first(),
            Place::Address(address) if self.is_here(address) => self.first_here(spot),
            Place::Address(address) => self.first_shared(address, spot),
        }
    }

    fn first_here(&self, spot: Spot) -> Option<&Rank> {
        let everywhere = Spot {
            place: Place::Node,
            ..spot
        };
        // Ports of the node are not served at its loopback addresses.
        let everywhere = match spot.place {
            Place::Address(address) if !self.here.contains(&address) => None,
            Place::Address(_) | Place::Node => self.ports.get(&everywhere),
        };
        let everywhere = everywhere.and_then(|ranks| ranks.first());
        let ranks = self.ports.get(&spot).into_iter().flatten();
        let mut here = ranks.filter(|rank| rank.kind == Kind::HostPort);
        here.next().into_iter().chain(everywhere).min()
    }

    /// Whether ports of pods can be at an address: this node's own, and its loopback.
    pub(crate) fn is_here(&self, address: IpAddr) -> bool {
        self.here.contains(&address) || AddressFault::of(address) == Some(AddressFault::Loopback)
    }

    /// Whether a subject has a port, which it has claimed as this kind.
    pub(crate) fn port(&self, subject: &Subject, spot: Spot, kind: Kind) -> Result<(), Fault> {
        match self.first(spot) {
            Some(first) if first.subject != *subject || first.kind != kind => Err(Fault::Taken {
                by: first.subject.clone(),
                kind: first.kind,
            }),
            _ => Ok(()),
        }
    }

    /// What an address belongs to that is neither a Service's nor anybody's.
    fn not_taken(&self, address: IpAddr) -> Result<(), Fault> {
        match self.owners.owned(address) {
            None => Ok(()),
            Some(Owned::Node(node)) => Err(Fault::NodeAddress {
                node: node.to_string(),
            }),
            Some(Owned::Pods(range)) => Err(Fault::PodRange { range }),
        }
    }

    /// Why an endpoint's address is not its own: it is another node's, or a Service's.
    pub(crate) fn endpoint(
        &self,
        address: IpAddr,
        on_node: Option<&str>,
        may_be_any_node: bool,
    ) -> Result<(), Fault> {
        match self.owners.owned(address) {
            Some(Owned::Pods(_)) => Ok(()),
            Some(Owned::Node(_)) if may_be_any_node => Ok(()),
            Some(Owned::Node(node)) => {
                let own = on_node.is_some_and(|name| self.owners.is_address_of(address, name));
                if own {
                    Ok(())
                } else {
                    Err(Fault::NodeAddress {
                        node: node.to_string(),
                    })
                }
            }
            None => match self.owners.cluster_ip_of(address) {
                Some(owner) => Err(Fault::ClusterIp {
                    service: owner.as_ref().clone(),
                }),
                None => Ok(()),
            },
        }
    }
}

impl Spot {
    /// The first spot of a place, in their order.
    const fn first_at(place: Place) -> Self {
        Self {
            place,
            protocol: Protocol::Tcp,
            port: 0,
        }
    }
}
