//! Metrics, under the names that Cilium's and Hubble's dashboards read.
//!
//! The agent makes one [`Metrics`] and hands it round. What happens is counted as it happens
//! ([`Metrics::flow`], [`Metrics::lost`], [`Metrics::cni_request`], [`Metrics::conntrack_collected`]); what *is*
//! is set whenever it changes ([`Metrics::set_endpoints`], [`Metrics::set_policies`],
//! [`Metrics::set_identities`], [`Metrics::set_addresses`]); the kernel's counters and maps are read at each
//! scrape from the datapath given to [`Metrics::watch_datapath`]. [`serve`] answers scrapes.

mod kernel;
mod server;

pub use server::serve;

use heddle_abi::DropReason;
use heddle_datapath::Datapath;
use heddle_flow::{Flow, Layer4, LossSource, Verdict, event_kind, observation_words};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds in seconds of the CNI request histogram; the target is 30 ms at p99.
const CNI_BUCKETS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];

macro_rules! labels {
    ($($name:ident { $($field:ident: $kind:ty),* })*) => { $(
        #[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
        struct $name { $($field: $kind),* }
    )* };
}

labels! {
    FlowLabels { r#type: &'static str, subtype: &'static str, verdict: &'static str }
    DropLabels { reason: &'static str, protocol: &'static str }
    SourceLabels { source: &'static str }
    StepLabels { step: &'static str }
    CniLabels { command: &'static str, outcome: &'static str }
    StateLabels { endpoint_state: String }
    IdentityLabels { r#type: &'static str }
    StatusLabels { status: &'static str }
    AddressLabels { family: &'static str, state: &'static str }
    FamilyLabels { family: &'static str }
    BuildLabels { version: &'static str }
}

/// A CNI command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum CniCommand {
    Add,
    Del,
    Check,
    Gc,
    Status,
}

impl CniCommand {
    const fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
        }
    }
}

/// How many addresses of one family this node has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AddressCount {
    /// 4 or 6.
    pub family: u8,
    /// Given to pods.
    pub used: u64,
    /// Freed a moment ago.
    pub resting: u64,
    /// Free.
    pub free: u64,
}

/// How many identities of each kind the node knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IdentityCount {
    /// Fixed ones.
    pub reserved: u64,
    /// Label sets of the cluster.
    pub cluster: u64,
    /// Policy CIDRs.
    pub node: u64,
}

/// The agent's metrics.
pub struct Metrics {
    registry: Mutex<Registry>,
    ready: AtomicBool,
    flows: Family<FlowLabels, Counter>,
    drops: Family<DropLabels, Counter>,
    lost: Family<SourceLabels, Counter>,
    sampled: Counter,
    unexplained: Counter,
    cni: Family<CniLabels, Histogram>,
    cni_steps: Family<StepLabels, Histogram>,
    endpoints: Family<StateLabels, Gauge>,
    known_states: Mutex<Vec<String>>,
    policies: Gauge,
    not_in_force: Gauge,
    revision: Gauge,
    identities: Family<IdentityLabels, Gauge>,
    conntrack: Family<StatusLabels, Gauge>,
    conntrack_runs: Counter,
    addresses: Family<AddressLabels, Gauge>,
    cilium_addresses: Family<FamilyLabels, Gauge>,
    capacity: Family<FamilyLabels, Gauge>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics")
            .field("ready", &self.ready)
            .finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn histogram() -> Histogram {
    Histogram::new(CNI_BUCKETS)
}

fn gauge_value(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Metrics {
    /// All metrics at zero.
    pub fn new() -> Self {
        let metrics = Self {
            registry: Mutex::default(),
            ready: AtomicBool::new(false),
            flows: Family::default(),
            drops: Family::default(),
            lost: Family::default(),
            sampled: Counter::default(),
            unexplained: Counter::default(),
            cni: Family::new_with_constructor(histogram),
            cni_steps: Family::new_with_constructor(histogram),
            endpoints: Family::default(),
            known_states: Mutex::default(),
            policies: Gauge::default(),
            not_in_force: Gauge::default(),
            revision: Gauge::default(),
            identities: Family::default(),
            conntrack: Family::default(),
            conntrack_runs: Counter::default(),
            addresses: Family::default(),
            cilium_addresses: Family::default(),
            capacity: Family::default(),
        };
        // A counter that appears with its first loss could not be alerted on by rate.
        for source in LossSource::ALL {
            metrics.lost(source, 0);
        }
        metrics.register();
        metrics
    }

    fn register(&self) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // A counter's name gets `_total` when it is written.
        registry.register(
            "hubble_flows_processed",
            "Flows by type, subtype and verdict",
            self.flows.clone(),
        );
        registry.register(
            "hubble_drop",
            "Dropped packets that were reported, by reason and protocol",
            self.drops.clone(),
        );
        registry.register(
            "hubble_lost_events",
            "Events that were lost, by where",
            self.lost.clone(),
        );
        registry.register(
            "heddle_events_sampled",
            "Events that the kernel left out to bound the rate of an endpoint",
            self.sampled.clone(),
        );
        registry.register(
            "heddle_flows_unexplained",
            "Denied flows that were not explained, because more of them came than the agent explains",
            self.unexplained.clone(),
        );
        registry.register(
            "heddle_cni_request_duration_seconds",
            "Time that CNI requests took in the agent",
            self.cni.clone(),
        );
        registry.register(
            "heddle_cni_add_step_duration_seconds",
            "Time that each step of a CNI ADD took",
            self.cni_steps.clone(),
        );
        registry.register(
            "cilium_endpoint_state",
            "Endpoints by state",
            self.endpoints.clone(),
        );
        registry.register(
            "cilium_policy",
            "Policies in force on this node",
            self.policies.clone(),
        );
        registry.register(
            "heddle_not_in_force",
            "Objects that are not in force on this node because they do not fit",
            self.not_in_force.clone(),
        );
        registry.register(
            "cilium_policy_max_revision",
            "Highest policy revision in force on this node",
            self.revision.clone(),
        );
        registry.register(
            "cilium_identity",
            "Identities known to this node, by type",
            self.identities.clone(),
        );
        registry.register(
            "cilium_datapath_conntrack_gc_entries",
            "Connections alive and removed at the last garbage collection",
            self.conntrack.clone(),
        );
        registry.register(
            "cilium_datapath_conntrack_gc_runs",
            "Garbage collections of the connection table",
            self.conntrack_runs.clone(),
        );
        registry.register(
            "heddle_ipam_addresses",
            "Pod addresses of this node by family and state",
            self.addresses.clone(),
        );
        registry.register(
            "cilium_ip_addresses",
            "Pod addresses in use by family",
            self.cilium_addresses.clone(),
        );
        registry.register(
            "cilium_ipam_capacity",
            "Pod addresses of this node by family",
            self.capacity.clone(),
        );
        let build: Family<BuildLabels, Gauge> = Family::default();
        build
            .get_or_create(&BuildLabels {
                version: env!("CARGO_PKG_VERSION"),
            })
            .set(1);
        registry.register("heddle_build_info", "Version of this agent", build);
    }

    /// Reads the kernel's counters and maps from this datapath at each scrape. Call it once.
    pub fn watch_datapath(&self, datapath: Arc<dyn Datapath>) {
        self.registry
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .register_collector(Box::new(kernel::Kernel::new(datapath)));
    }

    /// Whether `/healthz` answers well.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::SeqCst);
    }

    /// What [`Metrics::set_ready`] was told last.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::SeqCst)
    }

    /// Counts a flow.
    pub fn flow(&self, flow: &Flow) {
        let (kind, subtype) = match flow.event_type.kind {
            event_kind::DROP => ("Drop", ""),
            event_kind::TRACE => (
                "Trace",
                u8::try_from(flow.event_type.sub_type)
                    .map(observation_words)
                    .unwrap_or_default(),
            ),
            event_kind::POLICY_VERDICT => ("PolicyVerdict", ""),
            _ => ("Unknown", ""),
        };
        self.flows
            .get_or_create(&FlowLabels {
                r#type: kind,
                subtype,
                verdict: flow.verdict.name(),
            })
            .inc();
        if flow.verdict == Verdict::Dropped {
            let reason = u8::try_from(flow.drop_reason)
                .ok()
                .and_then(DropReason::from_number);
            self.drops
                .get_or_create(&DropLabels {
                    reason: reason.map_or("DROP_REASON_UNKNOWN", |reason| {
                        match reason.hubble_name() {
                            "" => reason.description(),
                            name => name,
                        }
                    }),
                    protocol: flow.l4.as_ref().map_or("Unknown flow", Layer4::protocol),
                })
                .inc();
        }
    }

    /// Counts lost events.
    pub fn lost(&self, source: LossSource, number: u64) {
        self.lost
            .get_or_create(&SourceLabels {
                source: loss_label(source),
            })
            .inc_by(number);
    }

    /// Counts drop events that the kernel left out to bound their rate.
    pub fn sampled(&self, number: u64) {
        self.sampled.inc_by(number);
    }

    /// Counts a denied flow that goes without the allows that came nearest.
    pub fn unexplained(&self) {
        self.unexplained.inc();
    }

    /// Counts a CNI request and the time it took.
    pub fn cni_request(&self, command: CniCommand, succeeded: bool, took: Duration) {
        self.cni
            .get_or_create(&CniLabels {
                command: command.name(),
                outcome: if succeeded { "success" } else { "failure" },
            })
            .observe(took.as_secs_f64());
    }

    /// Counts a step of an ADD and the time it took.
    pub(crate) fn cni_step(&self, step: &'static str, took: Duration) {
        self.cni_steps
            .get_or_create(&StepLabels { step })
            .observe(took.as_secs_f64());
    }

    /// Sets the number of endpoints in each state; states not named are gone.
    pub fn set_endpoints(&self, states: &[(&str, u64)]) {
        let mut known = self
            .known_states
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for gone in known
            .iter()
            .filter(|known| !states.iter().any(|(state, _)| state == known))
        {
            self.endpoints.remove(&StateLabels {
                endpoint_state: gone.clone(),
            });
        }
        *known = states
            .iter()
            .map(|(state, _)| (*state).to_owned())
            .collect();
        for (state, number) in states {
            self.endpoints
                .get_or_create(&StateLabels {
                    endpoint_state: (*state).to_owned(),
                })
                .set(gauge_value(*number));
        }
    }

    /// Sets the number of policies and the highest revision in force.
    pub fn set_policies(&self, number: u64, revision: u64) {
        self.policies.set(gauge_value(number));
        self.revision.set(gauge_value(revision));
    }

    /// Sets how many objects are not in force because something does not fit.
    pub fn set_not_in_force(&self, number: u64) {
        self.not_in_force.set(gauge_value(number));
    }

    /// Sets the number of identities.
    pub fn set_identities(&self, count: IdentityCount) {
        for (kind, number) in [
            ("reserved", count.reserved),
            ("cluster_local", count.cluster),
            ("node_local", count.node),
        ] {
            self.identities
                .get_or_create(&IdentityLabels { r#type: kind })
                .set(gauge_value(number));
        }
    }

    /// Sets what the last collection of dead connections found, as
    /// [`Datapath::collect_connections`] returned it.
    pub fn conntrack_collected(&self, alive: u64, removed: u64) {
        self.conntrack_runs.inc();
        for (status, number) in [("alive", alive), ("deleted", removed)] {
            self.conntrack
                .get_or_create(&StatusLabels { status })
                .set(gauge_value(number));
        }
    }

    /// Sets the number of addresses of one family.
    pub fn set_addresses(&self, count: AddressCount) {
        let family = if count.family == 6 { "ipv6" } else { "ipv4" };
        for (state, number) in [
            ("used", count.used),
            ("resting", count.resting),
            ("free", count.free),
        ] {
            self.addresses
                .get_or_create(&AddressLabels { family, state })
                .set(gauge_value(number));
        }
        let total = count
            .used
            .saturating_add(count.resting)
            .saturating_add(count.free);
        let labels = FamilyLabels { family };
        self.cilium_addresses
            .get_or_create(&labels)
            .set(gauge_value(count.used));
        self.capacity.get_or_create(&labels).set(gauge_value(total));
    }

    /// All metrics in the OpenMetrics text format. Blocks: it reads the kernel's maps.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

/// Hubble's label of a loss source.
const fn loss_label(source: LossSource) -> &'static str {
    match source {
        LossSource::PerfEventRingBuffer => "perf_event_ring_buffer",
        LossSource::ObserverEventsQueue => "observer_events_queue",
        LossSource::HubbleRingBuffer => "hubble_ring_buffer",
    }
}

#[cfg(test)]
mod tests;
