//! Hints by the nodes' CPUs (`topology-mode: Auto`): each zone gets as many endpoints as its share of the CPUs.
//!
//! KEP-2433, with the safeguards of the EndpointSlice controller's `topologycache`. Computed in whole numbers, so
//! that every machine comes to the same hints.

use super::ByPod;
use crate::Hints;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a node adds to its zone.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeCapacity {
    /// Its zone.
    pub zone: Option<String>,
    /// Its allocatable CPU, in thousandths of one.
    pub millicpu: u64,
    /// Its condition `Ready`. Others count for nothing.
    pub ready: bool,
    /// Whether it has a role label of the control plane: pods rarely run there, so it counts for nothing.
    pub control_plane: bool,
}

/// Why endpoints have no hints: each would send some zone's traffic to too few endpoints.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HintsRefused {
    /// A node that counts has no zone or no CPU.
    #[error("a node has no zone or no allocatable CPU")]
    UnknownCapacity,
    /// There are fewer than two zones with nodes that count.
    #[error("nodes are ready in {0} zones, at least 2 are needed")]
    TooFewZones(usize),
    /// A ready endpoint has no zone.
    #[error("endpoint of pod {pod} has no zone")]
    NoZone {
        /// Its pod.
        pod: Arc<str>,
    },
    /// There are fewer ready endpoints than zones.
    #[error("{endpoints} ready endpoints are too few for {zones} zones")]
    TooFewEndpoints {
        /// Ready endpoints.
        endpoints: usize,
        /// Zones.
        zones: usize,
    },
    /// Some zone's endpoints would have more than 1.2 times the traffic of the mean.
    #[error("{endpoints} ready endpoints cannot be shared among {zones} zones without overload")]
    Overload {
        /// Ready endpoints.
        endpoints: usize,
        /// Zones.
        zones: usize,
    },
}

/// A zone's part. Numbers of endpoints are in units of one per all the CPUs, so that they are whole.
struct Zone {
    /// Endpoints that it should have.
    desired: u128,
    /// Endpoints that it has.
    has: u128,
    /// Endpoints that it is to get from others, or to give.
    moves: usize,
}

/// Sets the hints of ready endpoints.
///
/// # Errors
///
/// [`HintsRefused`]; no endpoint has hints then.
pub(super) fn by_capacity(
    endpoints: &mut ByPod,
    nodes: &[NodeCapacity],
) -> Result<(), HintsRefused> {
    let capacity = capacity_of(nodes)?;
    let total: u128 = capacity.values().sum();
    let mut ready: Vec<(&mut Option<Arc<Hints>>, Arc<str>)> = Vec::new();
    for (pod, endpoint) in endpoints {
        if endpoint.conditions.ready {
            let zone = endpoint.zone.clone().filter(|zone| !zone.is_empty());
            let zone = zone.ok_or_else(|| HintsRefused::NoZone {
                pod: Arc::clone(pod),
            })?;
            ready.push((&mut endpoint.hints, zone));
        }
    }
    let mut zones = desired(&capacity, total, ready.len())?;
    for (_, zone) in &ready {
        if let Some(zone) = zones.get_mut(&**zone) {
            zone.has += total;
        }
    }
    even_out(&mut zones, total);
    for (hints, zone) in ready {
        let gives = zones
            .get_mut(&*zone)
            .filter(|zone| zone.moves > 0 && zone.has > zone.desired);
        let mut target = zone.clone();
        if let Some(gives) = gives {
            gives.moves -= 1;
            let mut receivers = zones.iter_mut();
            let receives =
                receivers.find(|(_, other)| other.moves > 0 && other.has < other.desired);
            if let Some((name, receives)) = receives {
                receives.moves -= 1;
                target = Arc::from(*name);
            }
        }
        *hints = Some(Arc::new(Hints {
            zones: vec![target],
            nodes: Vec::new(),
        }));
    }
    Ok(())
}

/// The CPUs of each zone.
fn capacity_of(nodes: &[NodeCapacity]) -> Result<BTreeMap<&str, u128>, HintsRefused> {
    let mut capacity: BTreeMap<&str, u128> = BTreeMap::new();
    let counts = |node: &&NodeCapacity| node.ready && !node.control_plane;
    for node in nodes.iter().filter(counts) {
        match node.zone.as_deref() {
            Some(zone) if !zone.is_empty() && node.millicpu > 0 => {
                *capacity.entry(zone).or_default() += u128::from(node.millicpu);
            }
            _ => return Err(HintsRefused::UnknownCapacity),
        }
    }
    if capacity.len() < 2 {
        return Err(HintsRefused::TooFewZones(capacity.len()));
    }
    Ok(capacity)
}

/// What each zone should have of the endpoints: its share, and at least as many as keep it from overload, which is
/// its share divided by 1.2, rounded up.
fn desired<'a>(
    capacity: &BTreeMap<&'a str, u128>,
    total: u128,
    endpoints: usize,
) -> Result<BTreeMap<&'a str, Zone>, HintsRefused> {
    let zones = capacity.len();
    if zones > endpoints {
        return Err(HintsRefused::TooFewEndpoints { endpoints, zones });
    }
    let count = endpoints as u128;
    let mut least_of_all = 0;
    let mut found = BTreeMap::new();
    for (zone, cpu) in capacity {
        let share = count * cpu;
        let least = (share * 5).div_ceil(total * 6);
        least_of_all += least;
        let desired = share.max(least * total);
        found.insert(
            *zone,
            Zone {
                desired,
                has: 0,
                moves: 0,
            },
        );
    }
    if least_of_all > count {
        return Err(HintsRefused::Overload { endpoints, zones });
    }
    Ok(found)
}

/// Plans moves from the zone with the most to give to the one that needs most, while one of them has a whole endpoint and
/// the other at least half of one. `has` stays as it was, so that it still tells who gives.
fn even_out(zones: &mut BTreeMap<&str, Zone>, one: u128) {
    loop {
        let surplus = |zone: &Zone| {
            zone.has
                .saturating_sub(zone.desired + zone.moves as u128 * one)
        };
        let need = |zone: &Zone| {
            zone.desired
                .saturating_sub(zone.has + zone.moves as u128 * one)
        };
        let gives = most(zones, surplus);
        let needs = most(zones, need);
        let (Some((giver, to_give)), Some((taker, to_take))) = (gives, needs) else {
            return;
        };
        if (to_give < one && to_take < one) || 2 * to_give < one || 2 * to_take < one {
            return;
        }
        for name in [giver, taker] {
            if let Some(zone) = zones.get_mut(&*name) {
                zone.moves += 1;
            }
        }
    }
}

/// The zone with the most of something, the first by name of several.
fn most(zones: &BTreeMap<&str, Zone>, amount: impl Fn(&Zone) -> u128) -> Option<(String, u128)> {
    let mut best: Option<(&str, u128)> = None;
    for (name, zone) in zones {
        let amount = amount(zone);
        if amount > best.map_or(0, |(_, most)| most) {
            best = Some((name, amount));
        }
    }
    best.map(|(name, amount)| (name.to_owned(), amount))
}
