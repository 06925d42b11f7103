//! Endpoints of the kernel that no record names, and files that cannot be read: their addresses are nobody
//! else's until they are gone.

use super::kernel_failure;
use super::orphan::Orphan;
use super::record::AttachmentKey;
use crate::agent::{Agent, blocking, lock};
use heddle_datapath::Facts;
use heddle_rpc::ApiError;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// The addresses of facts.
pub(super) fn addresses(facts: &Facts) -> impl Iterator<Item = IpAddr> + use<> {
    let (v4, v6) = (facts.ipv4.map(IpAddr::V4), facts.ipv6.map(IpAddr::V6));
    v4.into_iter().chain(v6)
}

/// Removes what is left of an attachment whose record is damaged.
pub(super) async fn remove_orphan_of(
    agent: &Arc<Agent>,
    key: &AttachmentKey,
) -> Result<(), ApiError> {
    let found = lock(&agent.attachments.orphans)
        .iter()
        .find(|it| it.is_of(key))
        .cloned();
    match found {
        Some(orphan) => remove_orphan(agent, orphan).await,
        None => Ok(()),
    }
}

/// Removes the orphans whose attachment the runtime does not list. One that does not tell its attachment
/// goes when all that are listed are accounted for.
pub(super) async fn remove_unlisted_orphans(agent: &Arc<Agent>, listed: &BTreeSet<AttachmentKey>) {
    let all = lock(&agent.attachments.orphans).clone();
    if all.is_empty() {
        return;
    }
    let wanted = listed.clone();
    let unknown: Vec<AttachmentKey> = agent
        .on_ledger(move |ledger| {
            let unknown = wanted.into_iter();
            unknown
                .filter(|key| ledger.endpoints.by_key(key).is_none())
                .collect()
        })
        .await;
    let unexplained = unknown
        .iter()
        .any(|key| !all.iter().any(|orphan| orphan.is_of(key)));
    for orphan in all {
        let goes = if orphan.tells_attachment() {
            !listed.iter().any(|key| orphan.is_of(key))
        } else {
            !unexplained
        };
        if goes {
            // What fails stays, and is tried at the next look.
            let _ = remove_orphan(agent, orphan).await;
        }
    }
}

/// Tries again to remove what no record names. While a damaged file may be about it, it stays.
pub(crate) async fn retry_orphans(agent: &Arc<Agent>) {
    let all = lock(&agent.attachments.orphans).clone();
    if all.iter().any(|orphan| orphan.file.is_some()) {
        return;
    }
    for orphan in all {
        let _ = remove_orphan(agent, orphan).await;
    }
}

pub(super) async fn remove_orphan(agent: &Arc<Agent>, orphan: Orphan) -> Result<(), ApiError> {
    if let Some(id) = orphan.endpoint {
        let datapath = Arc::clone(&agent.datapath);
        blocking(move || datapath.remove_endpoint(id))
            .await
            .map_err(|error| kernel_failure(&error).object(format!("endpoint {id}")))?;
        agent
            .on_ledger(move |ledger| ledger.endpoints.free_id(id))
            .await;
        tracing::info!(endpoint = id, "removed from the kernel: no record names it");
    }
    agent.attachments.addresses.release_owner(&orphan.owner, 0);
    if let Some((path, _)) = &orphan.file
        && let Err(error) = std::fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "a damaged endpoint record cannot be removed");
    }
    lock(&agent.attachments.orphans)
        .retain(|it| it.endpoint != orphan.endpoint || it.file != orphan.file);
    tell_of_orphans(agent);
    Ok(())
}

/// Says which pods cannot be managed.
pub(super) fn tell_of_orphans(agent: &Agent) {
    let names: Vec<String> = lock(&agent.attachments.orphans)
        .iter()
        .map(|orphan| match (&orphan.file, orphan.endpoint) {
            (Some((path, _)), _) => path.display().to_string(),
            (None, Some(id)) => format!("endpoint {id} of the kernel"),
            (None, None) => String::new(),
        })
        .collect();
    agent.health.notice(
        "records",
        (!names.is_empty()).then(|| {
            format!(
                "damaged or missing endpoint records: {}; their pods keep their network and addresses but cannot be managed: delete the pods, and DEL or GC removes what is left",
                names.join(", ")
            )
        }),
    );
}
