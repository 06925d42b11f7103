//! Peers of a rule: pods, addresses, groups, services, nodes, entities.

use crate::{EndpointSelector, selector::write_nodes};
use heddle_model::{Entity, NamespacedName, Selector};
use ipnet::IpNet;
use std::fmt;

/// Whom a rule is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Peers {
    /// Anybody, inside the cluster and outside.
    Any,
    /// Whom one of these selects; an empty list selects nobody (reference E4).
    Terms(Vec<Peer>),
}

/// One term of a rule's peers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Peer {
    /// Pods by their labels and their namespace's.
    Endpoints(EndpointSelector),
    /// Addresses.
    Cidr(CidrBlock),
    /// The addresses outside the cluster that CIDR groups list. A group that does not exist, or that no
    /// labels find, selects nothing (reference E12b).
    CidrGroup {
        /// Which groups.
        by: CidrGroupRef,
        /// Addresses that it does not select.
        except: Vec<IpNet>,
    },
    /// The pods behind services, or the addresses behind services without a selector. A service that does
    /// not exist selects nothing, with and without ports (DESIGN 5; reference E12).
    Services(ServiceRef),
    /// The addresses of nodes, by the nodes' labels.
    Nodes(Selector),
    /// A named group.
    Entity(Entity),
}

/// Which CIDR groups a peer means.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CidrGroupRef {
    /// The one with this name.
    Name(String),
    /// All whose labels match.
    Labels(Selector),
}

/// Which services a peer means.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ServiceRef {
    /// The one with this name.
    Name(NamespacedName),
    /// All whose labels match.
    Labels {
        /// Matched with the service's own labels.
        selector: Selector,
        /// The namespace they are in; `None`: any.
        namespace: Option<String>,
    },
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoints(selector) => selector.fmt(f),
            Self::Cidr(block) => block.fmt(f),
            Self::CidrGroup { by, except } => {
                by.fmt(f)?;
                write_holes(f, except)
            }
            Self::Services(services) => services.fmt(f),
            Self::Nodes(selector) => write_nodes(f, selector.requirements().iter()),
            Self::Entity(entity) => write!(f, "entity {entity}"),
        }
    }
}

/// A block of addresses with holes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CidrBlock {
    /// The block.
    pub block: IpNet,
    /// The holes, each inside the block.
    pub except: Vec<IpNet>,
    /// Whether it also selects pod and node addresses: true for Kubernetes `ipBlock`, false for Cilium's
    /// CIDR rules (reference I1).
    pub in_cluster: bool,
}

impl CidrBlock {
    /// True when it selects all addresses of `prefix`, which is not cut by a hole.
    pub fn covers(&self, prefix: IpNet, in_cluster: bool) -> bool {
        (self.in_cluster || !in_cluster)
            && self.block.contains(&prefix)
            && !self.except.iter().any(|hole| hole.contains(&prefix))
    }
}

impl fmt::Display for CidrBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "addresses in {}", self.block)?;
        write_holes(f, &self.except)?;
        if !self.in_cluster {
            f.write_str(" outside the cluster")?;
        }
        Ok(())
    }
}

fn write_holes(f: &mut fmt::Formatter<'_>, holes: &[IpNet]) -> fmt::Result {
    for (at, hole) in holes.iter().enumerate() {
        write!(f, "{}{hole}", if at == 0 { " except " } else { ", " })?;
    }
    Ok(())
}

impl fmt::Display for CidrGroupRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "addresses of CIDR group {name}"),
            Self::Labels(selector) => {
                f.write_str("addresses of CIDR groups")?;
                write_labels(f, selector)
            }
        }
    }
}

impl fmt::Display for ServiceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "service {name}"),
            Self::Labels {
                selector,
                namespace,
            } => {
                f.write_str("services")?;
                write_labels(f, selector)?;
                match namespace {
                    Some(namespace) => write!(f, " of namespace {namespace}"),
                    None => f.write_str(" of any namespace"),
                }
            }
        }
    }
}

fn write_labels(f: &mut fmt::Formatter<'_>, selector: &Selector) -> fmt::Result {
    for (at, requirement) in selector.requirements().iter().enumerate() {
        f.write_str(if at == 0 { " with " } else { ", " })?;
        write!(f, "{requirement}")?;
    }
    Ok(())
}
