//! Settling identities with the store: what it lost is made again, and endpoints whose labels changed get the
//! identity of these.

use super::allocate;
use crate::agent::{Agent, within};
use crate::controller::{Controller, Next, RETRY_INTERVAL, STORE_TIMEOUT};
use crate::ledger::Ledger;
use async_trait::async_trait;
use heddle_kube::store::Object;
use heddle_model::{Identity, LabelSet};
use heddle_rpc::{ApiError, error_codes};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::task::JoinSet;

/// Endpoints whose labels are looked up in the store at once.
const AT_ONCE: usize = 16;

/// Makes identities again that the store lost.
pub(crate) struct Reasserter;

#[async_trait]
impl Controller for Reasserter {
    async fn work(&mut self, agent: &Arc<Agent>) -> Next {
        if !agent.health.is_ready() || reassert_identities(agent).await {
            Next::Change
        } else {
            Next::After(RETRY_INTERVAL)
        }
    }
}

/// Follows changes of labels. No endpoint waits for what another one waits for.
#[derive(Default)]
pub(crate) struct Relabeler {
    running: JoinSet<()>,
}

#[async_trait]
impl Controller for Relabeler {
    async fn work(&mut self, agent: &Arc<Agent>) -> Next {
        if !agent.health.is_ready() {
            return Next::Change;
        }
        while let Some(ended) = self.running.try_join_next() {
            if let Err(error) = ended
                && let Ok(panic) = error.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        }
        let places = AT_ONCE.saturating_sub(self.running.len());
        let (due, is_all) = agent
            .on_ledger(move |ledger| {
                ledger.unsettled.retry_limited();
                let due = begin_relabels(ledger, places);
                let limited = ledger.unsettled.limited().next().is_some();
                (due, !limited && ledger.unsettled.relabel.is_empty())
            })
            .await;
        for relabel in due {
            let agent = Arc::clone(agent);
            // It wakes this controller when it is done.
            self.running
                .spawn(async move { relabel_endpoint(&agent, relabel).await });
        }
        if is_all {
            Next::Change
        } else {
            Next::ChangeOrAfter(RETRY_INTERVAL)
        }
    }
}

/// Takes up what is due; what needs nothing is done.
fn begin_relabels(ledger: &mut Ledger, places: usize) -> Vec<Relabel> {
    let mut due = Vec::new();
    let mut done = false;
    while due.len() < places {
        let begun = ledger.unsettled.relabel.begin(places - due.len());
        if begun.is_empty() {
            break;
        }
        for id in begun {
            if let Some(relabel) = relabel_of(ledger, id) {
                due.push(relabel);
            } else {
                ledger.unsettled.end_limit(id);
                ledger.unsettled.relabel.done(id);
                done = true;
            }
        }
    }
    if done {
        ledger.tell();
    }
    due
}

/// An endpoint whose labels are to be looked at again.
struct Relabel {
    endpoint: u16,
    /// Its pod; `None` where that is gone, and the endpoint keeps its labels.
    pod: Option<Object>,
    namespace: BTreeMap<String, String>,
    identity: Identity,
    labels: Arc<LabelSet>,
    /// It needs another number whatever its labels are.
    contested: bool,
}

/// What is to be looked at; `None` where the endpoint needs nothing.
fn relabel_of(ledger: &Ledger, id: u16) -> Option<Relabel> {
    let endpoint = ledger.endpoints.get(id)?;
    let contested = ledger.unsettled.contested(endpoint.identity).is_some()
        || endpoint.identity == Identity::INIT;
    let pod = ledger.pods.get(&endpoint.record.pod).filter(|pod| {
        // A pod of the same name that came after it has an endpoint of its own.
        let uid = pod.value["metadata"]["uid"].as_str();
        !matches!((uid, endpoint.record.pod_uid.as_deref()), (Some(has), Some(mine)) if has != mine)
    });
    if pod.is_none() && !contested {
        return None;
    }
    let namespace = ledger.pods.namespace(&endpoint.record.pod.namespace);
    Some(Relabel {
        endpoint: id,
        pod: pod.cloned(),
        namespace: namespace.cloned().unwrap_or_default(),
        identity: endpoint.identity,
        labels: Arc::clone(&endpoint.labels),
        contested,
    })
}

/// Makes identities again that local endpoints have and the store has lost. A number that went to others
/// meanwhile is given up: its endpoints get another. False when some could not be made; they stay due.
async fn reassert_identities(agent: &Agent) -> bool {
    let due = agent
        .on_ledger(|ledger| {
            let mut due = Vec::new();
            for identity in ledger.unsettled.reassert.begin(usize::MAX) {
                match ledger.endpoints.labels_of(identity) {
                    Some(labels) => due.push((identity, labels)),
                    // Nobody can say what it stands for.
                    None => ledger.unsettled.reassert.failed(identity),
                }
            }
            due
        })
        .await;
    let deadline = Instant::now() + STORE_TIMEOUT;
    let mut all = true;
    for (identity, labels) in due {
        let outcome = within(
            deadline,
            agent.identities.allocator.reassert(identity, &labels),
        )
        .await;
        match &outcome {
            Ok(true) => {
                tracing::warn!(%identity, labels = %labels, "made again: it was deleted while pods of this node have it");
            }
            Ok(false) => agent.identities.allocator.forget(identity),
            Err(error) => {
                tracing::warn!(%identity, %error, "an identity that pods of this node have is gone, and cannot be made again yet");
                all = false;
            }
        }
        agent
            .on_ledger(move |ledger| match outcome {
                Ok(is_ours) => {
                    if !is_ours {
                        ledger.give_up_identity(identity);
                    }
                    ledger.unsettled.reassert.done(identity);
                    ledger.tell();
                }
                Err(_) => ledger.unsettled.reassert.failed(identity),
            })
            .await;
    }
    all
}

/// Gives a local endpoint whose pod or namespace changed the identity of its labels. What fails stays due.
async fn relabel_endpoint(agent: &Agent, relabel: Relabel) {
    let id = relabel.endpoint;
    let deadline = Instant::now() + STORE_TIMEOUT;
    let outcome = follow_labels(agent, &relabel, deadline).await;
    agent.on_ledger(move |ledger| {
        match outcome {
            Ok(()) => ledger.unsettled.end_limit(id),
            // Its namespace's own matter: nobody waits for it.
            Err(error) if is_limit(&error) => {
                // It may have gone meanwhile.
                if ledger.endpoints.contains(id) {
                    ledger.unsettled.limit(id, error.message);
                }
            }
            Err(error) => {
                tracing::warn!(endpoint = id, code = %error.code, "changed labels are not in force yet: {}", error.message);
                return ledger.unsettled.relabel.failed(id);
            }
        }
        ledger.unsettled.relabel.done(id);
        ledger.tell();
    })
    .await;
}

async fn follow_labels(
    agent: &Agent,
    relabel: &Relabel,
    deadline: Instant,
) -> Result<(), ApiError> {
    let kept = &relabel.labels;
    let labels = match &relabel.pod {
        Some(pod) => agent.identities.labels_of(&pod.value, &relabel.namespace),
        None => LabelSet::clone(kept),
    };
    if labels == **kept && !relabel.contested {
        return Ok(());
    }
    if relabel.contested {
        agent.identities.allocator.forget(relabel.identity);
    }
    let id = relabel.endpoint;
    match agent.identities.allocate(&labels, deadline).await {
        Ok(identity) => move_endpoint(agent, id, identity, labels).await,
        Err(error) if is_limit(&error) => follow_namespace(agent, id, kept, &labels, deadline)
            .await
            .and(Err(error)),
        Err(error) => Err(error),
    }
}

/// Gives an endpoint the identity of other labels.
async fn move_endpoint(
    agent: &Agent,
    id: u16,
    identity: Identity,
    labels: LabelSet,
) -> Result<(), ApiError> {
    tracing::info!(endpoint = id, %identity, "labels changed");
    let labels = Arc::new(labels);
    let moved = agent
        .on_ledger(move |ledger| {
            if ledger.stands_for_others(identity, &labels) {
                return Err(());
            }
            ledger.relabel_endpoint(id, identity, labels);
            if ledger.endpoints.contains(id) {
                ledger.unsettled.republish.insert(id);
            }
            ledger.reconcile();
            let endpoint = ledger.endpoints.get(id);
            let attached = endpoint.filter(|it| it.attached && !it.leaving);
            Ok(attached.map(|it| it.record.clone()))
        })
        .await;
    let Ok(record) = moved else {
        agent.identities.allocator.forget(identity);
        return Err(other_labels(identity));
    };
    if let Some(record) = record
        && let Err(error) = agent.attachments.save(&record).await
    {
        tracing::warn!(endpoint = id, "{}", error.message);
    }
    Ok(())
}

/// The limits are about the labels that a pod's own writers choose. What the administrator of its namespace says
/// of the namespace counts at once, with the pod's labels as they were.
async fn follow_namespace(
    agent: &Agent,
    id: u16,
    kept: &LabelSet,
    wanted: &LabelSet,
    deadline: Instant,
) -> Result<(), ApiError> {
    let labels = kept.with_namespace_of(wanted);
    if labels == *kept {
        return Ok(());
    }
    let unlimited = agent.identities.allocator.unlimited();
    let identity = allocate(&unlimited, &labels, deadline).await?;
    move_endpoint(agent, id, identity, labels).await
}

/// A limit of the pod's namespace keeps its labels from an identity.
fn is_limit(error: &ApiError) -> bool {
    matches!(
        error.code.as_str(),
        "identity/too-many" | "identity/too-fast"
    )
}

/// A number that went to other labels between the answer and its use.
fn other_labels(identity: Identity) -> ApiError {
    ApiError::new(
        error_codes::TRY_AGAIN,
        format!("identity {identity} stands for other labels by now"),
    )
    .help("nothing was opened; the next attempt gets another number")
}
