//! The store of a lab, or of a dump, as it is at one moment, as the cluster that policy is decided for.

use super::super::usage;
use crate::commands::live::node::NodeAgent;
use crate::dump::Dump;
use crate::failure::{Failure, NO_DATA};
use heddle_agent::config::{AgentConfig, AllowLocalhost};
use heddle_kube::{
    cluster,
    identity::parse_identity,
    manifest::Manifest,
    pod,
    policy::{self, Problem, Severity},
    store::{Event, Kind, Object, Scope, Store, embedded::Client},
};
use heddle_lab::{config::LabRecord, paths::Lab};
use heddle_model::{LabelFilter, NamespacedName};
use heddle_verify::{Cluster, Placement};
use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

/// How long the store may take to tell all it has.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// The lab that is asked, or a dump of one.
pub(super) struct Live {
    pub(super) lab: Lab,
    pub(super) record: LabRecord,
    pub(super) dump: Option<Arc<Dump>>,
}

/// The store at one revision.
pub(super) struct Snapshot {
    pub(super) revision: u64,
    objects: BTreeMap<(Kind, NamespacedName), Object>,
}

/// The store's cluster, and what is not in it.
pub(super) struct Wished {
    pub(super) cluster: Cluster,
    pub(super) revision: u64,
    /// Objects that are refused, with the reason: agents keep the last version that they accepted.
    pub(super) refused: Vec<String>,
}

fn lab_failure(error: &heddle_lab::LabError) -> Failure {
    Failure::new(error.code(), error.to_string())
        .help(error.help())
        .object(error.object())
        .exit(NO_DATA)
}

impl Live {
    pub(super) fn open(name: &str) -> Result<Self, Failure> {
        let lab = Lab::named(name)
            .map_err(|error| usage(&error.code(), error.to_string(), &error.help()))?;
        let record = heddle_lab::config::record(&lab).map_err(|error| lab_failure(&error))?;
        let dump = None;
        Ok(Self { lab, record, dump })
    }

    pub(super) fn in_dump(path: &Path) -> Result<Self, Failure> {
        let dump = Dump::open(path)?;
        Ok(Self {
            lab: dump.lab()?,
            record: dump.record()?,
            dump: Some(dump),
        })
    }

    /// A node's agent.
    pub(super) fn agent(&self, node: &str) -> Result<NodeAgent, Failure> {
        match &self.dump {
            Some(dump) => NodeAgent::in_dump(dump, node),
            None => NodeAgent::of(self.lab.name(), node),
        }
    }

    fn store(&self) -> Result<Box<dyn Store>, Failure> {
        Ok(match &self.dump {
            Some(dump) => Box::new(dump.store(&Kind::OF_VERDICTS)?),
            None => Box::new(Client::new(self.lab.store_socket())),
        })
    }

    /// The configuration that a node's agent has.
    pub(super) fn agent_config(&self, node: &str) -> Result<AgentConfig, Failure> {
        self.record
            .agent_config(&self.lab, node)
            .map_err(|reason| Failure::new("lab/bad-config", reason).object(node))
    }

    /// All that the store has, at one revision.
    pub(super) async fn snapshot(&self) -> Result<Snapshot, Failure> {
        let store = self.store()?;
        let mut watch = store.watch(&Scope::each(&Kind::OF_VERDICTS));
        let mut objects = BTreeMap::new();
        let heard = tokio::time::timeout(STORE_TIMEOUT, async {
            while let Some(event) = watch.recv().await {
                match event {
                    Event::Applied(object) => {
                        objects.insert((object.kind, object.name.clone()), object);
                    }
                    Event::Deleted(object) => {
                        objects.remove(&(object.kind, object.name));
                    }
                    Event::Restarted => objects.clear(),
                    Event::Synced { revision } => return Some(revision),
                }
            }
            None
        })
        .await;
        match heard {
            Ok(Some(revision)) => Ok(Snapshot { revision, objects }),
            _ => Err(Failure::new(
                "store/unavailable",
                format!(
                    "the store of lab {} ({}) did not tell what it has within {} seconds",
                    self.lab.name(),
                    self.lab.store_socket().display(),
                    STORE_TIMEOUT.as_secs()
                ),
            )
            .object(self.lab.name())
            .help("`heddle lab status` shows whether the lab is whole; its store starts again by itself")
            .exit(NO_DATA)),
        }
    }
}

impl Snapshot {
    fn of(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.objects.values().filter(move |it| it.kind == kind)
    }

    /// Fails for a pod that is there and has no address yet: nothing can be said of it.
    pub(super) fn must_have_address(&self, given: &str) -> Result<(), Failure> {
        let Ok(name) = given.parse::<NamespacedName>() else {
            return Ok(());
        };
        match self.objects.get(&(Kind::Pod, name)) {
            Some(object) if !has_address(object) => Err(Failure::new(
                "policy/pod-without-address",
                format!("pod {given} has no address yet"),
            )
            .object(given)
            .help(format!(
                "`heddle lab get pod {} -n {} -o yaml` says what it waits for",
                object.name.name, object.name.namespace
            ))
            .exit(NO_DATA)),
            _ => Ok(()),
        }
    }

    /// The cluster that the store describes, with the identities that it has given out.
    pub(super) fn cluster(&self, lab: &str, agent: &AgentConfig) -> Result<Wished, Failure> {
        let mut refused = Vec::new();
        let mut refuse = |object: &Object, problems: Vec<Problem>| {
            let error = problems
                .into_iter()
                .find(|problem| problem.severity == Severity::Error);
            refused.push(match error {
                Some(error) => format!(
                    "{} {} is refused: [{}] {}: {}",
                    object.kind, object.name, error.code, error.field, error.message
                ),
                None => format!("{} {} is refused", object.kind, object.name),
            });
        };
        let (mut manifests, mut policies, mut groups) = (Vec::new(), Vec::new(), Vec::new());
        for object in self.objects.values() {
            match object.kind {
                kind if kind.is_policy() => match policy::parse_policy(&object.value) {
                    Ok(parsed) => {
                        let mode = agent.policy_cidr_match_mode;
                        policies.extend(parsed.into_iter().map(|policy| mode.meant(policy)));
                    }
                    Err(problems) => refuse(object, problems),
                },
                Kind::CiliumCIDRGroup => match policy::parse_cidr_group(&object.value) {
                    Ok(group) => groups.push(group),
                    Err(problems) => refuse(object, problems),
                },
                Kind::Pod if !has_address(object) => continue,
                _ => {}
            }
            manifests.push(Manifest {
                file: format!("lab {lab}"),
                document: 1,
                value: object.value.clone(),
            });
        }
        let keys = agent.excluded_labels.as_ref();
        let mut beside = Placement::default();
        beside.cluster.clone_from(&agent.cluster);
        beside.whence = format!("lab {lab}");
        if let Some(keys) = keys {
            beside.filter = LabelFilter::excluding(keys.iter().map(String::as_str));
        }
        beside.identities = self
            .of(Kind::CiliumIdentity)
            .filter_map(|object| parse_identity(&object.value))
            .map(|(identity, labels)| (labels, identity))
            .collect();
        let inventory = cluster::inventory(&manifests, policies, groups)?;
        let mut cluster = Cluster::build(inventory, &beside)?;
        cluster.engine.set_mode(agent.policy_enforcement);
        let localhost = agent.allow_localhost == AllowLocalhost::Always;
        cluster.engine.set_allow_localhost(localhost);
        Ok(Wished {
            cluster,
            revision: self.revision,
            refused,
        })
    }
}

fn has_address(pod: &Object) -> bool {
    pod::is_host_network(&pod.value) || !pod::addresses(&pod.value).is_empty()
}
