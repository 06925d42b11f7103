//! Whether one rule's terms take in all of another's.

use super::population::Population;
use heddle_model::Entity;
use heddle_policy::{CidrBlock, EndpointSelector, Peer, Peers, PortMatch, PortTerm, Ports};

/// True when every endpoint that `inner` selects is one of `outer`'s; only where that can be told.
pub(super) fn endpoints(
    population: &Population<'_>,
    outer: &EndpointSelector,
    inner: &EndpointSelector,
) -> bool {
    let asked = inner.requirements();
    // Fewer conditions, more endpoints.
    if outer.requirements().iter().all(|r| asked.contains(r)) {
        return true;
    }
    let inner = population.selected(inner);
    !inner.is_empty() && inner.is_subset(&population.selected(outer))
}

/// True when `outer` is about everybody whom `inner` is about.
pub(super) fn peers(population: &Population<'_>, outer: &Peers, inner: &Peers) -> bool {
    let everybody = Peer::Entity(Entity::All);
    match (outer, inner) {
        (Peers::Any, _) => true,
        (Peers::Terms(outer), Peers::Any) => outer.contains(&everybody),
        // A rule about nobody is not hidden by another; it has a warning of its own.
        (Peers::Terms(_), Peers::Terms(inner)) if inner.is_empty() => false,
        (Peers::Terms(outer), Peers::Terms(inner)) => inner
            .iter()
            .all(|inner| outer.iter().any(|outer| peer(population, outer, inner))),
    }
}

fn peer(population: &Population<'_>, outer: &Peer, inner: &Peer) -> bool {
    match (outer, inner) {
        (Peer::Entity(Entity::All), _) => true,
        (Peer::Entity(Entity::Cluster), Peer::Endpoints(selector)) => !selector.names_reserved(),
        (Peer::Entity(Entity::World), Peer::Cidr(block)) => !block.in_cluster,
        (Peer::Endpoints(outer), Peer::Endpoints(inner)) => endpoints(population, outer, inner),
        (Peer::Cidr(outer), Peer::Cidr(inner)) => block(outer, inner),
        (outer, inner) => outer == inner,
    }
}

fn block(outer: &CidrBlock, inner: &CidrBlock) -> bool {
    let holes_fit = outer.except.iter().all(|hole| {
        !inner.block.contains(hole) && !hole.contains(&inner.block)
            || inner.except.iter().any(|own| own.contains(hole))
    });
    (outer.in_cluster || !inner.in_cluster) && outer.block.contains(&inner.block) && holes_fit
}

/// True when `outer` is about every port that `inner` is about.
pub(super) fn ports(outer: &Ports, inner: &Ports) -> bool {
    match (outer, inner) {
        (Ports::All, _) => true,
        (Ports::Only(_), Ports::All) => false,
        (Ports::Only(_), Ports::Only(inner)) if inner.is_empty() => false,
        (Ports::Only(outer), Ports::Only(inner)) => inner
            .iter()
            .all(|inner| outer.iter().any(|outer| port(outer, inner))),
    }
}

/// True when a port term takes in all of another.
pub(super) fn port(outer: &PortTerm, inner: &PortTerm) -> bool {
    match (outer, inner) {
        (PortTerm::Transport(outer, at), PortTerm::Transport(inner, asked)) => {
            let speaks = inner
                .protocols()
                .iter()
                .all(|number| outer.protocols().contains(number));
            speaks
                && match (at, asked) {
                    (PortMatch::All, _) => true,
                    (PortMatch::Range(first, last), PortMatch::Range(from, to)) => {
                        first <= from && to <= last
                    }
                    (at, asked) => at == asked,
                }
        }
        (outer, inner) => outer == inner,
    }
}
