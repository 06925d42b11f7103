//! The runtime's side of CNI: calling a node's chain of plugins (CNI specification 1.1.0).

use crate::LabError;
use crate::enter::Place;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// How long one plugin may take; an ADD waits for programs, addresses and policy.
const PLUGIN_DEADLINE: Duration = Duration::from_secs(60);
/// Name of a node's network configuration list.
pub const CONFIGURATION: &str = "cni/10-heddle.conflist";

/// A node's plugins.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The network configuration list.
    pub configuration: Value,
    /// Folders in which plugins are looked for.
    pub folders: Vec<PathBuf>,
    /// Network namespace in which plugins run: the node's.
    pub node_namespace: String,
    /// Cgroup in which plugins run.
    pub cgroup: Option<PathBuf>,
}

/// One attachment: whose, and where.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_NETNS.
    pub namespace: PathBuf,
    /// CNI_IFNAME.
    pub interface: String,
    /// CNI_ARGS.
    pub arguments: String,
}

impl Attachment {
    /// The attachment of a pod's sandbox, with the arguments that the kubelet's runtimes give.
    pub fn of_pod(container_id: &str, namespace: &Path, pod: (&str, &str, &str)) -> Self {
        let (pod_namespace, pod_name, uid) = pod;
        Self {
            container_id: container_id.to_owned(),
            namespace: namespace.to_owned(),
            interface: "eth0".to_owned(),
            arguments: format!(
                "IgnoreUnknown=1;K8S_POD_NAMESPACE={pod_namespace};K8S_POD_NAME={pod_name};\
                 K8S_POD_INFRA_CONTAINER_ID={container_id};K8S_POD_UID={uid}"
            ),
        }
    }
}

/// A node's network configuration list: Heddle, then the plugins that the lab's configuration adds.
pub fn configuration(agent_socket: &Path, more: &[Value]) -> Value {
    let mut plugins = vec![json!({ "type": "heddle-cni", "agentSocket": agent_socket })];
    plugins.extend(more.iter().cloned());
    json!({ "cniVersion": "1.1.0", "name": "heddle", "plugins": plugins })
}

impl Chain {
    /// ADD through the chain; the last plugin's result. On a failure the caller deletes.
    pub async fn add(&self, attachment: &Attachment) -> Result<Value, LabError> {
        let mut previous = None;
        for plugin in self.plugins() {
            let result = self
                .call("ADD", plugin, attachment, previous.as_ref())
                .await?;
            previous = Some(result);
        }
        Ok(previous.unwrap_or_else(|| json!({})))
    }

    /// DEL through the chain in reverse, with the cached result of ADD. Goes on after a failure, so that
    /// one plugin cannot keep another's leftovers; the first failure is returned.
    pub async fn delete(
        &self,
        attachment: &Attachment,
        previous: Option<&Value>,
    ) -> Result<(), LabError> {
        let mut first = Ok(());
        for plugin in self.plugins().into_iter().rev() {
            let result = self
                .call("DEL", plugin, attachment, previous)
                .await
                .map(|_| ());
            if first.is_ok() {
                first = result;
            }
        }
        first
    }

    fn plugins(&self) -> Vec<&Value> {
        self.configuration["plugins"]
            .as_array()
            .into_iter()
            .flatten()
            .collect()
    }

    fn find(&self, kind: &str) -> Option<PathBuf> {
        if kind == "heddle-cni"
            && let Some(given) = std::env::var_os("HEDDLE_CNI").filter(|given| !given.is_empty())
        {
            return Some(PathBuf::from(given));
        }
        self.folders
            .iter()
            .map(|folder| folder.join(kind))
            .find(|path| path.is_file())
    }

    async fn call(
        &self,
        verb: &'static str,
        plugin: &Value,
        attachment: &Attachment,
        previous: Option<&Value>,
    ) -> Result<Value, LabError> {
        let kind = plugin["type"].as_str().unwrap_or_default();
        let failed = |cni_code: u32, reason: String| LabError::Cni {
            verb,
            plugin: kind.to_owned(),
            cni_code,
            reason,
        };
        // A name with a slash would leave the folders (specification, section 1).
        let path = Some(kind)
            .filter(|kind| !kind.is_empty() && !kind.contains('/'))
            .and_then(|kind| self.find(kind))
            .ok_or_else(|| failed(0, format!("it is in none of {:?}", self.folders)))?;
        let mut request = plugin.clone();
        request["cniVersion"] = self.configuration["cniVersion"].clone();
        request["name"] = self.configuration["name"].clone();
        if let Some(previous) = previous {
            request["prevResult"] = previous.clone();
        }
        let mut command = std::process::Command::new(&path);
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &attachment.container_id)
            .env("CNI_NETNS", &attachment.namespace)
            .env("CNI_IFNAME", &attachment.interface)
            .env("CNI_ARGS", &attachment.arguments)
            .env(
                "CNI_PATH",
                std::env::join_paths(&self.folders).unwrap_or_default(),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut place = Place::here().in_network(&self.node_namespace)?;
        if let Some(cgroup) = &self.cgroup {
            place = place.in_cgroup(cgroup)?;
        }
        place.apply(&mut command);
        let run = async {
            let mut child = tokio::process::Command::from(command)
                .kill_on_drop(true)
                .spawn()?;
            if let Some(mut input) = child.stdin.take() {
                // A plugin that ends without reading its input says why on its output.
                let _ = input.write_all(request.to_string().as_bytes()).await;
            }
            child.wait_with_output().await
        };
        let output = tokio::time::timeout(PLUGIN_DEADLINE, run)
            .await
            .map_err(|_| failed(0, format!("no answer in {} s", PLUGIN_DEADLINE.as_secs())))?
            .map_err(|error| failed(0, format!("{}: {error}", path.display())))?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if output.status.success() {
            if verb == "DEL" || output.stdout.is_empty() {
                return Ok(previous.cloned().unwrap_or(Value::Null));
            }
            return serde_json::from_slice(&output.stdout)
                .map_err(|error| failed(0, format!("its result is not JSON: {error}")));
        }
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        let code = answer["code"]
            .as_u64()
            .and_then(|code| u32::try_from(code).ok())
            .unwrap_or(0);
        let parts = [
            answer["msg"].as_str(),
            answer["details"].as_str(),
            Some(&said),
        ];
        let reason: Vec<&str> = parts
            .into_iter()
            .flatten()
            .filter(|part| !part.is_empty())
            .collect();
        Err(failed(
            code,
            if reason.is_empty() {
                format!("it ended with {}", output.status)
            } else {
                reason.join(": ")
            },
        ))
    }
}

/// The pod's addresses in a CNI result, IPv4 first as Kubernetes lists them for a dual-stack default.
pub fn addresses(result: &Value) -> Vec<String> {
    let mut found: Vec<String> = result["ips"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|ip| Some(ip["address"].as_str()?.split('/').next()?.to_owned()))
        .collect();
    found.sort_by_key(|address| address.contains(':'));
    found
}

#[cfg(test)]
mod tests;
