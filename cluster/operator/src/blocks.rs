//! Gives each node its blocks, keeps those it has, and says on the node why it has none.

use crate::cluster::{Cluster, Node};
use crate::config::{OperatorConfig, PoolsError};
use crate::metrics::Metrics;
use heddle_ipam::{NodeKey, PoolAllocator};
use heddle_kube::lease::Term;
use heddle_kube::objects::{Condition, ConditionStatus, Metadata, NodeSpec, condition_in};
use heddle_kube::store::{Event, Kind, Object, Scope, Store, StoreError};
use heddle_kube::timestamp::rfc3339;
use heddle_model::NamespacedName;
use ipnet::IpNet;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Type of the condition on a Node.
const CONDITION: &str = "PodCIDRAllocated";
/// Annotation of a Node that had no blocks when an operator began to lead: which one, and in which term.
const FENCE: &str = "heddle.dev/operator-term";

/// Why a node has no blocks, or none that it should use.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Problem {
    reason: &'static str,
    message: String,
}

/// The pools, and which node has what.
pub(crate) struct BlockController {
    store: Arc<dyn Store>,
    pools: Vec<PoolAllocator>,
    /// Uid that each node's name had when it was looked at last.
    uids: BTreeMap<String, String>,
    /// Nodes that a pool had nothing for.
    waiting: BTreeSet<String>,
    /// Nodes whose blocks overlap another node's, or cannot be read.
    refused: BTreeSet<String>,
    /// Nodes whose update failed for a reason that passes.
    again: BTreeSet<String>,
    /// A block was freed since the nodes that have none were looked at.
    room: bool,
}

impl BlockController {
    pub(crate) fn new(config: &OperatorConfig, store: Arc<dyn Store>) -> Result<Self, PoolsError> {
        Ok(Self {
            store,
            pools: config.allocators()?,
            uids: BTreeMap::new(),
            waiting: BTreeSet::new(),
            refused: BTreeSet::new(),
            again: BTreeSet::new(),
            room: false,
        })
    }

    pub(crate) fn must_retry(&self) -> bool {
        !self.again.is_empty()
    }

    /// Shuts out former leaders: a write of theirs that is still on its way is about a node as they read it, and
    /// fails once that node is another. Only nodes without blocks can be given one, and only nodes that exist
    /// now: a former leader has begun nothing since its lease ran out.
    pub(crate) async fn fence(&self, cluster: &mut Cluster, term: &Term) -> Result<(), StoreError> {
        let text = format!("{} {} {}", term.holder, term.transitions, term.since);
        // The store's own list: the watch may be behind.
        for listed in self.store.list(&Scope::all(Kind::Node)).await? {
            if let Some(node) = self.fence_node(listed, &text).await? {
                cluster.apply(Event::Applied(node));
            }
        }
        Ok(())
    }

    /// The node with the mark of this term, or with blocks; none when it is gone.
    async fn fence_node(&self, mut node: Object, text: &str) -> Result<Option<Object>, StoreError> {
        let key = node.name.clone();
        loop {
            if pod_cidrs(&node.value).is_ok_and(|blocks| !blocks.is_empty()) {
                return Ok(Some(node));
            }
            Metadata::annotate(&mut node.value, FENCE, Some(text.to_owned()));
            match self.store.update(Kind::Node, node.value).await {
                Ok(node) => return Ok(Some(node)),
                // Somebody changed it: perhaps it has blocks now.
                Err(StoreError::Conflict { .. }) => {}
                Err(StoreError::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
            node = match self.store.get(Kind::Node, &key).await {
                Ok(node) => node,
                Err(StoreError::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
        }
    }

    /// After a whole list: enters every node's blocks before any is given.
    pub(crate) async fn reconcile_all(&mut self, cluster: &Cluster) {
        let gone: Vec<_> = self.uids.keys().chain(&self.again).cloned().collect();
        for name in gone {
            if !cluster.nodes.contains_key(&name) {
                self.drop_node(&name);
            }
        }
        // The elder of two nodes with one block keeps it.
        let mut nodes: Vec<_> = cluster.nodes.iter().collect();
        nodes.sort_by_cached_key(|(name, node)| {
            (Metadata::of(&node.value).creation_timestamp, *name)
        });
        for (name, node) in &nodes {
            // What is wrong with them is said when each is looked at below.
            let _ = self.restore(name, node);
        }
        for (name, node) in &nodes {
            self.look_at(name, node).await;
        }
    }

    /// After a change of one node.
    pub(crate) async fn reconcile(&mut self, cluster: &Cluster, name: &str) {
        match cluster.nodes.get(name) {
            Some(node) => {
                if self.uids.get(name).is_some_and(|uid| *uid != node.uid) {
                    self.drop_node(name);
                }
                self.look_at(name, node).await;
            }
            None => self.drop_node(name),
        }
        // Space appeared: who has none is looked at again, in the order of names.
        if std::mem::take(&mut self.room) {
            let without: Vec<_> = self.waiting.union(&self.refused).cloned().collect();
            for name in without {
                if let Some(node) = cluster.nodes.get(&name) {
                    self.look_at(&name, node).await;
                }
            }
        }
    }

    /// Tries nodes again whose update failed.
    pub(crate) async fn retry(&mut self, cluster: &Cluster) {
        for name in std::mem::take(&mut self.again) {
            if let Some(node) = cluster.nodes.get(&name) {
                self.look_at(&name, node).await;
            }
        }
    }

    /// Frees what a node had.
    fn drop_node(&mut self, name: &str) {
        self.waiting.remove(name);
        self.refused.remove(name);
        self.again.remove(name);
        let Some(uid) = self.uids.remove(name) else {
            return;
        };
        let mut freed = BTreeSet::new();
        for pool in &mut self.pools {
            freed.extend(pool.release(&uid));
        }
        if !freed.is_empty() {
            tracing::info!(node = name, blocks = ?freed, "released a node's blocks");
            self.room = true;
        }
    }

    /// Enters the blocks that a node has; none when it has none.
    fn restore(&mut self, name: &str, node: &Node) -> Result<Vec<IpNet>, Problem> {
        self.uids.insert(name.to_owned(), node.uid.clone());
        let blocks = pod_cidrs(&node.value)?;
        if blocks.is_empty() {
            return Ok(blocks);
        }
        let key = NodeKey::new(&node.uid, name);
        for pool in &mut self.pools {
            // Blocks that were kept for the node while somebody else gave it others.
            if !pool
                .blocks_of(&node.uid)
                .iter()
                .all(|held| blocks.contains(held))
            {
                pool.release(&node.uid);
                self.room = true;
            }
            pool.restore(&key, &blocks).map_err(|error| Problem {
                reason: "ipam/block-conflict",
                message: format!(
                    "{error}; delete one of the two nodes and let it join again, its pods cannot be reached reliably"
                ),
            })?;
        }
        Ok(blocks)
    }

    /// Gives a node without blocks its blocks, and keeps its condition true.
    async fn look_at(&mut self, name: &str, node: &Node) {
        let outcome = match self.restore(name, node) {
            Ok(blocks) if blocks.is_empty() => self.allocate(name, node).map(Some),
            Ok(_) => Ok(None),
            Err(problem) => Err(problem),
        };
        self.waiting.remove(name);
        self.refused.remove(name);
        let stored = match outcome {
            Ok(given) => {
                let given = match given {
                    Some(blocks) => self.give(name, node, &blocks).await,
                    None => Ok(()),
                };
                match given {
                    Ok(()) => self.set_condition(name, node, None).await,
                    Err(error) => Err(error),
                }
            }
            Err(problem) => {
                if problem.reason == "ipam/pool-exhausted" {
                    self.waiting.insert(name.to_owned());
                } else {
                    self.refused.insert(name.to_owned());
                }
                self.set_condition(name, node, Some(&problem)).await
            }
        };
        match stored {
            Ok(()) => {}
            // The node changed or went: its event is on its way.
            Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {}
            Err(error) => {
                tracing::warn!(node = name, %error, "cannot write the node; trying again");
                self.again.insert(name.to_owned());
            }
        }
    }

    /// The first pool with room for every family.
    fn allocate(&mut self, name: &str, node: &Node) -> Result<Vec<IpNet>, Problem> {
        let key = NodeKey::new(&node.uid, name);
        let mut reasons = Vec::new();
        for pool in &mut self.pools {
            match pool.allocate(&key) {
                Ok(blocks) => return Ok(blocks),
                Err(error) => reasons.push((error.to_string(), error.help())),
            }
        }
        let help = reasons.first().map_or("", |(_, help)| help);
        let reasons: Vec<_> = reasons.iter().map(|(reason, _)| reason.as_str()).collect();
        Err(Problem {
            reason: "ipam/pool-exhausted",
            message: format!("{}; {help}", reasons.join("; ")),
        })
    }

    /// Writes the blocks into the node as it was read; a node that changed meanwhile is looked at again.
    async fn give(&self, name: &str, node: &Node, blocks: &[IpNet]) -> Result<(), StoreError> {
        let mut value = node.value.clone();
        let texts: Vec<String> = blocks.iter().map(ToString::to_string).collect();
        NodeSpec::write_ranges(&mut value, &texts);
        self.store.update(Kind::Node, value).await?;
        tracing::info!(node = name, blocks = ?texts, "gave a node its blocks");
        Ok(())
    }

    /// Says a problem on the node, or that an earlier one is over.
    async fn set_condition(
        &self,
        name: &str,
        node: &Node,
        problem: Option<&Problem>,
    ) -> Result<(), StoreError> {
        let current = condition_in(&node.value, CONDITION);
        let (status, reason, message) = match problem {
            Some(problem) => (
                ConditionStatus::False,
                problem.reason,
                problem.message.as_str(),
            ),
            // A node that never had a problem needs no word about it.
            None if current
                .as_ref()
                .is_none_or(|current| current.status == ConditionStatus::True) =>
            {
                return Ok(());
            }
            None => (
                ConditionStatus::True,
                "ipam/allocated",
                "the node has its blocks",
            ),
        };
        let is_said = current.as_ref().is_some_and(|current| {
            (
                current.status,
                current.reason.as_str(),
                current.message.as_str(),
            ) == (status, reason, message)
        });
        if is_said {
            return Ok(());
        }
        if problem.is_some() {
            tracing::warn!(node = name, reason, "{message}");
        }
        let condition = Condition {
            kind: CONDITION.into(),
            status,
            reason: reason.into(),
            message: message.into(),
            last_transition_time: None,
            observed_generation: Metadata::of(&node.value).generation,
        }
        .since(current.as_ref(), || rfc3339(crate::now()));
        let name = NamespacedName::new("", name);
        let status = json!({ "conditions": [condition] });
        self.store
            .apply_status(Kind::Node, &name, crate::MANAGER, status)
            .await?;
        Ok(())
    }

    /// Puts the pools' counts into the metrics.
    pub(crate) fn report(&self, metrics: &Metrics) {
        for pool in &self.pools {
            for (family, stats) in pool.stats() {
                metrics.set_blocks(pool.name(), family.label(), stats);
            }
        }
        metrics.set_nodes(self.waiting.len(), self.refused.len());
    }
}

/// `spec.podCIDRs`, or `spec.podCIDR` of a node that only has that.
fn pod_cidrs(node: &Value) -> Result<Vec<IpNet>, Problem> {
    NodeSpec::of(node)
        .ranges()
        .iter()
        .map(|text| {
            let parsed = text.as_str().and_then(|text| text.parse::<IpNet>().ok());
            parsed.map(|net| net.trunc()).ok_or_else(|| Problem {
                reason: "ipam/bad-pod-cidr",
                message: format!(
                    "spec.podCIDRs: {text} is not an address range such as 10.244.0.0/24; correct it or leave the field out"
                ),
            })
        })
        .collect()
}
