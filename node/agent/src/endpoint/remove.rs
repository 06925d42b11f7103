//! DEL, GC, and undoing what a failed ADD did: all the same, and each part can be repeated.

use super::kernel_failure;
use super::orphans::{remove_orphan_of, remove_unlisted_orphans, retry_orphans};
use super::publish::withdraw;
use super::record::{AttachmentKey, Phase, Record};
use crate::agent::{Agent, blocking};
use crate::controller::{Controller, Next, RETRY_INTERVAL};
use crate::status::update_metrics;
use async_trait::async_trait;
use heddle_rpc::ApiError;
use heddle_rpc::cni::{DelParams, GcParams};
use heddle_rpc::pending;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

/// Carries out what was queued, and tries again what could not be removed.
pub(crate) struct Removals;

#[async_trait]
impl Controller for Removals {
    async fn work(&mut self, agent: &Arc<Agent>) -> Next {
        if !agent.health.is_ready() {
            return Next::Change;
        }
        delete_pending(agent).await;
        finish_removals(agent).await;
        retry_orphans(agent).await;
        Next::After(RETRY_INTERVAL)
    }
}

/// Detaches a container's interface. What is not there is gone already; what cannot be removed now
/// is removed later, so the answer is always yes.
pub(crate) async fn delete(agent: &Arc<Agent>, params: DelParams) -> Result<(), ApiError> {
    agent.health.must_be_ready()?;
    let agent = Arc::clone(agent);
    let task = tokio::spawn(async move {
        let key = AttachmentKey {
            container_id: params.container_id,
            interface: params.interface,
        };
        delete_key(&agent, &key).await;
    });
    task.await
        .map_err(|error| ApiError::new("agent/stopped", error.to_string()))
}

async fn delete_key(agent: &Arc<Agent>, key: &AttachmentKey) {
    let turn = agent.attachments.turn(key);
    let _turn = turn.lock().await;
    delete_in_turn(agent, key).await;
}

/// Removes all there is of an attachment, whose turn the caller holds.
async fn delete_in_turn(agent: &Arc<Agent>, key: &AttachmentKey) {
    // A removal that is stuck is tried again by the clock; it is on the disk.
    let _ = finish_leftover(agent, key).await;
    let wanted = key.clone();
    let known = agent
        .on_ledger(move |ledger| ledger.endpoints.by_key(&wanted).map(|it| it.record.clone()))
        .await;
    if let Some(record) = known {
        let _ = remove_record(agent, record).await;
    }
    if let Err(error) = remove_orphan_of(agent, key).await {
        tracing::warn!(container = %key.container_id, code = %error.code, "not removed yet: {}", error.message);
    }
}

/// Removes every attachment that the runtime does not list.
pub(crate) async fn collect_garbage(
    agent: &Arc<Agent>,
    params: GcParams,
) -> Result<usize, ApiError> {
    agent.health.must_be_ready()?;
    let valid: BTreeSet<AttachmentKey> = params
        .valid_attachments
        .into_iter()
        .map(|one| AttachmentKey {
            container_id: one.container_id,
            interface: one.interface,
        })
        .collect();
    remove_unlisted_orphans(agent, &valid).await;
    let stale: Vec<AttachmentKey> = agent
        .on_ledger(move |ledger| {
            ledger
                .endpoints
                .values()
                // An ADD under way is not on the runtime's list yet.
                .filter(|it| it.attached && !valid.contains(&it.record.key))
                .map(|it| it.record.key.clone())
                .collect()
        })
        .await;
    for key in &stale {
        tracing::info!(container = %key.container_id, interface = %key.interface, "the runtime does not list it any more: removed");
        delete_key(agent, key).await;
    }
    Ok(stale.len())
}

/// Carries out the deletions that the plugin queued while nobody listened.
async fn delete_pending(agent: &Arc<Agent>) {
    let queue = queue_of_deletions(agent);
    let listed = blocking(move || pending::list(&queue)).await;
    let entries = match listed {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(%error, "the queue of deletions cannot be read");
            return;
        }
    };
    for (path, deletion) in entries {
        match deletion {
            Ok(params) => {
                let key = AttachmentKey {
                    container_id: params.container_id,
                    interface: params.interface,
                };
                delete_queued(agent, path, &key).await;
            }
            Err(reason) => {
                let aside = path.with_extension("damaged");
                tracing::error!(path = %path.display(), %reason, "a queued deletion cannot be read; GC will remove the container, the file is set aside");
                let _ = std::fs::rename(&path, aside);
            }
        }
    }
}

/// Carries out a queued deletion, unless an ADD of the same attachment has withdrawn it since the queue was read.
async fn delete_queued(agent: &Arc<Agent>, path: PathBuf, key: &AttachmentKey) {
    let turn = agent.attachments.turn(key);
    let _turn = turn.lock().await;
    let file = path.clone();
    if !blocking(move || file.exists()).await {
        return;
    }
    delete_in_turn(agent, key).await;
    // From here on the endpoint's own record says that it has to go.
    let file = path.clone();
    if let Err(error) = blocking(move || std::fs::remove_file(file)).await {
        tracing::warn!(path = %path.display(), %error, "a deletion stays queued");
    }
}

/// Takes the deletion of an attachment from the queue, for an ADD of the same one, which the runtime asks for after
/// the DEL: carried out later, the deletion would remove what the ADD makes. True when there was one, so that what
/// is attached is to be removed first. The caller holds the attachment's turn.
///
/// # Errors
/// When it cannot be taken from there, so that it would still be carried out.
pub(super) async fn withdraw_deletion(
    agent: &Agent,
    key: &AttachmentKey,
) -> Result<bool, ApiError> {
    let queue = queue_of_deletions(agent);
    let deletion = DelParams {
        container_id: key.container_id.clone(),
        interface: key.interface.clone(),
    };
    let place = queue.display().to_string();
    blocking(move || pending::withdraw(&queue, &deletion))
        .await
        .map_err(|error| {
            ApiError::new(
                "agent/state-not-saved",
                format!(
                    "container {}, interface {}: a deletion that is queued in {place} cannot be taken from there: {error}",
                    key.container_id, key.interface
                ),
            )
            .help("see that the agent can write there; the runtime will try again")
        })
}

/// Where the plugin queues deletions.
fn queue_of_deletions(agent: &Agent) -> PathBuf {
    pending::directory(&agent.config.state_dir.join("agent.sock"))
}

/// Finishes a removal of this attachment that was begun earlier.
pub(super) async fn finish_leftover(
    agent: &Arc<Agent>,
    key: &AttachmentKey,
) -> Result<(), ApiError> {
    let leftover = agent
        .attachments
        .removals(|removals| removals.values().find(|record| record.key == *key).cloned());
    match leftover {
        Some(record) => remove_record(agent, record).await,
        None => Ok(()),
    }
}

/// Tries every unfinished removal again.
pub(super) async fn finish_removals(agent: &Arc<Agent>) {
    let unfinished: Vec<Record> = agent
        .attachments
        .removals(|removals| removals.values().cloned().collect());
    for record in unfinished {
        let turn = agent.attachments.turn(&record.key);
        // Somebody works on it already.
        let Ok(_turn) = turn.try_lock() else { continue };
        let still = agent
            .attachments
            .removals(|removals| removals.contains_key(&record.endpoint));
        if still {
            let _ = remove_record(agent, record).await;
        }
    }
}

/// Removes all there is of an endpoint. On failure it stays queued, and its record on the disk.
pub(super) async fn remove_record(agent: &Arc<Agent>, mut record: Record) -> Result<(), ApiError> {
    let id = record.endpoint;
    record.attachment = None;
    record.phase = Phase::Removing;
    agent
        .attachments
        .removals(|removals| removals.insert(id, record.clone()));
    let outcome = remove_parts(agent, &record).await;
    match &outcome {
        Ok(()) => {
            agent.attachments.removals(|removals| removals.remove(&id));
            agent
                .on_ledger(move |ledger| ledger.endpoints.free_id(id))
                .await;
            tracing::info!(pod = %record.pod, endpoint = id, container = %record.key.container_id, "endpoint removed");
        }
        Err(error) => {
            tracing::warn!(pod = %record.pod, endpoint = id, code = %error.code, "endpoint not removed yet: {}", error.message);
        }
    }
    update_metrics(agent).await;
    outcome
}

async fn remove_parts(agent: &Agent, record: &Record) -> Result<(), ApiError> {
    // With a full disk the removal goes on: after a crash the record, still there, is an endpoint
    // without a link, and removed as such.
    if let Err(error) = agent.attachments.save(record).await {
        tracing::warn!(pod = %record.pod, "{}", error.message);
    }
    let id = record.endpoint;
    agent
        .on_ledger(move |ledger| ledger.begin_removal(id))
        .await;
    let datapath = Arc::clone(&agent.datapath);
    blocking(move || datapath.remove_endpoint(id))
        .await
        .map_err(|error| kernel_failure(&error).object(format!("pod {}", record.pod)))?;
    agent
        .on_ledger(move |ledger| {
            ledger.forget_endpoint(id);
            ledger.reconcile();
        })
        .await;
    agent.attachments.addresses.release(record);
    withdraw(agent, record).await?;
    let (records, key) = (agent.attachments.records.clone(), record.key.clone());
    blocking(move || records.remove(id, &key))
        .await
        .map_err(|error| {
            ApiError::new(
                "agent/state-not-saved",
                format!("pod {}: its record cannot be removed: {error}", record.pod),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Node, eventually};

    fn deletion() -> DelParams {
        DelParams {
            container_id: "c1".into(),
            interface: "eth0".into(),
        }
    }

    /// Queues the deletion as the plugin does; gives the queue.
    fn queue_it(node: &Node) -> PathBuf {
        let queue = pending::directory(&node.state().join("agent.sock"));
        pending::record(&queue, &deletion()).unwrap();
        queue
    }

    #[tokio::test]
    async fn a_queued_deletion_does_not_reach_a_later_attachment() {
        let node = Node::start().await;
        node.pod("shop", "web", &[]).await;
        let queue = queue_it(&node);
        node.add("c1", "shop", "web").await.unwrap();
        assert!(pending::list(&queue).unwrap().is_empty());
        let _ = Removals.work(&node.agent()).await;
        assert_eq!(node.datapath.kernel().attached.len(), 1);
        assert_eq!(node.agent().attachments.addresses.leased(), 1);
    }

    #[tokio::test]
    async fn an_attachment_whose_deletion_is_queued_is_made_anew() {
        let node = Node::start().await;
        node.pod("shop", "web", &[]).await;
        node.add("c1", "shop", "web").await.unwrap();
        node.datapath.take_calls();
        let queue = queue_it(&node);
        node.add("c1", "shop", "web").await.unwrap();
        let calls = node.datapath.take_calls();
        let place = |call: &str| calls.iter().position(|it| it.starts_with(call));
        let (removed, made) = (place("remove_endpoint"), place("create_link"));
        assert!(removed.is_some() && removed < made, "{calls:?}");
        assert!(pending::list(&queue).unwrap().is_empty());
        assert_eq!(node.datapath.kernel().attached.len(), 1);
    }

    #[tokio::test]
    async fn a_deletion_that_is_withdrawn_while_it_waits_for_its_turn_is_not_carried_out() {
        let node = Node::start().await;
        node.pod("shop", "web", &[]).await;
        node.add("c1", "shop", "web").await.unwrap();
        let agent = node.agent();
        let key = AttachmentKey {
            container_id: "c1".into(),
            interface: "eth0".into(),
        };
        let turn = agent.attachments.turn(&key);
        let held = turn.lock().await;
        queue_it(&node);
        let working = tokio::spawn({
            let agent = Arc::clone(&agent);
            async move { delete_pending(&agent).await }
        });
        // This test and the agent's list have one each.
        eventually("waiting for its turn", || async {
            Arc::strong_count(&turn) > 2
        })
        .await;
        assert!(withdraw_deletion(&agent, &key).await.unwrap());
        drop(held);
        working.await.unwrap();
        assert_eq!(node.datapath.kernel().attached.len(), 1);
        assert!(!withdraw_deletion(&agent, &key).await.unwrap());
    }

    #[tokio::test]
    async fn an_add_whose_queued_deletion_stays_fails() {
        let node = Node::start().await;
        node.pod("shop", "web", &[]).await;
        // A file where the directory should be refuses everything, also for root.
        let queue = pending::directory(&node.state().join("agent.sock"));
        std::fs::write(&queue, "").unwrap();
        let error = node.add("c1", "shop", "web").await.unwrap_err();
        assert_eq!(error.code, "agent/state-not-saved");
        assert!(error.message.contains("cni-pending"), "{error}");
        std::fs::remove_file(&queue).unwrap();
        node.add("c1", "shop", "web").await.unwrap();
    }
}
