//! Which endpoints take a connection, and why each of the others does not.
//!
//! The rules are those of kube-proxy 1.34 (`CategorizeEndpoints`): ready endpoints, else those that terminate and
//! still serve (KEP-1669); the node's own where the policy is `Local`; and those that hints prefer, by node and then by zone,
//! where every candidate has hints. Two things come before and between: what an operator took out is as if it were
//! not there, and what fails its probe is left out while anything else passes.

#[cfg(test)]
mod tests;

use crate::slice::Endpoint;
use crate::{AdminState, Probe, TrafficPolicy};
use std::sync::Arc;

/// Where a connection comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Viewpoint<'a> {
    /// The node.
    pub(crate) node: &'a str,
    /// Its zone.
    pub(crate) zone: Option<&'a str>,
}

/// Why a backend takes new connections.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum InReason {
    /// It is ready, and no probe has said anything.
    Ready,
    /// It is ready, and its probe passes.
    ProbeUp,
    /// It is ready, and an operator said `Up`, whatever its probe says.
    AdminUp,
    /// It is terminating and still serves, and nothing ready is left.
    NothingReady,
    /// Its probe fails, and so do those of all others: the probe is the likelier fault. Azure
    /// (`Up_Probe_AllDownIsUp`) and AWS (fail-open) decide likewise.
    AllProbesDown,
}

/// Why a backend takes no new connections.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum OutReason {
    /// The Service does not have its family.
    WrongFamily,
    /// Its address is a node's that it is not on.
    NodeAddress,
    /// Its address is a Service's.
    ServiceAddress,
    /// It does not have the Service's port.
    NoSuchPort,
    /// Its weight is 0.
    NoWeight,
    /// An operator said `Down`.
    AdminDown,
    /// An operator drains it.
    Draining {
        /// When flows that are left are moved, in seconds of the caller's clock.
        deadline: u64,
    },
    /// It is not ready.
    NotReady,
    /// It is terminating and does not serve any more.
    NotServing,
    /// It is on another node, and the policy is `Local`.
    OtherNode,
    /// It is terminating, and others are ready.
    Terminating,
    /// Its probe fails, and those of others do not.
    ProbeDown,
    /// It is meant for clients on other nodes, and others are meant for this one.
    HintedForOtherNodes,
    /// It is meant for clients in other zones, and others are meant for this one.
    HintedForOtherZones,
}

/// Whether a backend takes new connections, and why.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum BackendState {
    /// It does.
    In(InReason),
    /// It does not. Connections that stand are another matter.
    Out(OutReason),
}

impl BackendState {
    /// Whether it takes new connections.
    pub const fn is_in(self) -> bool {
        matches!(self, Self::In(_))
    }

    /// The state as a word: Azure Load Balancer's where it has one, and words of the same form for the rest.
    pub const fn code(self) -> &'static str {
        match self {
            Self::In(InReason::Ready) => "Up_Ready",
            Self::In(InReason::ProbeUp) => "Up_Probe_Success",
            Self::In(InReason::AdminUp) => "Up_Admin",
            Self::In(InReason::NothingReady) => "Up_Terminating_NothingReady",
            Self::In(InReason::AllProbesDown) => "Up_Probe_AllDownIsUp",
            Self::Out(OutReason::WrongFamily) => "Down_WrongFamily",
            Self::Out(OutReason::NodeAddress) => "Down_Refused_NodeAddress",
            Self::Out(OutReason::ServiceAddress) => "Down_Refused_ServiceAddress",
            Self::Out(OutReason::NoSuchPort) => "Down_NoSuchPort",
            Self::Out(OutReason::NoWeight) => "Down_NoWeight",
            Self::Out(OutReason::AdminDown) => "Down_Admin",
            Self::Out(OutReason::Draining { .. }) => "Down_Admin_Draining",
            Self::Out(OutReason::NotReady) => "Down_NotReady",
            Self::Out(OutReason::NotServing) => "Down_Terminating_NotServing",
            Self::Out(OutReason::OtherNode) => "Down_Local_OtherNode",
            Self::Out(OutReason::Terminating) => "Down_Terminating",
            Self::Out(OutReason::ProbeDown) => "Down_Probe",
            Self::Out(OutReason::HintedForOtherNodes) => "Down_Topology_OtherNode",
            Self::Out(OutReason::HintedForOtherZones) => "Down_Topology_OtherZone",
        }
    }

    /// The state in an operator's words.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::In(InReason::Ready) => "it is ready",
            Self::In(InReason::ProbeUp) => "it is ready and its probe passes",
            Self::In(InReason::AdminUp) => "it is ready and its admin state is Up",
            Self::In(InReason::NothingReady) => {
                "it is terminating and still serves, and nothing ready is left"
            }
            Self::In(InReason::AllProbesDown) => "every probe fails, so none is believed",
            Self::Out(OutReason::WrongFamily) => "the Service does not have its family",
            Self::Out(OutReason::NodeAddress) => "its address is a node's that it is not on",
            Self::Out(OutReason::ServiceAddress) => "its address is a Service's cluster IP",
            Self::Out(OutReason::NoSuchPort) => "it does not have the Service's port",
            Self::Out(OutReason::NoWeight) => "its weight is 0",
            Self::Out(OutReason::AdminDown) => "its admin state is Down",
            Self::Out(OutReason::Draining { .. }) => "its admin state is Drain",
            Self::Out(OutReason::NotReady) => "it is not ready",
            Self::Out(OutReason::NotServing) => "it is terminating and does not serve any more",
            Self::Out(OutReason::OtherNode) => "it is on another node, and the policy is Local",
            Self::Out(OutReason::Terminating) => "it is terminating, and others are ready",
            Self::Out(OutReason::ProbeDown) => "its probe fails",
            Self::Out(OutReason::HintedForOtherNodes) => "its hints are for other nodes",
            Self::Out(OutReason::HintedForOtherZones) => "its hints are for other zones",
        }
    }
}

/// What of the topology decided.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Topology {
    /// Nothing: endpoints of everywhere are used.
    #[default]
    Ignored,
    /// Hints for this node.
    SameNode,
    /// Hints for this node's zone.
    SameZone,
}

/// An endpoint that may be chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) endpoint: &'a Endpoint,
    /// Why it is out before any rule is asked.
    pub(crate) excluded: Option<OutReason>,
    pub(crate) admin: AdminState,
    pub(crate) probe: Probe,
}

impl Candidate<'_> {
    /// Why it is out whatever the others are.
    fn unfit(&self) -> Option<OutReason> {
        if self.excluded.is_some() {
            return self.excluded;
        }
        if self.endpoint.weight == 0 {
            return Some(OutReason::NoWeight);
        }
        match self.admin {
            AdminState::Down => return Some(OutReason::AdminDown),
            AdminState::Drain { deadline } => return Some(OutReason::Draining { deadline }),
            AdminState::None | AdminState::Up => {}
        }
        let conditions = self.endpoint.conditions;
        if conditions.ready || (conditions.serving && conditions.terminating) {
            None
        } else if conditions.terminating {
            Some(OutReason::NotServing)
        } else {
            Some(OutReason::NotReady)
        }
    }

    const fn is_ready(&self) -> bool {
        self.endpoint.conditions.ready
    }

    fn is_on(&self, node: &str) -> bool {
        self.endpoint.node.as_deref() == Some(node)
    }

    /// The zones and the nodes that it is meant for.
    fn hints(&self) -> (&[Arc<str>], &[Arc<str>]) {
        match &self.endpoint.hints {
            Some(hints) => (&hints.zones, &hints.nodes),
            None => (&[], &[]),
        }
    }

    fn fails_probe(&self) -> bool {
        self.probe == Probe::Down && self.admin != AdminState::Up
    }

    /// Whether a load balancer outside may count on it: it is on this node, ready, and nothing speaks against it.
    pub(crate) fn is_healthy_on(&self, node: &str) -> bool {
        self.unfit().is_none() && self.is_ready() && self.is_on(node) && !self.fails_probe()
    }

    fn reason(&self, all_probes_down: bool) -> InReason {
        if all_probes_down {
            InReason::AllProbesDown
        } else if !self.is_ready() {
            InReason::NothingReady
        } else if self.admin == AdminState::Up {
            InReason::AdminUp
        } else if self.probe == Probe::Up {
            InReason::ProbeUp
        } else {
            InReason::Ready
        }
    }
}

/// The states of candidates, in their order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Choice {
    pub(crate) states: Vec<BackendState>,
    pub(crate) topology: Topology,
    /// Whether another node could use one, which is what `Local` without backends drops for.
    pub(crate) elsewhere: bool,
}

/// Chooses among candidates. From no viewpoint, neither nodes nor zones matter: the answer is what some node may use.
pub(crate) fn choose(
    candidates: &[Candidate<'_>],
    policy: TrafficPolicy,
    viewpoint: Option<Viewpoint<'_>>,
) -> Choice {
    let mut out: Vec<Option<OutReason>> = candidates.iter().map(Candidate::unfit).collect();
    let usable = out.iter().any(Option::is_none);
    if let (TrafficPolicy::Local, Some(viewpoint)) = (policy, viewpoint) {
        exclude(candidates, &mut out, OutReason::OtherNode, |candidate| {
            candidate.is_on(viewpoint.node)
        });
    }
    let elsewhere = usable && !out.iter().any(Option::is_none);
    prefer(candidates, &mut out, OutReason::Terminating, |candidate| {
        candidate.is_ready()
    });
    let all_probes_down = !prefer(candidates, &mut out, OutReason::ProbeDown, |candidate| {
        !candidate.fails_probe()
    });
    let topology = match (policy, viewpoint) {
        (TrafficPolicy::Cluster, Some(viewpoint)) => by_hints(candidates, &mut out, viewpoint),
        _ => Topology::Ignored,
    };
    let states = candidates
        .iter()
        .zip(out)
        .map(|(candidate, out)| match out {
            Some(reason) => BackendState::Out(reason),
            None => BackendState::In(candidate.reason(all_probes_down)),
        });
    Choice {
        states: states.collect(),
        topology,
        elsewhere,
    }
}

/// Takes out whoever is left and is not wanted.
fn exclude(
    candidates: &[Candidate<'_>],
    out: &mut [Option<OutReason>],
    reason: OutReason,
    wanted: impl Fn(&Candidate<'_>) -> bool,
) {
    for (candidate, out) in candidates.iter().zip(out) {
        if out.is_none() && !wanted(candidate) {
            *out = Some(reason);
        }
    }
}

/// Takes out whoever is left and is not wanted, if anybody is wanted. False when nobody is.
fn prefer(
    candidates: &[Candidate<'_>],
    out: &mut [Option<OutReason>],
    reason: OutReason,
    wanted: impl Fn(&Candidate<'_>) -> bool,
) -> bool {
    let mut left = candidates
        .iter()
        .zip(&*out)
        .filter(|(_, out)| out.is_none());
    let any = left.any(|(candidate, _)| wanted(candidate));
    if any {
        exclude(candidates, out, reason, wanted);
    }
    any
}

/// Hints count where each one that is left has some, and one of them is for this node, or else for its zone
/// (`topologyModeFromHints`). Endpoints that terminate have their hints ignored: they are the last resort.
fn by_hints(
    candidates: &[Candidate<'_>],
    out: &mut [Option<OutReason>],
    viewpoint: Viewpoint<'_>,
) -> Topology {
    let (mut on_nodes, mut in_zones) = (true, true);
    for (candidate, _) in candidates
        .iter()
        .zip(&*out)
        .filter(|(_, out)| out.is_none())
    {
        if !candidate.is_ready() {
            return Topology::Ignored;
        }
        let (zones, nodes) = candidate.hints();
        on_nodes &= !nodes.is_empty();
        in_zones &= !zones.is_empty();
    }
    let for_node = |candidate: &Candidate<'_>| {
        let (_, nodes) = candidate.hints();
        nodes.iter().any(|name| **name == *viewpoint.node)
    };
    let for_zone = |candidate: &Candidate<'_>| {
        let (zones, _) = candidate.hints();
        zones.iter().any(|name| Some(&**name) == viewpoint.zone)
    };
    if on_nodes && prefer(candidates, out, OutReason::HintedForOtherNodes, for_node) {
        Topology::SameNode
    } else if in_zones && prefer(candidates, out, OutReason::HintedForOtherZones, for_zone) {
        Topology::SameZone
    } else {
        Topology::Ignored
    }
}
