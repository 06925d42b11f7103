//! ADD: a transaction. Nothing passes before policy is in force, and what fails is undone in reverse.

use super::kernel_failure;
use super::orphans::remove_orphan_of;
use super::publish::publish;
use super::record::{AttachmentKey, LinkRecord, Phase, Record};
use super::remove::{finish_leftover, remove_record, withdraw_deletion};
use super::step::Step;
use super::table::{LAST_ENDPOINT_ID, LocalEndpoint};
use crate::addresses::peers::IPCACHE;
use crate::agent::{Agent, blocking};
use crate::identities::pod_labels;
use crate::status::update_metrics;
use heddle_datapath::{LinkSpec, PodLink};
use heddle_ipam::Family;
use heddle_model::{Identity, LabelSet, NamespacedName};
use heddle_rpc::cni::{AddParams, AttachedAddress, Attachment};
use heddle_rpc::{ApiError, error_codes};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Seconds that the agent works on an ADD at most, however long the runtime would wait.
const ADD_TIMEOUT_SECONDS: u64 = 30;
/// Seconds for a pod to appear in the store: the runtime may know it before the agent does.
const POD_TIMEOUT: Duration = Duration::from_secs(5);

/// Tells how long each step of an ADD takes.
struct Clock<'a> {
    agent: &'a Agent,
    last: Instant,
}

impl<'a> Clock<'a> {
    fn start(agent: &'a Agent) -> Self {
        Self {
            agent,
            last: Instant::now(),
        }
    }

    async fn reach(&mut self, step: Step) -> Result<(), ApiError> {
        let now = Instant::now();
        let took = now.duration_since(self.last);
        self.agent.metrics.cni_step(step.name(), took);
        self.last = now;
        self.agent.attachments.reach(step).await
    }
}

/// Attaches a container's interface. The same request again gives the same answer.
///
/// # Errors
/// What failed, on which pod, why, and what to try; everything is undone then.
pub(crate) async fn add(agent: &Arc<Agent>, params: AddParams) -> Result<Attachment, ApiError> {
    agent.health.must_be_ready()?;
    let agent = Arc::clone(agent);
    // In a task of its own: a runtime that hangs up does not leave a half-done ADD behind.
    match tokio::spawn(async move { add_alone(&agent, params).await }).await {
        Ok(answer) => answer,
        Err(error) => Err(ApiError::new("agent/stopped", error.to_string())),
    }
}

/// ADD while nobody else works on the same attachment.
pub(crate) async fn add_alone(
    agent: &Arc<Agent>,
    params: AddParams,
) -> Result<Attachment, ApiError> {
    let pod = params.pod.clone().ok_or_else(|| {
        ApiError::new(
            error_codes::INVALID,
            format!("container {}: no pod is named", params.container_id),
        )
        .field("CNI_ARGS")
        .help("the runtime must set K8S_POD_NAMESPACE and K8S_POD_NAME")
    })?;
    let name = NamespacedName::new(pod.namespace, pod.name);
    let key = AttachmentKey {
        container_id: params.container_id.clone(),
        interface: params.interface.clone(),
    };
    let turn = agent.attachments.turn(&key);
    let _turn = turn.lock().await;
    let deadline =
        Instant::now() + Duration::from_secs(params.deadline_seconds.min(ADD_TIMEOUT_SECONDS));

    finish_leftover(agent, &key).await?;
    remove_orphan_of(agent, &key).await?;
    let wanted = key.clone();
    let known = agent
        .on_ledger(move |ledger| ledger.endpoints.by_key(&wanted).map(|it| it.record.clone()))
        .await;
    let given_up = withdraw_deletion(agent, &key).await?;
    if let Some(record) = known {
        if !given_up
            && record.netns == params.netns
            && record.pod == name
            && let Some(attachment) = record.attachment
        {
            return Ok(attachment);
        }
        // The same container id with another namespace, or after a DEL, is a new container.
        remove_record(agent, record).await?;
    }

    let mut record = Record {
        version: Record::VERSION,
        key,
        phase: Phase::Adding,
        endpoint: 0,
        netns: params.netns,
        pod: name,
        pod_uid: pod.uid,
        ipv4: None,
        ipv6: None,
        generation: 0,
        identity: 0,
        labels: Vec::new(),
        link: None,
        attachment: None,
    };
    let started = Instant::now();
    match attach(agent, &mut record, deadline).await {
        Ok(attachment) => {
            tracing::info!(
                pod = %record.pod, endpoint = record.endpoint, container = %record.key.container_id,
                identity = record.identity, milliseconds = started.elapsed().as_millis() as u64,
                "pod attached"
            );
            Ok(attachment)
        }
        Err(error) => {
            tracing::error!(
                pod = %record.pod, container = %record.key.container_id, code = %error.code,
                "pod not attached: {}", error.message
            );
            if record.endpoint != 0 {
                // What cannot be undone now stays queued and is undone later.
                let _ = remove_record(agent, record).await;
            }
            Err(error)
        }
    }
}

async fn attach(
    agent: &Arc<Agent>,
    record: &mut Record,
    deadline: Instant,
) -> Result<Attachment, ApiError> {
    let mut clock = Clock::start(agent);
    let id = agent
        .on_ledger(|ledger| ledger.endpoints.take_id())
        .await
        .ok_or_else(|| {
            ApiError::new(
                "cni/no-endpoint",
                format!(
                    "pod {}: this node has all of its {} endpoints",
                    record.pod, LAST_ENDPOINT_ID
                ),
            )
            .help("delete pods on this node, or lower the kubelet's maxPods")
        })?;
    record.endpoint = id;
    let families: Vec<Family> = agent
        .config
        .families
        .iter()
        .filter_map(|version| Family::of_version(*version))
        .collect();
    let lease = agent
        .attachments
        .addresses
        .lease(&record.key, &families)
        .map_err(|error| error.object(format!("pod {}", record.pod)))?;
    record.ipv4 = lease.ipv4;
    record.ipv6 = lease.ipv6;
    record.generation = lease.generation;
    clock.reach(Step::Leased).await?;

    agent.attachments.save(record).await?;
    clock.reach(Step::Recorded).await?;

    let (identity, labels) = identify(agent, record, deadline).await?;
    record.identity = identity.0;
    record.labels = labels.to_strings();
    clock.reach(Step::Identified).await?;

    let link = make_link(agent, record).await?;
    record.link = Some(LinkRecord {
        ifindex: link.ifindex,
        mac: link.mac,
        host_mac: link.host_mac,
    });
    clock.reach(Step::LinkMade).await?;

    let endpoint = LocalEndpoint::new(record.clone(), identity, labels);
    if let Err(error) = bring_into_force(agent, endpoint).await {
        // Its number may have gone to other labels: the next attempt asks anew.
        agent.identities.allocator.forget(identity);
        return Err(error);
    }
    clock.reach(Step::InForce).await?;

    publish(agent, record, deadline).await?;
    clock.reach(Step::Published).await?;

    let datapath = Arc::clone(&agent.datapath);
    let (id, ifindex) = (record.endpoint, link.ifindex);
    blocking(move || datapath.attach(id, ifindex))
        .await
        .map_err(|error| kernel_failure(&error).object(format!("pod {}", record.pod)))?;
    clock.reach(Step::Attached).await?;

    let attachment = attachment(record, &link);
    record.attachment = Some(attachment.clone());
    record.phase = Phase::Attached;
    agent.attachments.save(record).await?;
    clock.reach(Step::Committed).await?;
    let committed = record.clone();
    agent
        .on_ledger(move |ledger| {
            if let Some(endpoint) = ledger.endpoints.get_mut(committed.endpoint) {
                endpoint.record = committed;
                endpoint.attached = true;
            }
        })
        .await;
    update_metrics(agent).await;
    Ok(attachment)
}

/// The identity of the pod's labels.
async fn identify(
    agent: &Agent,
    record: &Record,
    deadline: Instant,
) -> Result<(Identity, Arc<LabelSet>), ApiError> {
    let patience = deadline.min(Instant::now() + POD_TIMEOUT);
    let labels = pod_labels(agent, &record.pod, record.pod_uid.as_deref(), patience).await?;
    let identity = agent.identities.allocate(&labels, deadline).await?;
    Ok((identity, Arc::new(labels)))
}

async fn make_link(agent: &Agent, record: &Record) -> Result<PodLink, ApiError> {
    let spec = LinkSpec {
        endpoint: record.endpoint,
        netns: record.netns.clone(),
        interface: record.key.interface.clone(),
        ipv4: record.ipv4,
        ipv6: record.ipv6,
    };
    let datapath = Arc::clone(&agent.datapath);
    blocking(move || datapath.create_link(&spec))
        .await
        .map_err(|error| kernel_failure(&error).object(format!("pod {}", record.pod)))
}

/// Writes policy, facts and ipcache rows of an endpoint, and of those that the new identity touches.
async fn bring_into_force(agent: &Agent, endpoint: LocalEndpoint) -> Result<(), ApiError> {
    let pod = endpoint.record.pod.clone();
    let missing = agent
        .on_ledger(move |ledger| {
            let id = endpoint.record.endpoint;
            if ledger.stands_for_others(endpoint.identity, &endpoint.labels) {
                return Some(format!(
                    "identity {} stands for other labels by now",
                    endpoint.identity
                ));
            }
            ledger.add_endpoint(endpoint);
            ledger.reconcile();
            match ledger.endpoints.get(id) {
                Some(it) if (it.has_wished() || it.has_part_of_wished()) && it.facts.is_some() => {
                    // A failure elsewhere is tried again; only the ipcache concerns everybody.
                    ledger.writer.failures.of(IPCACHE).cloned()
                }
                Some(it) => Some(it.failure.clone().unwrap_or_else(|| {
                    ledger
                        .writer
                        .failures
                        .iter()
                        .map(|(_, reason)| reason.clone())
                        .collect::<Vec<_>>()
                        .join("; ")
                })),
                None => Some("the endpoint was removed meanwhile".to_owned()),
            }
        })
        .await;
    match missing {
        None => Ok(()),
        Some(reason) => Err(ApiError::new(
            "datapath/policy-not-in-force",
            format!("pod {pod}: its policy could not be brought into force: {reason}"),
        )
        .object(format!("pod {pod}"))
        .help("see `heddle status` for full maps and `heddle diff` for what is missing")),
    }
}

/// The answer to the runtime.
fn attachment(record: &Record, link: &PodLink) -> Attachment {
    let gateway = |is_v4: bool| {
        link.gateways
            .iter()
            .find(|gateway| gateway.is_ipv4() == is_v4)
            .copied()
    };
    Attachment {
        host_interface: link.name.clone(),
        host_mac: mac_text(link.host_mac),
        interface: record.key.interface.clone(),
        mac: mac_text(link.mac),
        mtu: link.mtu,
        netns: record.netns.clone(),
        addresses: record
            .addresses()
            .map(|address| AttachedAddress {
                address,
                prefix_length: match address {
                    IpAddr::V4(_) => 32,
                    IpAddr::V6(_) => 128,
                },
                gateway: gateway(address.is_ipv4()),
            })
            .collect(),
    }
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
