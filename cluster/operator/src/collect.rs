//! Collects what nobody uses: identities, claims, endpoints of pods or nodes that are gone, reports of nodes that are
//! gone.
//!
//! Nothing is deleted that was not unused in two observations, and only if the object is still the one
//! that was observed: an object is in use until it is proved that it is not.

use crate::cluster::Cluster;
use heddle_kube::identity::UNUSED_SINCE;
use heddle_kube::objects::{CiliumEndpoint, Metadata};
use heddle_kube::store::{Kind, Scope, Store, StoreError, Version};
use heddle_kube::timestamp::rfc3339;
use heddle_model::{Identity, IdentityScope, NamespacedName};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Deletions and marks of one run at most; the rest is for the next one.
const MAX_ACTIONS: usize = 2_500;

/// What is to be done to one object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// First observation: say on the identity that it seems unused.
    Mark(Identity, Version),
    /// It is used after all.
    Unmark(Identity, Version),
    /// Second observation.
    DeleteIdentity {
        identity: Identity,
        version: Version,
        /// The claim of its labels, if it names this identity.
        claim: Option<(String, Version)>,
    },
    /// A claim whose identity is gone.
    DeleteClaim(String, Version),
    /// An endpoint whose pod or node is gone.
    DeleteEndpoint(NamespacedName, Version),
    /// What a node reported that is gone.
    DeleteReport(String, Version),
}

/// What a run did.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Identities that were marked, and the version that the mark gave them.
    pub(crate) marked: Vec<(Identity, Version)>,
    pub(crate) identities_deleted: u64,
    pub(crate) endpoints_deleted: u64,
    /// Objects that changed meanwhile and were left alone.
    pub(crate) spared: u64,
    pub(crate) failed: u64,
    pub(crate) took: Duration,
}

/// What was unused in the last observation.
#[derive(Default)]
pub(crate) struct Collector {
    /// Version that a marked identity had.
    identities: BTreeMap<Identity, Version>,
    claims: HashMap<String, Version>,
    /// Uid of an endpoint without pod or node.
    endpoints: HashMap<NamespacedName, String>,
    /// Version of a report without node.
    reports: HashMap<String, Version>,
}

impl Collector {
    /// Looks at everything once; actions are what the last look and this one agree on.
    pub(crate) fn observe(&mut self, cluster: &Cluster) -> Vec<Action> {
        let mut actions = Vec::new();
        self.observe_endpoints(cluster, &mut actions);
        self.observe_identities(cluster, &mut actions);
        self.observe_claims(cluster, &mut actions);
        self.observe_reports(cluster, &mut actions);
        actions.truncate(MAX_ACTIONS);
        actions
    }

    fn observe_identities(&mut self, cluster: &Cluster, actions: &mut Vec<Action>) {
        let used: BTreeSet<_> = cluster
            .endpoints
            .values()
            .filter_map(|endpoint| endpoint.identity)
            .collect();
        let mut unused = BTreeMap::new();
        for (&identity, facts) in &cluster.identities {
            if used.contains(&identity) || identity.scope() != IdentityScope::Cluster {
                if facts.marked {
                    actions.push(Action::Unmark(identity, facts.version.clone()));
                }
                continue;
            }
            if !facts.marked {
                // Its place in the next observation is known once the mark is written.
                actions.push(Action::Mark(identity, facts.version.clone()));
                continue;
            }
            unused.insert(identity, facts.version.clone());
            if self.identities.get(&identity) == Some(&facts.version) {
                let claim = facts.claim.as_ref().and_then(|name| {
                    let claim = cluster.claims.get(name)?;
                    (claim.identity == Some(identity))
                        .then(|| (name.clone(), claim.version.clone()))
                });
                actions.push(Action::DeleteIdentity {
                    identity,
                    version: facts.version.clone(),
                    claim,
                });
            }
        }
        self.identities = unused;
    }

    fn observe_claims(&mut self, cluster: &Cluster, actions: &mut Vec<Action>) {
        let mut dangling = HashMap::new();
        for (name, claim) in &cluster.claims {
            let points_to_its_own = claim
                .identity
                .and_then(|identity| cluster.identities.get(&identity))
                .is_some_and(|facts| facts.claim.as_deref() == Some(name));
            if points_to_its_own {
                continue;
            }
            dangling.insert(name.clone(), claim.version.clone());
            if self.claims.get(name) == Some(&claim.version) {
                actions.push(Action::DeleteClaim(name.clone(), claim.version.clone()));
            }
        }
        self.claims = dangling;
    }

    fn observe_endpoints(&mut self, cluster: &Cluster, actions: &mut Vec<Action>) {
        let mut stale = HashMap::new();
        for (name, endpoint) in &cluster.endpoints {
            let node_is_gone = endpoint
                .node
                .as_ref()
                .is_some_and(|node| !cluster.nodes.contains_key(node));
            if cluster.pods.contains(name) && !node_is_gone {
                continue;
            }
            stale.insert(name.clone(), endpoint.uid.clone());
            if self.endpoints.get(name) == Some(&endpoint.uid) {
                actions.push(Action::DeleteEndpoint(
                    name.clone(),
                    endpoint.version.clone(),
                ));
            }
        }
        self.endpoints = stale;
    }

    fn observe_reports(&mut self, cluster: &Cluster, actions: &mut Vec<Action>) {
        let mut stale = HashMap::new();
        for (node, report) in &cluster.reports {
            if cluster.nodes.contains_key(node) {
                continue;
            }
            stale.insert(node.clone(), report.version.clone());
            if self.reports.get(node) == Some(&report.version) {
                actions.push(Action::DeleteReport(node.clone(), report.version.clone()));
            }
        }
        self.reports = stale;
    }

    /// Takes in what a run did: marked identities count as observed.
    pub(crate) fn learn(&mut self, outcome: &Outcome) {
        self.identities.extend(outcome.marked.iter().cloned());
    }
}

/// Does what was found necessary.
pub(crate) async fn execute(
    store: Arc<dyn Store>,
    actions: Vec<Action>,
    started: Instant,
) -> Outcome {
    let mut outcome = Outcome::default();
    let in_use = match identities_in_use(&*store, &actions).await {
        Ok(in_use) => in_use,
        Err(error) => {
            tracing::warn!(%error, "cannot look again at what is in use; nothing is collected");
            outcome.failed = actions.len() as u64;
            return outcome;
        }
    };
    for action in actions {
        let spared =
            matches!(&action, Action::DeleteIdentity { identity, .. } if in_use.contains(identity));
        let done = if spared {
            Ok(false)
        } else {
            perform(&*store, &action, &mut outcome).await
        };
        match done {
            Ok(true) => {}
            Ok(false) => outcome.spared += 1,
            Err(error) => {
                tracing::warn!(?action, %error, "not collected; tried again at the next look");
                outcome.failed += 1;
            }
        }
    }
    outcome.took = started.elapsed();
    outcome
}

/// Identities that endpoints have at this moment, asked anew before anything is deleted.
async fn identities_in_use(
    store: &dyn Store,
    actions: &[Action],
) -> Result<HashSet<Identity>, StoreError> {
    let deletes = |action: &Action| matches!(action, Action::DeleteIdentity { .. });
    if !actions.iter().any(deletes) {
        return Ok(HashSet::new());
    }
    let endpoints = store.list(&Scope::all(Kind::CiliumEndpoint)).await?;
    Ok(endpoints
        .iter()
        .filter_map(|endpoint| CiliumEndpoint::of(&endpoint.value).identity())
        .collect())
}

/// Does one thing; false when the object is not the observed one any more.
async fn perform(
    store: &dyn Store,
    action: &Action,
    outcome: &mut Outcome,
) -> Result<bool, StoreError> {
    match action {
        Action::Mark(identity, version) => {
            let marked = annotate(store, *identity, version, true).await?;
            let done = marked.is_some();
            outcome
                .marked
                .extend(marked.map(|version| (*identity, version)));
            Ok(done)
        }
        Action::Unmark(identity, version) => {
            Ok(annotate(store, *identity, version, false).await?.is_some())
        }
        Action::DeleteIdentity {
            identity,
            version,
            claim,
        } => {
            let name = NamespacedName::new("", identity.to_string());
            if !delete(store, Kind::CiliumIdentity, &name, version).await? {
                return Ok(false);
            }
            outcome.identities_deleted += 1;
            tracing::info!(%identity, "deleted an identity that nobody used");
            if let Some((claim, version)) = claim {
                // If this fails, the claim is dangling and found as such; agents heed that too.
                let name = NamespacedName::new("", claim.as_str());
                delete(store, Kind::IdentityClaim, &name, version).await?;
            }
            Ok(true)
        }
        Action::DeleteClaim(claim, version) => {
            let name = NamespacedName::new("", claim.as_str());
            delete(store, Kind::IdentityClaim, &name, version).await
        }
        Action::DeleteEndpoint(name, version) => {
            let deleted = delete(store, Kind::CiliumEndpoint, name, version).await?;
            if deleted {
                outcome.endpoints_deleted += 1;
                tracing::info!(endpoint = %name, "deleted an endpoint whose pod or node is gone");
            }
            Ok(deleted)
        }
        Action::DeleteReport(node, version) => {
            let name = NamespacedName::new("", node.as_str());
            let deleted = delete(store, Kind::NodePolicyReport, &name, version).await?;
            if deleted {
                tracing::info!(%node, "deleted the policy report of a node that is gone");
            }
            Ok(deleted)
        }
    }
}

/// Deletes an object as it was observed; false when it changed or is gone.
async fn delete(
    store: &dyn Store,
    kind: Kind,
    name: &NamespacedName,
    version: &Version,
) -> Result<bool, StoreError> {
    match store.delete(kind, name, Some(version)).await {
        Ok(()) => Ok(true),
        Err(StoreError::NotFound { .. } | StoreError::Conflict { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes or removes the mark on an identity as it was observed; its new version.
async fn annotate(
    store: &dyn Store,
    identity: Identity,
    version: &Version,
    mark: bool,
) -> Result<Option<Version>, StoreError> {
    let name = NamespacedName::new("", identity.to_string());
    let object = match store.get(Kind::CiliumIdentity, &name).await {
        Ok(object) if object.version == *version => object,
        Ok(_) | Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut value = object.value;
    let since = mark.then(|| rfc3339(crate::now()));
    Metadata::annotate(&mut value, UNUSED_SINCE, since);
    match store.update(Kind::CiliumIdentity, value).await {
        Ok(object) => Ok(Some(object.version)),
        Err(StoreError::NotFound { .. } | StoreError::Conflict { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
