//! The runtime's side of CNI: calling a node's chain of plugins (CNI specification 1.1.0).

use crate::LabError;
use crate::enter::Place;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// How long one plugin may take; an ADD waits for programs, addresses and policy.
const PLUGIN_DEADLINE: Duration = Duration::from_secs(60);
/// How long a plugin may take to say which versions it speaks.
const VERSION_DEADLINE: Duration = Duration::from_secs(5);
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
    /// What the pod asks of plugins that can do it: values of `runtimeConfig` by capability.
    pub capabilities: Map<String, Value>,
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
            capabilities: Map::new(),
        }
    }
}

/// Versions that this runtime speaks, the newest first.
pub const VERSIONS: [&str; 4] = ["1.1.0", "1.0.0", "0.4.0", "0.3.1"];

/// A node's network configuration list: Heddle, then the plugins that the lab's configuration adds.
pub fn configuration(agent_socket: &Path, version: &str, more: &[Value]) -> Value {
    let mut plugins = vec![json!({ "type": "heddle-cni", "agentSocket": agent_socket })];
    plugins.extend(more.iter().cloned());
    json!({ "cniVersion": version, "name": "heddle", "plugins": plugins })
}

/// The newest version that every plugin says it speaks. A plugin that is not there or does not say is
/// asked later, when its answer counts.
pub async fn common_version(folders: &[PathBuf], plugins: &[Value]) -> &'static str {
    let mut common: Vec<&'static str> = VERSIONS.to_vec();
    for plugin in plugins {
        let kind = plugin["type"].as_str().unwrap_or_default();
        if let Some(path) = find(folders, kind)
            && let Some(spoken) = versions_of(&path).await
        {
            common.retain(|version| spoken.iter().any(|one| one == version));
        }
    }
    common.first().copied().unwrap_or(VERSIONS[0])
}

async fn versions_of(plugin: &Path) -> Option<Vec<String>> {
    let mut child = tokio::process::Command::new(plugin)
        .env("CNI_COMMAND", "VERSION")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .ok()?;
    if let Some(mut input) = child.stdin.take() {
        let request = json!({ "cniVersion": VERSIONS[1] }).to_string();
        // A plugin that ends without reading its input may have answered all the same.
        let _ = input.write_all(request.as_bytes()).await;
    }
    let output = tokio::time::timeout(VERSION_DEADLINE, child.wait_with_output())
        .await
        .ok()?
        .ok()?;
    let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
    let spoken = answer["supportedVersions"].as_array()?;
    Some(
        spoken
            .iter()
            .filter_map(|version| version.as_str().map(str::to_owned))
            .collect(),
    )
}

fn find(folders: &[PathBuf], kind: &str) -> Option<PathBuf> {
    // A name with a slash would leave the folders (specification, section 1).
    if kind.is_empty() || kind.contains('/') {
        return None;
    }
    if kind == "heddle-cni"
        && let Some(given) = std::env::var_os("HEDDLE_CNI").filter(|given| !given.is_empty())
    {
        return Some(PathBuf::from(given));
    }
    folders
        .iter()
        .map(|folder| folder.join(kind))
        .find(|path| path.is_file())
}

/// What a verb is asked with.
#[derive(Clone, Copy, Default)]
struct Request<'a> {
    attachment: Option<&'a Attachment>,
    previous: Option<&'a Value>,
    valid: Option<&'a Value>,
}

impl Chain {
    /// True when the list's version has a verb that came with `since`.
    pub fn speaks(&self, since: &str) -> bool {
        let place = |version: &str| VERSIONS.iter().position(|known| *known == version);
        let own = self.configuration["cniVersion"].as_str().and_then(place);
        own.zip(place(since))
            .is_some_and(|(own, since)| own <= since)
    }

    /// ADD through the chain; the last plugin's result. On a failure the caller deletes.
    pub async fn add(&self, attachment: &Attachment) -> Result<Value, LabError> {
        let mut previous = None;
        for plugin in self.plugins() {
            let request = Request {
                attachment: Some(attachment),
                previous: previous.as_ref(),
                valid: None,
            };
            previous = Some(self.call("ADD", plugin, request).await?);
        }
        Ok(previous.unwrap_or_else(|| json!({})))
    }

    /// CHECK through the chain, with the result of ADD; the first failure ends it.
    pub async fn check(&self, attachment: &Attachment, result: &Value) -> Result<(), LabError> {
        for plugin in self.plugins() {
            let request = Request {
                attachment: Some(attachment),
                previous: Some(result),
                valid: None,
            };
            self.call("CHECK", plugin, request).await?;
        }
        Ok(())
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
            let request = Request {
                attachment: Some(attachment),
                previous,
                valid: None,
            };
            let result = self.call("DEL", plugin, request).await.map(drop);
            if first.is_ok() {
                first = result;
            }
        }
        first
    }

    /// STATUS of every plugin; the first that cannot serve ends it.
    pub async fn status(&self) -> Result<(), LabError> {
        for plugin in self.plugins() {
            self.call("STATUS", plugin, Request::default()).await?;
        }
        Ok(())
    }

    /// GC by every plugin: what is not in `valid` (container id and interface each) is gone. Goes on
    /// after a failure; the first one is returned.
    pub async fn collect_garbage(&self, valid: &[(String, String)]) -> Result<(), LabError> {
        let valid: Value = valid
            .iter()
            .map(|(container, interface)| json!({ "containerID": container, "ifname": interface }))
            .collect();
        let mut first = Ok(());
        for plugin in self.plugins() {
            let request = Request {
                valid: Some(&valid),
                ..Request::default()
            };
            let result = self.call("GC", plugin, request).await.map(drop);
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

    /// What a plugin reads: its own configuration, and what the runtime adds (specification, section 3).
    fn request(&self, plugin: &Value, asked: Request<'_>) -> Value {
        let mut request = plugin.clone();
        request["cniVersion"] = self.configuration["cniVersion"].clone();
        request["name"] = self.configuration["name"].clone();
        if let Some(fields) = request.as_object_mut()
            && let Some(Value::Object(declared)) = fields.remove("capabilities")
            && let Some(attachment) = asked.attachment
        {
            // A plugin gets what it declares, of what there is for this pod.
            let given: Map<String, Value> = declared
                .into_iter()
                .filter(|(_, wanted)| *wanted == true)
                .filter_map(|(name, _)| {
                    let value = attachment.capabilities.get(&name)?.clone();
                    Some((name, value))
                })
                .collect();
            if !given.is_empty() {
                fields.insert("runtimeConfig".to_owned(), Value::Object(given));
            }
        }
        if let Some(previous) = asked.previous {
            request["prevResult"] = previous.clone();
        }
        if let Some(valid) = asked.valid {
            request["cni.dev/valid-attachments"] = valid.clone();
        }
        request
    }

    async fn call(
        &self,
        verb: &'static str,
        plugin: &Value,
        asked: Request<'_>,
    ) -> Result<Value, LabError> {
        let kind = plugin["type"].as_str().unwrap_or_default();
        let failed = |cni_code: u32, reason: String| LabError::Cni {
            verb,
            plugin: kind.to_owned(),
            cni_code,
            reason,
        };
        let path = find(&self.folders, kind)
            .ok_or_else(|| failed(0, format!("it is in none of {:?}", self.folders)))?;
        let request = self.request(plugin, asked);
        let mut command = std::process::Command::new(&path);
        command
            .env("CNI_COMMAND", verb)
            .env(
                "CNI_PATH",
                std::env::join_paths(&self.folders).unwrap_or_default(),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(attachment) = asked.attachment {
            command
                .env("CNI_CONTAINERID", &attachment.container_id)
                .env("CNI_NETNS", &attachment.namespace)
                .env("CNI_IFNAME", &attachment.interface)
                .env("CNI_ARGS", &attachment.arguments);
        }
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
            // Only an ADD has an answer; one without any leaves the result as it was.
            if verb != "ADD" || output.stdout.is_empty() {
                return Ok(asked.previous.cloned().unwrap_or(Value::Null));
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
