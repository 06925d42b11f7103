//! The operator's figures, under the names that Cilium's operator uses where it has them.

use crate::collect::Outcome;
use heddle_ipam::BlockStats;
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct BlockLabels {
    pool: String,
    family: &'static str,
    state: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct PoolLabels {
    pool: String,
    family: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct StatusLabel {
    status: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

type FloatGauge = Gauge<f64, AtomicU64>;

/// Everything that is counted.
pub(crate) struct Metrics {
    registry: Registry,
    synced: AtomicBool,
    blocks: Family<BlockLabels, Gauge>,
    pressure: Family<PoolLabels, FloatGauge>,
    nodes: Family<ReasonLabel, Gauge>,
    gc_entries: Family<StatusLabel, Gauge>,
    gc_runs: Family<OutcomeLabel, Gauge>,
    gc_latency: Family<OutcomeLabel, FloatGauge>,
    endpoint_gc: Family<OutcomeLabel, Gauge>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            synced: AtomicBool::new(false),
            blocks: Family::default(),
            pressure: Family::default(),
            nodes: Family::default(),
            gc_entries: Family::default(),
            gc_runs: Family::default(),
            gc_latency: Family::default(),
            endpoint_gc: Family::default(),
            registry: Registry::default(),
        };
        metrics.registry.register(
            "heddle_ipam_blocks",
            "Blocks of a pool by state",
            metrics.blocks.clone(),
        );
        metrics.registry.register(
            "heddle_ipam_pool_pressure",
            "Share of a pool's blocks that are in use, 0 to 1",
            metrics.pressure.clone(),
        );
        metrics.registry.register(
            "heddle_ipam_nodes_without_block",
            "Nodes that have no block they can use, by reason",
            metrics.nodes.clone(),
        );
        metrics.registry.register(
            "cilium_operator_identity_gc_entries",
            "Identities alive after, and deleted by, the last garbage collection",
            metrics.gc_entries.clone(),
        );
        metrics.registry.register(
            "cilium_operator_identity_gc_runs",
            "Garbage collections by outcome",
            metrics.gc_runs.clone(),
        );
        metrics.registry.register(
            "cilium_operator_identity_gc_latency",
            "Seconds that the last garbage collection took",
            metrics.gc_latency.clone(),
        );
        metrics.registry.register(
            "cilium_operator_endpoint_gc_objects",
            "Endpoints deleted because their pod or node is gone, by outcome",
            metrics.endpoint_gc.clone(),
        );
        metrics
    }

    /// True when the operator knows the whole cluster.
    pub(crate) fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Relaxed)
    }

    pub(crate) fn set_synced(&self, synced: bool) {
        self.synced.store(synced, Ordering::Relaxed);
    }

    pub(crate) fn set_blocks(&self, pool: &str, family: &'static str, stats: BlockStats) {
        let used = stats.used.min(stats.total);
        for (state, count) in [
            ("total", stats.total),
            ("used", used),
            ("free", stats.total - used),
        ] {
            let labels = BlockLabels {
                pool: pool.to_owned(),
                family,
                state,
            };
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.blocks.get_or_create(&labels).set(count);
        }
        let labels = PoolLabels {
            pool: pool.to_owned(),
            family,
        };
        let pressure = used as f64 / stats.total.max(1) as f64;
        self.pressure.get_or_create(&labels).set(pressure);
    }

    pub(crate) fn set_nodes(&self, waiting: usize, refused: usize) {
        for (reason, count) in [("pool-exhausted", waiting), ("block-conflict", refused)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.nodes.get_or_create(&ReasonLabel { reason }).set(count);
        }
    }

    /// Enters a garbage collection that found so many identities.
    pub(crate) fn collected(&self, outcome: &Outcome, identities: usize) {
        let deleted = i64::try_from(outcome.identities_deleted).unwrap_or(i64::MAX);
        let found = i64::try_from(identities).unwrap_or(i64::MAX);
        // The watch may have told of the deletions already, or not yet: alive is what it knows now.
        for (status, count) in [("alive", found), ("deleted", deleted)] {
            self.gc_entries
                .get_or_create(&StatusLabel { status })
                .set(count);
        }
        let label = OutcomeLabel {
            outcome: if outcome.failed == 0 {
                "success"
            } else {
                "fail"
            },
        };
        self.gc_runs.get_or_create(&label).inc();
        self.gc_latency
            .get_or_create(&label)
            .set(outcome.took.as_secs_f64());
        let endpoints = i64::try_from(outcome.endpoints_deleted).unwrap_or(i64::MAX);
        self.endpoint_gc
            .get_or_create(&OutcomeLabel { outcome: "success" })
            .inc_by(endpoints);
    }

    /// The exposition that Prometheus reads.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
