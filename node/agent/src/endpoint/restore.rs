//! Taking over what a former run left: endpoints keep what they have, leftovers go.

use super::addresses::owner;
use super::kernel_failure;
use super::orphan::Orphan;
use super::orphans::{addresses, remove_orphan, tell_of_orphans};
use super::record::{AttachmentKey, DamagedRecord, LinkRecord, Phase, Record};
use super::remove::remove_record;
use super::table::LocalEndpoint;
use crate::agent::{Agent, blocking, lock, within};
use crate::controller::{Controller, Next, RETRY_INTERVAL};
use crate::ledger::{Ledger, as_compiled};
use async_trait::async_trait;
use heddle_datapath::RealisedEndpoint;
use heddle_ipam::{Lease, Owner};
use heddle_kube::store::{Kind, Scope};
use heddle_model::{Identity, LabelSet, NamespacedName};
use heddle_rpc::ApiError;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the store is waited for in all while nobody is served yet.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(10);

/// Takes over what a former run left, once the store has said what that takes.
pub(crate) struct Restoration;

#[async_trait]
impl Controller for Restoration {
    async fn work(&mut self, agent: &Arc<Agent>) -> Next {
        if agent.health.is_ready() {
            return Next::Change;
        }
        let missing = agent.on_ledger(|ledger| what_is_missing(ledger)).await;
        if let Some(missing) = missing {
            if agent.health.waits_for(missing) {
                tracing::info!(node = %agent.config.node_name, "{missing}");
            }
            return Next::Change;
        }
        if let Err(error) = take_over(agent).await {
            tracing::error!(code = %error.code, "not ready: {}", error.message);
            agent.health.waits_for(&error.message);
            return Next::After(RETRY_INTERVAL);
        }
        Next::Change
    }
}

/// What has to be heard before a former run's state can be taken over.
fn what_is_missing(ledger: &Ledger) -> Option<&'static str> {
    if !ledger.heard.is_complete() {
        return Some("waiting for the store's first complete answer");
    }
    match ledger.peers.nodes.own() {
        None => Some("waiting for its Node object in the store"),
        Some(node) if node.pod_cidrs.is_empty() => {
            Some("waiting for the operator to write spec.podCIDRs of its Node")
        }
        Some(node) if node.internal().is_empty() => {
            Some("waiting for an InternalIP in status.addresses of its Node")
        }
        Some(_) => None,
    }
}

/// Takes over the former run's state and becomes ready. Called when the store has been heard in full
/// and this node's pod ranges are known.
///
/// Nothing that runs is cut: policies and ipcache rows are compared with the kernel's and only
/// differences are written, additions before removals.
async fn take_over(agent: &Arc<Agent>) -> Result<(), ApiError> {
    let started = Instant::now();
    let records = agent.attachments.records.clone();
    let (mut records, damaged) = blocking(move || records.load()).await.map_err(|error| {
        ApiError::new(
            "agent/state-unreadable",
            format!(
                "the endpoints below {} cannot be read: {error}",
                agent.config.state_dir.display()
            ),
        )
        .help("correct the directory's permissions or file system, then restart the agent")
    })?;
    let datapath = Arc::clone(&agent.datapath);
    let kernel = blocking(move || datapath.endpoints())
        .await
        .map_err(|error| kernel_failure(&error))?;
    let kernel: BTreeMap<u16, RealisedEndpoint> = kernel
        .into_iter()
        .map(|it| (it.facts.endpoint, it))
        .collect();
    let mut orphans = recover_damaged(agent, &damaged, &kernel, &mut records).await?;
    let undecided = !orphans.is_empty();
    // Where two records want one address, the one that the kernel agrees with has it, then the newer.
    records.sort_by_key(|record| {
        let agrees = kernel
            .get(&record.endpoint)
            .is_some_and(|it| (it.facts.ipv4, it.facts.ipv6) == (record.ipv4, record.ipv6));
        (!agrees, std::cmp::Reverse(record.generation))
    });

    // Rows of a former run for these addresses stay.
    let datapath = Arc::clone(&agent.datapath);
    let addresses_of_node = blocking(move || datapath.node_addresses(Duration::ZERO))
        .await
        .map_err(|error| kernel_failure(&error))?;
    agent
        .on_ledger(move |ledger| ledger.set_device_addresses(addresses_of_node))
        .await;

    let ids: Vec<u16> = records.iter().map(|record| record.endpoint).collect();
    let kernel_ids: Vec<u16> = kernel.keys().copied().collect();
    let blocks = agent
        .on_ledger(move |ledger| {
            for id in ids.into_iter().chain(kernel_ids) {
                ledger.endpoints.reserve_id(id);
            }
            ledger.peers.nodes.own().map(|node| node.pod_cidrs.clone())
        })
        .await
        .unwrap_or_default();
    let leases = records
        .iter()
        .map(|record| Lease {
            owner: owner(&record.key),
            ipv4: record.ipv4,
            ipv6: record.ipv6,
            generation: record.generation,
        })
        .collect();
    let refused = agent.attachments.addresses.restore(
        &blocks,
        agent.config.address_cooldown_seconds,
        leases,
    )?;
    for error in refused {
        tracing::error!(%error, "an address lease could not be restored");
    }

    let mut keys = BTreeSet::new();
    let (attached, leftovers): (Vec<Record>, Vec<Record>) =
        records.into_iter().partition(|record| {
            let first = keys.insert(record.key.clone());
            let holds = first && agent.attachments.addresses.holds(record);
            if !holds {
                tracing::error!(pod = %record.pod, endpoint = record.endpoint, "another record has its addresses or its attachment: removed");
            }
            holds && record.phase == Phase::Attached && record.link.is_some()
        });
    let known: BTreeSet<u16> = attached
        .iter()
        .chain(&leftovers)
        .map(|record| record.endpoint)
        .collect();
    // What the kernel holds is nobody else's, whatever the records say.
    for (id, realised) in kernel.iter().filter(|(id, _)| !known.contains(id)) {
        let at = orphans.iter().position(|it| it.endpoint == Some(*id));
        let orphan = match at {
            Some(at) => orphans.swap_remove(at),
            None => Orphan::of_kernel(&realised.facts, None),
        };
        agent
            .attachments
            .addresses
            .reserve(&orphan.owner, addresses(&realised.facts));
        orphans.push(orphan);
    }
    *lock(&agent.attachments.orphans) = orphans;
    let total = attached.len();
    let held: BTreeSet<u16> = attached.iter().map(|record| record.endpoint).collect();
    let unattached = take_over_endpoints(agent, attached, &kernel).await?;
    attach_again(agent, unattached).await;
    for record in leftovers {
        tracing::info!(pod = %record.pod, endpoint = record.endpoint, phase = ?record.phase, "unfinished endpoint of a former run: removed");
        if held.contains(&record.endpoint) {
            // The endpoint is another's: the file alone goes.
            let records = agent.attachments.records.clone();
            let _ = blocking(move || records.remove(record.endpoint, &record.key)).await;
        } else {
            let _ = remove_record(agent, record).await;
        }
    }
    for id in kernel.keys().filter(|id| !known.contains(id)) {
        if undecided {
            tracing::warn!(
                endpoint = id,
                "kept although no record names it: a damaged record may be about it"
            );
            continue;
        }
        remove_unknown(agent, *id).await;
    }
    tell_of_orphans(agent);
    agent.health.started();
    agent.metrics.set_ready(true);
    let blocks = agent
        .on_ledger(|ledger| {
            ledger.progress.set_ready();
            ledger.tell();
            ledger.peers.nodes.own().map(|node| node.pod_cidrs.clone())
        })
        .await;
    // They may have changed meanwhile.
    agent
        .attachments
        .addresses
        .set_blocks(&blocks.unwrap_or_default());
    tracing::info!(
        node = %agent.config.node_name, endpoints = total,
        milliseconds = started.elapsed().as_millis() as u64, "ready"
    );
    Ok(())
}

/// Makes endpoints known and brings the kernel to what is wished; returns those whose programs are
/// not attached.
async fn take_over_endpoints(
    agent: &Arc<Agent>,
    attached: Vec<Record>,
    kernel: &BTreeMap<u16, RealisedEndpoint>,
) -> Result<Vec<Record>, ApiError> {
    let deadline = Instant::now() + RESTORE_TIMEOUT;
    let mut endpoints = Vec::new();
    let mut unattached = Vec::new();
    for record in attached {
        let id = record.endpoint;
        let (identity, labels) = identity_of_record(agent, &record, deadline).await;
        let mut endpoint = LocalEndpoint::new(record.clone(), identity, labels);
        match kernel.get(&id) {
            Some(realised) => {
                let datapath = Arc::clone(&agent.datapath);
                let policy = blocking(move || datapath.policy(id))
                    .await
                    .map_err(|error| kernel_failure(&error))?;
                endpoint.policy = as_compiled(policy).map(Arc::new);
                endpoint.facts = Some(realised.facts.clone());
                endpoint.attached = realised.attached;
            }
            None => {
                tracing::warn!(pod = %record.pod, endpoint = id, "the kernel does not have it any more")
            }
        }
        if !endpoint.attached {
            unattached.push(record);
        }
        endpoints.push(endpoint);
    }
    let changed: Vec<u16> = endpoints
        .iter()
        .filter(|it| it.identity.0 != it.record.identity)
        .map(|it| it.record.endpoint)
        .collect();
    let done = agent
        .on_ledger(move |ledger| {
            for endpoint in endpoints {
                // An identity whose labels nobody knows stays unknown: it is isolated.
                let known = !endpoint.labels.is_empty();
                let identity = endpoint.identity;
                // Its labels may have changed meanwhile.
                ledger.unsettled.relabel.insert(endpoint.record.endpoint);
                ledger.add_endpoint(endpoint);
                if !known {
                    ledger.disown_identity(identity);
                }
            }
            ledger.unsettled.republish.extend(changed);
            ledger.progress.set_restored();
            ledger.reconcile()
        })
        .await;
    if !done {
        tracing::error!("not everything that is wished could be written; it is tried again");
    }
    Ok(unattached)
}

/// The identity of a pod's labels as they are now; what it had when the store does not say.
async fn identity_of_record(
    agent: &Agent,
    record: &Record,
    deadline: Instant,
) -> (Identity, Arc<LabelSet>) {
    let identity = Identity(record.identity);
    let name = record.pod.clone();
    let (pod, namespace, before) = agent
        .on_ledger(move |ledger| {
            (
                ledger.pods.get(&name).map(|pod| pod.value.clone()),
                ledger.pods.namespace(&name.namespace).cloned(),
                ledger.labels_of(identity).cloned(),
            )
        })
        .await;
    let same_pod = |value: &serde_json::Value| match (
        record.pod_uid.as_deref(),
        value["metadata"]["uid"].as_str(),
    ) {
        (Some(mine), Some(has)) => mine == has,
        _ => true,
    };
    if let Some(pod) = pod.filter(same_pod) {
        let labels = agent
            .identities
            .labels_of(&pod, &namespace.unwrap_or_default());
        if before.as_ref() == Some(&labels) {
            return (identity, Arc::new(labels));
        }
        match agent.identities.allocate(&labels, deadline).await {
            Ok(identity) => return (identity, Arc::new(labels)),
            Err(error) => {
                tracing::warn!(pod = %record.pod, "its identity could not be looked up: {}", error.message);
            }
        }
    }
    // The number may stand for other labels by now: those that it was given for count.
    let recorded = LabelSet::from_strings(record.labels.iter().map(String::as_str));
    let recorded = recorded.filter(|labels| !labels.is_empty());
    if let (Some(labels), Some(before)) = (&recorded, &before)
        && labels != before
        && let Ok(own) = agent.identities.allocate(labels, deadline).await
    {
        return (own, Arc::new(labels.clone()));
    }
    (identity, Arc::new(recorded.or(before).unwrap_or_default()))
}

/// Attaches programs that are missing; an endpoint whose link is gone is removed.
async fn attach_again(agent: &Arc<Agent>, unattached: Vec<Record>) {
    for record in unattached {
        let (id, link) = (record.endpoint, record.link.clone());
        let Some(LinkRecord { ifindex, .. }) = link else {
            continue;
        };
        let datapath = Arc::clone(&agent.datapath);
        match blocking(move || datapath.attach(id, ifindex)).await {
            Ok(()) => {
                agent
                    .on_ledger(move |ledger| {
                        if let Some(endpoint) = ledger.endpoints.get_mut(id) {
                            endpoint.attached = true;
                        }
                    })
                    .await;
            }
            Err(error) => {
                tracing::warn!(pod = %record.pod, endpoint = id, %error, "its link is gone: removed");
                let _ = remove_record(agent, record).await;
            }
        }
    }
}

async fn remove_unknown(agent: &Arc<Agent>, id: u16) {
    let orphan = lock(&agent.attachments.orphans)
        .iter()
        .find(|it| it.endpoint == Some(id))
        .cloned();
    let Some(orphan) = orphan else { return };
    if let Err(error) = remove_orphan(agent, orphan).await {
        tracing::error!(endpoint = id, %error, "not removed; its id and its addresses stay reserved");
    }
}

/// Rebuilds records whose file is damaged from the kernel and the store. Those that could not be rebuilt: an
/// endpoint without a record may be theirs.
async fn recover_damaged(
    agent: &Agent,
    damaged: &[DamagedRecord],
    kernel: &BTreeMap<u16, RealisedEndpoint>,
    records: &mut Vec<Record>,
) -> Result<Vec<Orphan>, ApiError> {
    if damaged.is_empty() {
        return Ok(Vec::new());
    }
    let published = within(
        Instant::now() + RESTORE_TIMEOUT,
        agent.store.list(&Scope::all(Kind::CiliumEndpoint)),
    )
    .await
    .map_err(|error| crate::agent::store_failure(&error, "CiliumEndpoints"))?;
    let mut undecided = Vec::new();
    // What an intact record names is that record's, whatever a damaged file is called.
    let intact: BTreeSet<u16> = records.iter().map(|record| record.endpoint).collect();
    let in_kernel = |id: &u16| kernel.get(id).filter(|_| !intact.contains(id));
    for file in damaged {
        let taken = |key: &AttachmentKey| records.iter().any(|record| record.key == *key);
        let rebuilt = file.named.as_ref().and_then(|(id, key)| {
            if taken(key) {
                return None;
            }
            let facts = &in_kernel(id)?.facts;
            let object = published.iter().find(|object| {
                let identifiers = &object.value["status"]["external-identifiers"];
                identifiers["container-id"] == key.container_id.as_str()
            })?;
            Some(Record {
                version: Record::VERSION,
                key: key.clone(),
                phase: Phase::Attached,
                endpoint: *id,
                netns: std::path::PathBuf::new(),
                pod: NamespacedName::new(&object.name.namespace, &object.name.name),
                pod_uid: None,
                ipv4: facts.ipv4,
                ipv6: facts.ipv6,
                generation: 0,
                identity: facts.identity.0,
                link: Some(LinkRecord {
                    ifindex: facts.ifindex,
                    mac: facts.mac,
                    host_mac: facts.host_mac,
                }),
                labels: strings(&object.value["status"]["identity"]["labels"]),
                attachment: None,
            })
        });
        match rebuilt {
            Some(record) => {
                tracing::error!(path = %file.path.display(), reason = %file.reason, pod = %record.pod, "damaged endpoint record, rebuilt from the kernel and the store");
                agent.attachments.save(&record).await?;
                records.push(record);
                let _ = std::fs::remove_file(&file.path);
            }
            None if file
                .named
                .as_ref()
                .is_some_and(|(id, _)| in_kernel(id).is_none()) =>
            {
                // Kept, it would be taken for a later endpoint with the same number.
                tracing::error!(path = %file.path.display(), reason = %file.reason, "damaged endpoint record of an endpoint that the kernel does not have: removed");
                let _ = std::fs::remove_file(&file.path);
            }
            None => {
                tracing::error!(path = %file.path.display(), reason = %file.reason, "damaged endpoint record");
                let named = file.stem.split_once('-');
                let id = named.and_then(|(id, _)| id.parse::<u16>().ok());
                let of_file = Some((file.path.clone(), file.stem.clone()));
                undecided.push(match id.and_then(|id| in_kernel(&id)) {
                    Some(realised) => Orphan::of_kernel(&realised.facts, of_file),
                    None => Orphan {
                        endpoint: None,
                        file: of_file,
                        owner: Owner::new(&file.stem, "damaged record"),
                    },
                });
            }
        }
    }
    Ok(undecided)
}

fn strings(list: &serde_json::Value) -> Vec<String> {
    let items = list.as_array().into_iter().flatten();
    items
        .filter_map(|item| Some(item.as_str()?.to_owned()))
        .collect()
}
