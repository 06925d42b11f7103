//! The pods that there are: those that are written, and those of workloads.

use super::{ObjectError, facts::owned, kind, object};
use crate::{manifest::Manifest, pod};
use heddle_model::NamespacedName;
use heddle_verify::PodSpec;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Pods of one workload at most; more is a slip of the finger.
pub(super) const MOST_REPLICAS: u64 = 10_000;

/// The pods, those of workloads included: `NAME-0`, `NAME-1`, ... for each replica.
pub(super) fn pods(
    manifests: &[Manifest],
) -> Result<BTreeMap<NamespacedName, PodSpec>, ObjectError> {
    let mut pods = BTreeMap::new();
    for manifest in manifests {
        match kind(manifest) {
            "Pod" if !pod::is_finished(&manifest.value) => {
                let workload = pod::workload(&manifest.value);
                let spec = spec(&manifest.value, workload);
                pods.insert(pod::name(&manifest.value), spec);
            }
            of @ ("Deployment" | "StatefulSet" | "ReplicaSet") => {
                let owner = pod::name(&manifest.value);
                let replicas = manifest.value.pointer("/spec/replicas");
                let replicas = replicas.map_or(Some(1), Value::as_u64);
                let Some(replicas) = replicas.filter(|replicas| *replicas <= MOST_REPLICAS) else {
                    return Err(ObjectError::InvalidReplicas {
                        object: object(manifest),
                    });
                };
                let template = manifest.value.pointer("/spec/template").cloned();
                let template = template.unwrap_or_default();
                let labels = template.pointer("/metadata/labels").cloned();
                let written = json!({
                    "metadata": { "labels": labels.unwrap_or_default() },
                    "spec": template.get("spec").cloned().unwrap_or_default(),
                });
                let workload = Some((of.to_owned(), owner.name.clone()));
                let spec = spec(&written, workload);
                for replica in 0..replicas {
                    let name = format!("{}-{replica}", owner.name);
                    pods.insert(NamespacedName::new(&owner.namespace, name), spec.clone());
                }
            }
            _ => {}
        }
    }
    Ok(pods)
}

fn spec(written: &Value, workload: Option<(String, String)>) -> PodSpec {
    PodSpec {
        labels: owned(pod::labels(written)),
        service_account: pod::service_account(written).to_owned(),
        node: pod::node(written).map(str::to_owned),
        addresses: pod::addresses(written),
        host_network: pod::is_host_network(written),
        ports: pod::declared_ports(written),
        workload,
    }
}
